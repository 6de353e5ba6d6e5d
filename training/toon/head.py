"""The head's surface, and how blendshapes move it.

A point of the skin is named by its place at rest: (theta, y), the angle around the vertical axis and the
height.
"""

import numpy as np
from numpy.typing import ArrayLike

from training.toon.draw import Canvas, bump, cells, lit, normals, smoothstep
from training.toon.expression import Controls
from training.toon.identity import Identity

COLUMNS = np.pi * 0.72 * (lambda t: 0.55 * t + 0.45 * t**3)(np.linspace(-1, 1, 43))  # denser at the front
ROWS = np.sin(np.linspace(-1, 1, 40) * np.pi / 2) * 0.999
CHIN_DROP = 0.55  # how far jawOpen = 1 lowers the chin: more than a laugh needs


class Head:
    def __init__(self, identity: Identity, controls: Controls) -> None:
        self.identity, self.controls = identity, controls

    def section(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Half width at height y, and the same before the face narrows to the chin."""
        p = self.identity
        edge = np.where(y > 0, np.abs(y / p.top) ** 2.5, np.abs(y / p.chin) ** (2.4 + 1.2 * p.square_jaw))
        round_ = np.sqrt(np.clip(1 - edge, 0, 1))
        return round_ * (1 - p.taper * smoothstep(0.05, -p.chin, y) * (1 - 0.35 * p.square_jaw)), round_

    def surface(self, theta: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(..., 3) points of the moved skin for rest angles and heights that broadcast together."""
        width, round_ = self.section(y)
        front = np.cos(theta)
        z = round_ * self.identity.depth * np.where(front > 0, front, front * 1.12)
        z = np.where(front > 0, z * (1 - 0.10 * smoothstep(0, -1.2, y)), z)
        return self.relief(width * np.sin(theta), y + 0 * theta, z, np.clip(front * 3, 0, 1))

    def front(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Points of the face for rest x and y: where eyes, brows and mouth are drawn."""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        width = self.section(y)[0]
        return self.surface(np.arcsin(np.clip(x / np.maximum(width, 1e-3), -0.98, 0.98)), y)

    def relief(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, front: np.ndarray) -> np.ndarray:
        """(..., 3) points of the skin (x, y, z) with nose, cheeks and jaw added. front: 1 before the ears, 0
        behind them."""
        p, c = self.identity, self.controls
        ax, z = np.abs(x), z.copy()
        # nose: a ridge that deepens from between the eyes to the tip, then turns in
        bridge = p.nose_bridge * 0.35
        ridge = np.where(
            y > p.nose_y,
            bridge * smoothstep(p.eye_y + 0.28, p.eye_y - 0.05, y)
            + (1 - bridge) * smoothstep(p.eye_y + 0.05, p.nose_y, y) ** 1.3,
            smoothstep(p.nose_y - 0.17, p.nose_y, y),
        )
        ridge_width = p.nose_width * np.where(
            y > p.nose_y, 0.62 + 0.38 * smoothstep(p.eye_y, p.nose_y, y), 1.0
        )
        z += front * p.nose_depth * ridge * np.exp(-((x / ridge_width) ** 2))
        z += front * 0.09 * bump(ax, p.nose_width * 1.05, 0.07) * bump(y, p.nose_y - 0.03, 0.08)
        z -= front * 0.09 * bump(ax, p.eye_x, 0.26) * bump(y, p.eye_y, 0.2)
        z += front * 0.05 * bump(ax, 0.33, 0.35) * bump(y, p.eye_y + 0.36, 0.13)
        # cheeks: smile lifts, puff swells
        smile = np.where(x > 0, c["mouthSmileLeft"], c["mouthSmileRight"])
        puff = c["cheekPuff"]
        z += (
            front
            * (p.cheek + 0.07 * smile + 0.14 * puff)
            * bump(ax, 0.52 + 0.1 * puff, 0.24)
            * bump(y, -0.42 - 0.2 * puff + 0.06 * smile, 0.24)
        )
        x = x + np.sign(x) * (
            0.12 * puff * bump(y, -0.62, 0.3) * smoothstep(0.2, 0.8, ax)
            + 0.03 * smile * bump(y, -0.55, 0.25) * smoothstep(0.3, 0.8, ax)
        )
        # muzzle, chin and the dent between them
        z += front * 0.07 * bump(x, 0, 0.38) * bump(y, p.mouth_y, 0.2)
        z += front * 0.10 * bump(x, 0, 0.25) * bump(y, 0.2 - p.chin, 0.16)
        z -= front * 0.04 * bump(x, 0, 0.3) * bump(y, p.mouth_y - 0.22, 0.06)
        jaw = smoothstep(p.mouth_y + 0.02, p.mouth_y - 0.25, y) * smoothstep(-0.5, 0.3, z)
        y = y - CHIN_DROP * c["jawOpen"] * jaw
        x = x + 0.10 * (c["jawLeft"] - c["jawRight"]) * jaw
        return np.stack([x, y, z], -1)


def draw_skin(canvas: Canvas, head: Head) -> None:
    """The bare head: smooth skin with blush, shaded sockets and the hair's shadow."""
    p = head.identity
    y = np.where(ROWS < 0, ROWS * p.chin, ROWS * p.top)[:, None]
    theta = COLUMNS[None]
    turned = canvas.camera.turned(head.surface(theta, y))
    x, y = cells(head.section(y)[0] * np.sin(theta)), cells(y + 0 * theta)
    front = cells(np.cos(theta) + 0 * ROWS[:, None]) > 0
    normal = normals(turned)
    colours = lit(skin_colours(p, x, y, front), normal, p.light)
    under_nose = 1 - 0.16 * bump(x, 0, 0.20) * bump(y, p.nose_y - 0.13, 0.06) * front
    canvas.mesh(turned, colours * under_nose[..., None], normal[..., 2] > -0.05)


def skin_colours(p: Identity, x: np.ndarray, y: np.ndarray, front: np.ndarray) -> np.ndarray:
    ax = np.abs(x)
    colours = np.broadcast_to(p.skin, x.shape + (3,))

    def tint(weight: np.ndarray, colour: ArrayLike) -> None:
        nonlocal colours
        weight = (weight * front)[..., None]
        colours = colours * (1 - weight) + np.asarray(colour) * weight

    tint(p.blush * bump(ax, 0.58, 0.22) * bump(y, -0.40, 0.2), p.skin * (1.0, 0.62, 0.60))
    tint(0.25 * bump(ax, p.eye_x, 0.30) * bump(y, p.eye_y + 0.05, 0.22), p.skin * (0.82, 0.68, 0.66))
    tint(0.30 * bump(x, 0, 0.20) * bump(y, p.nose_y + 0.02, 0.14), p.skin * (1.0, 0.70, 0.66))
    tint(
        0.35
        * bump(ax, 0.19, 0.06)
        * smoothstep(p.nose_y - 0.05, p.nose_y + 0.1, y)
        * smoothstep(p.eye_y + 0.1, p.eye_y - 0.2, y),
        p.skin * (0.76, 0.62, 0.58),
    )
    if p.style not in ("bald", "buzz"):
        tint(0.4 * smoothstep(p.hairline - 0.16, p.hairline + 0.06, y), p.skin * (0.70, 0.58, 0.54))
    return colours


def draw_beard(canvas: Canvas, head: Head, yaw: float) -> None:
    """Cheeks below a curve from the sideburns to the lip, as far around as the camera sees."""
    p = head.identity
    camera = -np.deg2rad(yaw)  # where the camera stands, as an angle around the head
    right, left = max(-1.8, camera - 1.5), min(1.8, camera + 1.5)
    down = np.linspace(-0.12, -p.chin * 0.99, 14)
    x = np.linspace(0.86, -0.86, 25)
    cheek = head.front(
        x,
        p.mouth_y + 0.13 + 0.22 * smoothstep(0.45, 0.7, np.abs(x)) + 0.30 * smoothstep(0.65, 0.9, np.abs(x)),
    )
    outline = np.concatenate([head.surface(right, down), head.surface(left, down[::-1]), cheek])
    canvas.polygon(outline, p.brow * 1.1, opacity=p.beard)


def draw_nose(canvas: Canvas, head: Head) -> None:
    p = head.identity
    shaded = -1 if p.light[0] > 0 else 1
    down = np.linspace(0, 1, 8)
    canvas.line(
        head.front(
            shaded * p.nose_width * (0.75 + 0.2 * down), p.eye_y - 0.06 + (p.nose_y + 0.08 - p.eye_y) * down
        ),
        p.skin * (0.82, 0.70, 0.66),
        0.022,
    )
    canvas.disc(
        head.front(np.array([-0.25 * shaded * p.nose_width]), p.nose_y + 0.07)[0], p.skin * 0.6 + 102, 0.03
    )
    around = np.linspace(0, 2 * np.pi, 10)
    for side in (-1, 1):
        nostril = head.front(
            side * p.nose_width * 0.55 + 0.055 * np.cos(around),
            p.nose_y - 0.075 + 0.028 * np.sin(around) + 0.012 * side * np.cos(around),
        )
        canvas.polygon(nostril, p.skin * (0.46, 0.28, 0.26))
        wing = np.linspace(-1.5, 1.1, 8)
        canvas.line(
            head.front(
                side * (p.nose_width * 1.02 + 0.055 * np.cos(wing)), p.nose_y - 0.03 + 0.07 * np.sin(wing)
            ),
            p.skin * (0.66, 0.50, 0.46),
            0.022,
        )


def draw_ear(canvas: Canvas, head: Head, side: int) -> None:
    p = head.identity
    a = np.linspace(0, 2 * np.pi, 20)
    rim = np.stack(
        [side * (0.98 + 0.11 * np.cos(a)), -0.12 + p.ear * 1.15 * np.sin(a), -0.12 - 0.16 * np.cos(a)], 1
    )
    middle = rim.mean(0)
    canvas.polygon(rim, p.skin * (0.92, 0.82, 0.80))
    canvas.polygon(middle + (rim - middle) * 0.58, p.skin * (0.78, 0.64, 0.62))
