"""The output of the released face detector, a NanoDet: from scores and distances on grids to boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.special import softmax

STRIDES = (8, 16, 32)  # px of the input picture to a cell of each grid
MEAN, DEVIATION = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.12, 58.395])  # of B, G, R
LEAST_SCORE, SAME_BOX_IOU = 0.4, 0.3


def detector_input(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB -> (H, W, 3) BGR as the detector was trained on."""
    return (picture[..., ::-1] - MEAN) / DEVIATION


def boxes_of(outputs: Sequence[np.ndarray], width: int, height: int) -> np.ndarray:
    """(N, 4) px of the input picture: x0, y0, x1, y1 of the faces, the most certain first.

    outputs: for each stride the scores (cells,) or (1, cells, 1), then for each stride the distances of the
    four edges from the cell, (cells, 4 * bins): logits of 0, 1, 2, ... strides. width, height: of the input,
    px. Raises ValueError for outputs of other shapes.
    """
    if len(outputs) != 2 * len(STRIDES):
        raise ValueError(f"{len(outputs)} outputs")
    boxes, scores = [], []
    for stride, score, distances in zip(STRIDES, outputs[:3], outputs[3:], strict=True):
        y, x = np.mgrid[: math.ceil(height / stride), : math.ceil(width / stride)] * stride
        cells = np.stack([x, y], -1).reshape(-1, 2)
        logits = distances.reshape(len(cells), 4, -1)
        reach = stride * softmax(logits, -1) @ np.arange(logits.shape[-1])  # left, top, right, bottom
        boxes.append(np.concatenate([cells - reach[:, :2], cells + reach[:, 2:]], 1))
        scores.append(score.reshape(len(cells)))
    every, score = np.concatenate(boxes), np.concatenate(scores).astype(float)
    corner_and_size = np.concatenate([every[:, :2], every[:, 2:] - every[:, :2]], 1)
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), score.tolist(), LEAST_SCORE, SAME_BOX_IOU)
    return every[np.asarray(kept, int).reshape(-1)]
