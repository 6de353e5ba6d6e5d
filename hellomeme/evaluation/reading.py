"""How far a picture is from its driver, as one face reader (MediaPipe) sees both."""

from __future__ import annotations

import numpy as np

from ..face.rotation import to_angles


def expression_distance(a: np.ndarray, b: np.ndarray) -> float:
    """AED of one picture: mean absolute difference of two sets of ARKit coefficients (51,), 0..1."""
    return float(np.abs(a - b).mean())


def pose_distance(a: np.ndarray, b: np.ndarray) -> float:
    """APD of one picture: mean absolute difference of pitch, yaw and roll of two rotations (3, 3), in
    degrees."""
    return float(np.abs(to_angles(a) - to_angles(b)).mean())
