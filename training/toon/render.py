"""A whole picture: background, hair behind, body, head, face, hair in front."""

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import ArrayLike

from training.toon.camera import Camera, Pose
from training.toon.draw import Canvas, smoothstep
from training.toon.expression import Controls
from training.toon.eyes import draw_eyes, draw_glasses
from training.toon.hair import Hair
from training.toon.head import Head, draw_beard, draw_ear, draw_nose, draw_skin
from training.toon.identity import Identity
from training.toon.mouth import draw_mouth


def render(
    identity: Identity, expression: ArrayLike, pose: Pose, size: int = 256, supersample: int = 2
) -> np.ndarray:
    """Draw a person. `expression`: (51,) ARKit blendshapes in [0, 1]. Returns (size, size, 3) uint8 RGB.

    Drawn `supersample` times larger, then averaged down.
    """
    side = size * supersample
    canvas = Canvas(draw_background(identity, side), Camera(pose, side))
    head = Head(identity, Controls(expression))
    hair = Hair(head)
    near = 1 if pose.yaw < 0 else -1  # the ear on the camera's side

    hair.draw_behind(canvas)
    draw_body(canvas, head, Camera(replace(pose, yaw=pose.yaw * 0.25, pitch=0, roll=pose.roll * 0.15), side))
    draw_ear(canvas, head, -near)
    draw_skin(canvas, head)
    if identity.beard:
        draw_beard(canvas, head, pose.yaw)
    draw_ear(canvas, head, near)
    draw_nose(canvas, head)
    draw_mouth(canvas, head)
    draw_eyes(canvas, head)
    if identity.glasses:
        draw_glasses(canvas, head, pose.yaw)
    hair.draw_front(canvas)
    if identity.earrings:
        draw_earring(canvas, identity, near)
    return cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA)


def draw_background(p: Identity, side: int) -> np.ndarray:
    y, x = np.mgrid[0:32, 0:32] / 31.0 - 0.5
    t = np.clip(0.5 + np.cos(p.background_angle) * x + np.sin(p.background_angle) * y, 0, 1)[..., None]
    gradient = np.clip(p.background[0] * (1 - t) + p.background[1] * t, 0, 255).astype(np.uint8)
    return cv2.resize(gradient, (side, side), interpolation=cv2.INTER_LINEAR)


def draw_body(canvas: Canvas, head: Head, body: Camera) -> None:
    """Neck, shirt and the chin's shadow. The body follows the head's place and a little of its turn."""
    p, camera = head.identity, canvas.camera
    u = np.linspace(-1, 1, 25)
    shoulder = -1.66 - 0.34 * np.abs(u) ** 1.7 - 0.9 * smoothstep(0.80, 1.0, np.abs(u))
    shirt = np.stack([u * p.shoulders, shoulder, np.full(25, -0.25)], 1)
    canvas.polygon(
        body(np.concatenate([shirt, [[p.shoulders * 1.1, -4, -0.2], [-p.shoulders * 1.1, -4, -0.2]]])),
        p.shirt,
    )
    if p.collar_kind == 0:
        canvas.polygon(
            body(
                [
                    [-0.64, -1.64, -0.1],
                    [0.64, -1.64, -0.1],
                    [0.42, -2.04, 0],
                    [0, -2.16, 0.1],
                    [-0.42, -2.04, 0],
                ]
            ),
            p.collar,
        )
    elif p.collar_kind == 1:
        canvas.polygon(body([[-0.62, -1.62, -0.1], [0.62, -1.62, -0.1], [0, -2.7, 0.1]]), p.collar)
    top = camera([[-0.46, -0.75, -0.25], [0.46, -0.75, -0.25]])
    base = body(
        [[0.52, -1.70, -0.2], [0.32, -1.92, 0], [0, -2.0, 0.1], [-0.32, -1.92, 0], [-0.52, -1.70, -0.2]]
    )
    neck = np.concatenate([top, base])
    canvas.polygon(neck, p.skin * (0.86, 0.78, 0.76))

    jaw = camera(head.surface(np.linspace(-1.25, 1.25, 9), np.full(9, -p.chin * 0.80)))
    shadow = np.zeros(canvas.image.shape[:2], np.uint8)
    cv2.fillPoly(
        shadow, [np.round(np.concatenate([jaw, jaw[::-1] + (0, 0.30 * canvas.unit)])).astype(np.int32)], 1
    )
    inside = np.zeros_like(shadow)
    cv2.fillPoly(inside, [np.round(neck).astype(np.int32)], 1)
    canvas.image[(shadow & inside) > 0] = np.clip(p.skin * (0.64, 0.53, 0.51), 0, 255).astype(np.uint8)


def draw_earring(canvas: Canvas, p: Identity, side: int) -> None:
    place = np.array([side * 1.0, -0.12 - p.ear * 1.35, -0.05])
    canvas.disc(place, (150, 105, 30), 0.085)
    canvas.disc(place, (250, 205, 80), 0.065)
