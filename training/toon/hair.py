"""Hair: a shell over the skull, tapering locks combed along it, curls, a bun or a tail."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from training.toon.draw import Canvas, bump, cells, lit, normals, smoothstep
from training.toon.head import Head

LONG = ("long", "bob", "bangs")
COLUMNS, ROWS = 45, 15
THICKNESS = {
    "buzz": 0.03,
    "curly": 0.14,
    "bun": 0.10,
    "ponytail": 0.10,
    "long": 0.17,
    "bob": 0.19,
    "bangs": 0.17,
    "short": 0.15,
    "side": 0.17,
    "spiky": 0.10,
}
ALONG = np.linspace(0, 1, 9)  # from a lock's root to its tip


class Hair:
    """Places on the hair are (theta, t): the angle around the head, and 0 at the lower edge to 1 at the
    crown."""

    def __init__(self, head: Head) -> None:
        self.head, self.p = head, head.identity
        self.long = self.p.style in LONG
        self.thickness = THICKNESS.get(self.p.style, 0)
        self.rng = np.random.default_rng(self.p.seed)

    def edge(self, theta: np.ndarray) -> np.ndarray:
        """Lower edge of the hair: the hairline in front, sideburns, and the nape or the tips of long hair."""
        p, a = self.p, np.abs(theta)
        low = {
            "bob": -1.05 - 0.25 * p.hair_length,
            "long": -1.7 - 0.5 * p.hair_length,
            "curly": -0.62,
            "bangs": -1.2 - 0.6 * p.hair_length,
        }.get(p.style, -0.62)
        # Recedes a little at the temples
        line = p.hairline + 0.05 * np.cos(2 * theta) + 0.06 * bump(a, 0.62, 0.2)
        if p.style == "bangs":
            line = 0.56 + 0.03 * np.cos(2 * theta)
        elif self.long:  # a curtain that opens at the parting
            line = 0.98 - 0.30 * smoothstep(0, 0.9, np.abs(theta - p.parting * 0.7)) ** 1.2
        elif p.style == "side":  # sweeps across the forehead, away from the parting
            line = line - 0.22 * smoothstep(-0.1, 1.2, -(theta - p.parting) * np.sign(p.parting))
        if self.long:
            return line + (low - line) * smoothstep(0.85, 1.25, a)
        burns = -0.12 + (low + 0.12) * smoothstep(1.5, 1.8, a)
        return line + (burns - line) * smoothstep(0.95, 1.35, a)

    def surface(self, theta: np.ndarray, t: np.ndarray, lift: ArrayLike = 0.0) -> np.ndarray:
        """(..., 3) points of the hair, `lift` above its shell."""
        p = self.p
        edge = self.edge(theta)
        y = edge + (p.top * 0.999 - edge) * np.sin(t * np.pi / 2) ** 0.9
        width, round_ = self.head.section(np.maximum(y, -0.15 if self.long else -9))
        thick = self.thickness * (0.30 + 0.70 * smoothstep(0, 0.35, t)) + lift
        front = np.cos(theta)
        flare = 1 + (0.12 * smoothstep(-0.2, -1.3, y) if self.long else 0)
        return np.stack(
            [
                width * np.sin(theta) * (1 + thick) * flare,
                np.where(y > 0, y * (1 + 0.8 * thick * smoothstep(0, 0.35, t)), y),
                round_ * p.depth * np.where(front > 0, front, front * 1.18) * (1 + thick),
            ],
            -1,
        )

    def colour(self, normal: np.ndarray, shade: ArrayLike = 1.0) -> np.ndarray:
        return lit(self.p.hair, normal, self.p.light, 0.58, 0.54, 6) * shade

    def shell(self, canvas: Canvas) -> None:
        theta = np.pi * np.linspace(-1, 1, COLUMNS)[None]
        t = np.linspace(0, 1, ROWS)[:, None]
        turned = canvas.camera.turned(self.surface(theta + 0 * t, t + 0 * theta))
        normal = normals(turned)
        band = 0.30 * bump(cells(t + 0 * theta), 0.58, 0.14)[..., None]  # the ring of light on glossy hair
        return turned, normal, self.colour(normal) * (1 + band) + 12 * band

    def draw_behind(self, canvas: Canvas) -> None:
        if self.p.style in ("bald", "buzz"):
            return
        turned, normal, colours = self.shell(canvas)
        canvas.mesh(turned, colours * 0.6, normal[..., 2] < 0)
        if self.p.style == "bun":
            self.draw_ball(canvas, canvas.pixels([0, self.p.top + 0.26, -0.35]), 0.40)
        if self.p.style == "ponytail":
            self.draw_tail(canvas)

    def draw_front(self, canvas: Canvas) -> None:
        if self.p.style == "bald":
            return
        turned, normal, colours = self.shell(canvas)
        facing = normal[..., 2] >= 0
        if self.p.style == "buzz":
            canvas.mesh(turned, colours, facing, softness=0.03, opacity=0.65)
            return
        canvas.mesh(turned, colours, facing, softness=0.03)
        if self.p.style == "curly":
            self.draw_curls(canvas)
        else:
            self.draw_locks(canvas)

    def locks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, float]]:
        """Yields (theta, t, lift, tip): the course of each lock over the shell, and how far its tip hangs
        over."""
        p, rng, style = self.p, self.rng, self.p.style
        if style in ("short", "spiky", "bun", "ponytail"):  # combed back from the hairline
            lean = {"short": 0.55 * np.sign(p.parting), "spiky": 0.0}.get(style, 0.0)
            for root in np.linspace(-1.45, 1.45, 15 if style == "spiky" else 13):
                theta = root * (1 - 0.25 * ALONG) + lean * ALONG * np.cos(root / 2)
                lift = {"short": 0.07, "spiky": 0.26}.get(style, 0.01) * ALONG**1.3 * rng.uniform(0.7, 1.2)
                yield theta, 0.03 + (0.55 if style == "spiky" else 0.8) * ALONG, lift, 0.0
            return
        ends = np.linspace(-1.9, 1.9, 20)
        for end in ends[np.argsort(-np.abs(ends - p.parting))]:  # falling from the parting, outermost first
            start = p.parting * 0.6 + 0.30 * (end - p.parting)
            hanging = rng.uniform(0.03, 0.09) if style == "bangs" and abs(end) < 1.1 else 0.0
            yield (
                start + (end - start) * np.sqrt(ALONG),
                0.97 * (1 - ALONG),
                0.02 + 0.03 * np.sin(np.pi * ALONG),
                hanging,
            )

    def draw_locks(self, canvas: Canvas) -> None:
        width = 0.13 * np.sin(np.pi * np.clip(0.12 + 0.85 * ALONG, 0, 1)) ** 0.8
        for theta, t, lift, tip in self.locks():
            shade = self.rng.uniform(0.88, 1.15)
            middle = theta[5]
            outward = canvas.camera.rotation @ np.array([np.sin(middle), 0.5, np.cos(middle)])
            if outward[2] < 0.15:
                continue
            place = self.surface(theta, t, lift)
            place[:, 1] -= tip * smoothstep(0.6, 1, ALONG)
            if self.p.style == "spiky":
                place[:, 1] += 0.6 * lift
            canvas.stroke(place, width, self.colour(outward / np.linalg.norm(outward), shade))

    def draw_curls(self, canvas: Canvas) -> None:
        """Balls of hair all over the shell, far ones first, in rows so that they cover it."""
        rng = self.rng
        theta, t = (
            g.ravel()
            for g in np.meshgrid(
                np.linspace(-np.pi, np.pi, 20, endpoint=False), (0.02, 0.12, 0.24, 0.42, 0.62, 0.82)
            )
        )
        theta, t = (
            theta + rng.uniform(-0.12, 0.12, theta.size),
            np.clip(t + rng.uniform(-0.08, 0.08, t.size), 0, 1),
        )
        radius = rng.uniform(0.17, 0.24, theta.size)
        turned = canvas.camera.turned(self.surface(theta, t, 0.03))
        pixels = canvas.camera.project(turned)
        outward = canvas.camera.rotation @ np.stack([np.sin(theta), 0.6 + 0 * theta, np.cos(theta)])
        for i in np.argsort(turned[:, 2]):
            if outward[2, i] > 0:
                self.draw_ball(canvas, pixels[i], radius[i])

    def draw_ball(self, canvas: Canvas, pixel: ArrayLike, radius: float) -> None:
        towards_light = self.p.light[:2] * (1, -1)
        for size, shade in ((1.0, 0.82), (0.80, 0.96), (0.42, 1.10)):
            canvas.disc(
                pixel + towards_light * radius * (1 - size) * 0.8 * canvas.unit,
                self.p.hair * shade,
                radius * size,
            )

    def draw_tail(self, canvas: Canvas) -> None:
        course = np.array(
            [[0, 0.95, -1.35], [0.7, 0.75, -1.4], [1.15, 0.1, -1.4], [1.25, -0.7, -1.3], [1.05, -1.5, -1.2]]
        )
        s = np.linspace(0, 1, 17)
        smooth = [np.polyval(np.polyfit(np.linspace(0, 1, 5), coordinate, 3), s) for coordinate in course.T]
        fine = np.stack(smooth, 1) * (np.sign(self.p.parting), 1, 1)
        canvas.stroke(fine, 0.26 * np.sin(np.pi * (0.15 + 0.83 * s)) ** 0.7, self.p.hair * 0.72)
        canvas.stroke(fine + (0.06, 0.03, 0), 0.10 * np.sin(np.pi * (0.1 + 0.85 * s)), self.p.hair * 0.95)
