"""Euler angles of the head, in degrees: R = Rz(roll) Ry(yaw) Rx(pitch)."""

from __future__ import annotations

import numpy as np

ANGLES = ("pitch", "yaw", "roll")  # the order of angles in arrays
AXES = "ZYX"  # SciPy's capitals: each turn is about the axes that the turn before it has moved


def from_angles(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """(3, 3) float64: the rotation with these angles."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler(AXES, [roll, yaw, pitch], degrees=True).as_matrix()


def to_angles(rotation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotations -> (..., 3): pitch, yaw, roll; yaw is within 90 degrees."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_euler(AXES, degrees=True)[..., ::-1]
