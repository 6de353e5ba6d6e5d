"""Reenactment without a model: the reference, warped from its landmarks to the driver's."""

from __future__ import annotations

import numpy as np

ANCHORS = 9  # along each side of the frame


def warped(frame: np.ndarray, landmarks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8, pulled along so that its landmarks (N, 2) px come to lie on `target` (N, 2) px.

    Piecewise affine over the Delaunay triangles of the target; the border stays where it is. What the
    reference does not show (teeth behind closed lips, the far side of the face) cannot come into view.
    """
    import cv2
    from scipy.interpolate import LinearNDInterpolator

    height, width = frame.shape[:2]
    x, y = np.linspace(0, width - 1, ANCHORS), np.linspace(0, height - 1, ANCHORS)
    border = np.unique([(a, b) for a in x for b in y if a in (0, width - 1) or b in (0, height - 1)], axis=0)
    # A point outside would fold the border over
    inside = ((target > 0) & (target < (width - 1, height - 1))).all(1)
    where_from = LinearNDInterpolator(
        np.concatenate([target[inside], border]), np.concatenate([landmarks[inside], border])
    )
    rows, columns = np.mgrid[:height, :width]
    source = where_from(columns, rows).astype(np.float32)  # (H, W, 2) px
    return cv2.remap(frame, source[..., 0], source[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
