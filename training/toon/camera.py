"""Head pose and the camera. Units: half the width of a face. x to the image's right, y up, z to the
camera."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FACE_SIZE = 0.258  # half a face's width as a fraction of the picture's side
DISTANCE = 9.0  # camera to head, in half face widths: the mild perspective of a webcam
LEVEL = -0.08  # height that is drawn at the picture's centre
NECK = np.array([0.0, -0.9, -0.35])  # the point the head turns about


@dataclass(frozen=True)
class Pose:
    """Degrees: yaw > 0 turns to the image's right, pitch > 0 looks down, roll > 0 turns counter-clockwise.
    `tx` (right) and `ty` (up) are fractions of the picture's side; `scale` multiplies the head's size."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    tx: float = 0.0
    ty: float = 0.0
    scale: float = 1.0


def rotation(pose: Pose) -> np.ndarray:
    """(3, 3) rotation: pitch first, then yaw, then roll."""
    (sy, sp, sr), (cy, cp, cr) = (f(np.deg2rad([pose.yaw, pose.pitch, pose.roll])) for f in (np.sin, np.cos))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return roll @ yaw @ pitch


class Camera:
    """Head points (..., 3) -> `turned` (..., 3) -> `project`ed pixels (..., 2) of a `size` x `size`
    picture."""

    def __init__(self, pose: Pose, size: int) -> None:
        self.rotation = rotation(pose)
        self.unit = FACE_SIZE * size * pose.scale  # pixels per head unit
        self.centre = np.array([size * (0.5 + pose.tx), size * (0.5 - pose.ty)])

    def turned(self, points: ArrayLike) -> np.ndarray:
        return (points - NECK) @ self.rotation.T + NECK

    def project(self, turned: np.ndarray) -> np.ndarray:
        near = self.unit * DISTANCE / (DISTANCE - turned[..., 2])
        return np.stack(
            [self.centre[0] + turned[..., 0] * near, self.centre[1] - (turned[..., 1] - LEVEL) * near], -1
        )

    def __call__(self, points: ArrayLike) -> np.ndarray:
        return self.project(self.turned(np.asarray(points, float)))
