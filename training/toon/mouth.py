"""Mouth, laugh folds and moustache."""

import numpy as np

from training.toon.draw import Canvas, smoothstep
from training.toon.expression import Controls
from training.toon.head import Head

S = np.linspace(-1, 1, 25)  # across the mouth, from the head's right corner to its left
A = np.abs(S)


def by_side(pair: tuple[float, float]) -> np.ndarray:
    """(right, left) -> one value per point of the mouth, passing smoothly from one to the other."""
    right, left = pair
    return right + (left - right) * smoothstep(-0.5, 0.5, S)


class Mouth:
    """The four lip curves: outer and inner edge of both lips, as rest x and heights y (25,)."""

    def __init__(self, head: Head) -> None:
        p, c = head.identity, head.controls
        self.head, self.still = head, Head(p, Controls(np.zeros(51)))
        jaw, pucker, funnel = c["jawOpen"], c["mouthPucker"], c["mouthFunnel"]
        smiles, frowns = c.pair("mouthSmile"), c.pair("mouthFrown")
        stretch = by_side(c.pair("mouthStretch"))
        smile, frown = by_side(smiles), by_side(frowns)
        self.smile, self.frown, self.jaw = float(np.mean(smiles)), float(np.mean(frowns)), jaw
        self.forward = pucker + 0.6 * funnel
        self.shift = 0.15 * (c["mouthLeft"] - c["mouthRight"]) + 0.08 * jaw * (c["jawLeft"] - c["jawRight"])

        width = p.mouth_width * (1 + 0.34 * smile + 0.2 * stretch + 0.08 * frown)
        width *= (1 - 0.58 * pucker - 0.34 * funnel) * (1 - 0.10 * jaw)
        self.x = self.shift * (1 - 0.25 * A) + S * width
        corner = 0.015 + 0.24 * smile - 0.22 * frown
        self.centre = (
            p.mouth_y
            + corner * A**1.7
            - jaw * 0.13 * A**2
            + (0.07 * self.frown - 0.04 * self.smile) * (1 - A)
        )

        bell = np.clip(1 - A**2.4, 0, 1) ** 0.75
        self.gap = float(
            np.clip((jaw * (0.56 + 0.06 * self.smile) + 0.14 * funnel) * (1 - c["mouthClose"]), 0, 1)
        )
        raised = (
            0.03 * jaw
            + 0.05 * funnel
            + 0.03 * self.smile * (jaw > 0.08)
            + 0.05 * by_side(c.pair("mouthUpperUp"))
        )
        self.inner_upper = self.centre + raised * bell
        lowered = np.clip(1 - A**2.8, 0, 1) ** 0.68  # fuller towards the corners than bell
        self.inner_lower = self.centre - (self.gap + 0.05 * by_side(c.pair("mouthLowerDown"))) * lowered
        bow = np.clip(1 - A**2, 0, 1) ** 0.8 * (1 - 0.22 * np.exp(-((S / 0.14) ** 2)))
        upper = (
            p.upper_lip
            * (1 - 0.30 * self.smile + 0.65 * pucker + 0.45 * funnel)
            * (1 - 0.6 * c["mouthRollUpper"])
        )
        lower = (
            p.lower_lip
            * (1 - 0.20 * self.smile + 0.60 * pucker + 0.35 * funnel)
            * (1 - 0.6 * c["mouthRollLower"])
        )
        self.outer_upper = self.inner_upper + upper * bow
        self.outer_lower = self.inner_lower - lower * np.clip(1 - A**2.2, 0, 1) ** 0.7
        self.bell = bell

    def points(self, y: np.ndarray, inset: float = 0.0) -> np.ndarray:
        """(25, 3): the curve on the resting face, which the lips then leave by their own movement."""
        p = self.head.identity
        place = self.still.front(self.x, np.maximum(y, -p.chin * 0.93))
        place[:, 1] = y
        place[:, 2] += (0.06 + 0.10 * self.forward) * (1 - A) - inset
        place[:, 2] -= 0.05 * self.jaw * smoothstep(p.mouth_y - 0.1, p.mouth_y - 0.5, y)
        return place


def draw_mouth(canvas: Canvas, head: Head) -> None:
    p, mouth = head.identity, Mouth(head)
    if p.moustache:
        draw_moustache(canvas, head, mouth)
    outer_upper, outer_lower, upper, lower = (
        canvas.pixels(mouth.points(y))
        for y in (mouth.outer_upper, mouth.outer_lower, mouth.inner_upper, mouth.inner_lower)
    )
    light = 0.86 + 0.24 * p.light[1]
    canvas.polygon(np.concatenate([outer_upper, lower[::-1]]), p.lip * 0.86 * light)
    canvas.polygon(np.concatenate([upper, outer_lower[::-1]]), p.lip * 1.02 * light)
    canvas.line((0.5 * lower + 0.5 * outer_lower)[7:18], p.lip * 1.15 + 14, 0.035)
    if (mouth.inner_upper - mouth.inner_lower).max() > 0.04:
        draw_inside(canvas, mouth, upper, lower)
        canvas.line(lower, p.lip * (0.62, 0.46, 0.46), 0.02)
    canvas.line(upper, p.lip * (0.42, 0.32, 0.32), 0.03)
    for corner in (upper[0], upper[-1]):
        canvas.disc(corner, p.lip * (0.45, 0.35, 0.35), 0.028)
    if not p.beard:
        draw_folds(canvas, head, mouth)


def draw_inside(canvas: Canvas, mouth: Mouth, upper: np.ndarray, lower: np.ndarray) -> None:
    canvas.polygon(np.concatenate([upper, lower[::-1]]), (84, 20, 30))
    teeth = np.maximum(
        mouth.inner_upper - (0.125 + 0.03 * mouth.smile) * mouth.bell - 0.01, mouth.inner_lower
    )
    tongue = mouth.inner_lower + 0.15 * mouth.bell * (mouth.gap > 0.12) * np.clip(1 - 1.6 * A**2, 0, 1)
    tongue = np.minimum(tongue, teeth)
    canvas.polygon(np.concatenate([upper, canvas.pixels(mouth.points(teeth, 0.02))[::-1]]), (250, 247, 240))
    canvas.polygon(np.concatenate([canvas.pixels(mouth.points(tongue, 0.02)), lower[::-1]]), (190, 72, 84))


def draw_folds(canvas: Canvas, head: Head, mouth: Mouth) -> None:
    p = head.identity
    t = np.linspace(0, 1, 10)
    for side, smile, corner in (
        (-1, head.controls["mouthSmileRight"], mouth.x[0]),
        (1, head.controls["mouthSmileLeft"], mouth.x[-1]),
    ):
        if smile > 0.15:
            start = p.nose_width + 0.10
            fold = head.front(
                side * (start + (abs(corner) + 0.08 - start) * t + 0.05 * np.sin(t * 3.1)),
                p.nose_y - 0.02 + (p.mouth_y + 0.18 * smile - p.nose_y) * t,
            )
            canvas.line(fold, p.skin * (1 - 0.32 * smile * np.array([0.7, 1, 1])), 0.028)


def draw_moustache(canvas: Canvas, head: Head, mouth: Mouth) -> None:
    p = head.identity
    s = np.linspace(-1, 1, 15)
    a = np.abs(s)
    y = p.mouth_y + p.upper_lip + 0.06 + 0.05 * (1 - a) + 0.09 * (mouth.smile - mouth.frown) * a
    canvas.stroke(
        head.front(s * p.mouth_width * 1.15 + mouth.shift, y), 0.06 * (1 - a**3) + 0.012, p.brow * 0.9
    )
