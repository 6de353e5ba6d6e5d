"""Eyes, brows and glasses."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from training.toon.draw import Canvas, smoothstep
from training.toon.head import Head

LASHES = np.array([38, 24, 22.0])
SIDES = ((-1, "Right"), (1, "Left"))  # the head's right is at negative x


def draw_eyes(canvas: Canvas, head: Head) -> None:
    for side, name in SIDES:
        draw_eye(canvas, head, side, name)
        draw_brow(canvas, head, side, name)


def draw_eye(canvas: Canvas, head: Head, side: int, name: str) -> None:
    p, c = head.identity, head.controls
    blink, wide, squint = c["eyeBlink" + name], c["eyeWide" + name], c["eyeSquint" + name]
    right = side * (c["eyeLookOut" + name] - c["eyeLookIn" + name])
    up = c["eyeLookUp" + name] - c["eyeLookDown" + name]

    # lid curves over s = -1..1 across the eye, `outer` running from the nose to the temple
    s = np.linspace(-1, 1, 21)
    outer = s * side
    x = p.eye_x * side + s * p.eye_width
    base = p.eye_y + p.eye_tilt * outer
    upper_height = p.eye_height * 1.12 * (1 + 0.55 * wide - 0.30 * squint + 0.2 * max(0.0, up))
    lower_height = p.eye_height * 0.88 * (1 + 0.22 * wide - 0.75 * squint - 0.22 * c["mouthSmile" + name])
    arch = np.clip(1 - s**2, 0, 1) ** 0.75
    crown = np.clip(1 - np.abs(outer + 0.12) ** 2.2 / 1.25, 0, 1) ** 0.62 * np.clip(1 - np.abs(s) ** 6, 0, 1)
    open_upper, open_lower = base + upper_height * crown, base - lower_height * arch
    shut = base - 0.72 * lower_height * arch
    blink = np.clip(blink + 0.30 * max(0.0, -up) * (1 - blink), 0, 1)  # lids follow a lowered gaze
    upper = open_upper + (shut - open_upper) * blink
    lower = np.minimum(open_lower + (shut - open_lower) * np.clip(blink - 0.3, 0, 1) / 0.7, upper)

    lid = canvas.pixels(head.front(x, open_upper + 0.02))
    upper_px, lower_px = canvas.pixels(head.front(x, upper)), canvas.pixels(head.front(x, lower))
    canvas.polygon(np.concatenate([lid, upper_px[::-1]]), p.skin * (0.88, 0.74, 0.70))
    if (upper - lower).max() > 0.03:
        gaze = (
            p.eye_x * side + right * p.eye_width * 0.52,
            p.eye_y + 0.06 * p.eye_height + up * p.eye_height * 0.6,
        )
        draw_ball(canvas, head, upper_px, lower_px, gaze)
    lash_width = (0.024 + 0.018 * p.lash) * (0.5 + 0.5 * smoothstep(-1, 0.6, outer))
    canvas.stroke(upper_px, lash_width, LASHES)
    canvas.line(lower_px, p.skin * (0.55, 0.40, 0.37), 0.02)
    if p.lash > 0.6:
        corner = head.front(x, upper)[-1 if side > 0 else 0]
        canvas.line([corner, corner + (side * 0.09, 0.06 * (1 - 1.4 * blink), -0.03)], LASHES, 0.035)
    crease = open_upper + 0.06 + (upper - open_upper) * 0.12
    canvas.line(head.front(x, crease)[3:-3], p.skin * (0.68, 0.52, 0.48), 0.018)


def draw_ball(
    canvas: Canvas, head: Head, upper: np.ndarray, lower: np.ndarray, gaze: tuple[float, float]
) -> None:
    """White, iris, pupil and highlight, seen through the opening between the lids."""
    p = head.identity
    opening = np.concatenate([upper, lower[::-1]])
    size = np.array(canvas.image.shape[1::-1])
    corner = np.clip(np.floor(opening.min(0)).astype(int) - 2, 0, size)
    end = np.clip(np.ceil(opening.max(0)).astype(int) + 3, 0, size)
    if (end - corner < 3).any():
        return
    window = canvas.image[corner[1] : end[1], corner[0] : end[0]]
    ball = Canvas(np.full_like(window, (246, 243, 240)), canvas.camera)
    radius = p.eye_width * 0.54 * p.iris_size
    a = np.linspace(0, 2 * np.pi, 26)

    def disc(r: float, colour: ArrayLike, dx: float = 0.0, dy: float = 0.0) -> None:
        around = head.front(gaze[0] + radius * (dx + r * np.cos(a)), gaze[1] + radius * (dy + r * np.sin(a)))
        ball.polygon(canvas.pixels(around) - corner, colour)

    disc(1.0, p.iris * 0.45)
    disc(0.87, p.iris)
    disc(0.58, np.clip(p.iris * 1.3 + 14, 0, 255), dy=-0.28)
    disc(0.48, (16, 12, 14))
    shadow = ball.image.copy()
    Canvas(shadow, canvas.camera).polygon(
        np.concatenate([upper, (upper * 0.7 + lower * 0.3)[::-1]]) - corner, (40, 30, 40)
    )
    ball.image = cv2.addWeighted(ball.image, 0.80, shadow, 0.20, 0)
    disc(0.24, (255, 255, 255), dx=0.32 * np.sign(p.light[0] + 1e-6), dy=0.36)
    mask = Canvas(np.zeros_like(window), canvas.camera)
    mask.polygon(opening - corner, (255, 255, 255))
    alpha = mask.image.astype(np.uint16)
    window[:] = (ball.image * alpha + window * (255 - alpha)) // 255


def draw_brow(canvas: Canvas, head: Head, side: int, name: str) -> None:
    p, c = head.identity, head.controls
    down, inner, outer = c["browDown" + name], c["browInnerUp"], c["browOuterUp" + name]
    s = np.linspace(0, 1, 14)  # from the nose to the temple
    lift = (
        inner * 0.30 * (1 - s) ** 0.9
        + outer * 0.28 * s**0.8 * (1.25 - 0.5 * s)
        - down * (0.19 * (1 - s) + 0.08)
    )
    y = (
        p.eye_y
        + p.brow_y
        + p.brow_arch * 1.3 * np.sin(s * np.pi * 0.85)
        - 0.02 * s
        + lift
        - 0.03 * c["eyeBlink" + name]
    )
    x = side * (p.eye_x - p.eye_width * 0.95 - 0.05 * down + s * p.eye_width * 2.1)
    canvas.stroke(
        head.front(x, y), p.brow_thickness * (0.75 + 0.5 * np.sin(s * 2.2)) * (1 - 0.75 * s**3) * 0.9, p.brow
    )


def draw_glasses(canvas: Canvas, head: Head, yaw: float) -> None:
    p = head.identity
    roundness = {1: 2.0, 2: 4.5, 3: 2.6}[p.glasses]
    half_height = 0.28 if p.glasses == 2 else 0.35
    a = np.linspace(0, 2 * np.pi, 40)
    along, across = (np.sign(f) * np.abs(f) ** (2 / roundness) for f in (np.cos(a), np.sin(a)))
    y, z = p.eye_y + 0.02, 0.98 * p.depth
    for side in (-1, 1):
        rim = np.stack(
            [side * p.eye_x + 0.38 * along, y - 0.04 + half_height * across, z - 0.10 * (side * along > 0.3)],
            1,
        )
        canvas.line(rim, p.frame, 0.045, closed=True)
        if yaw * side < 12:  # the far temple hides behind the head
            canvas.line([[side * (p.eye_x + 0.38), y, z - 0.1], [side * 1.02, y, 0.1]], p.frame, 0.045)
    canvas.line([[p.eye_x - 0.38, y, z], [0, y + 0.03, z + 0.07], [0.38 - p.eye_x, y, z]], p.frame, 0.045)
