"""Pasting a result back into the whole reference picture, with a soft edge."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from .crop import Crop

MAX_FADE = 0.25  # of the crop's side: width of the softest edge; the face begins about there


def paste(frame: np.ndarray, crop: Crop, picture: np.ndarray, feather: float = 0.5) -> np.ndarray:
    """A copy of the frame (H, W, 3) uint8 with the picture (S, S, 3) uint8 in the place of the crop.

    The picture is resized to the crop: bicubic, with antialiasing. feather: from 0, a hard edge, to 1, a
    fade over a quarter of the crop; there is no fade at the edges of the frame itself. Pixels with their
    centre outside the crop keep their exact values.
    """
    columns, across = _fade(crop.left, crop.side, frame.shape[1], feather)
    rows, down = _fade(crop.top, crop.side, frame.shape[0], feather)
    mask = (down[:, None] * across)[..., None]
    pasted = frame.copy()
    part = pasted[rows, columns]
    part[:] = np.round(part + mask * (_resampled(picture, crop, rows, columns) - part.astype(float)))
    return pasted


def _fade(start: float, side: float, length: int, feather: float) -> tuple[slice, np.ndarray]:
    """Along one axis: (the frame's pixels that the crop covers, the weight 0..1 of the picture in each)."""
    first, last = math.ceil(start - 0.5), math.ceil(start + side - 0.5)
    # A crop may end less than a pixel before the frame's edge: the picture is extended to it.
    reaches_start, reaches_end = start < 1, start + side > length - 1
    first, last = 0 if reaches_start else first, length if reaches_end else last
    middles = np.arange(first, last) + 0.5
    distance = np.minimum(
        np.inf if reaches_start else middles - start, np.inf if reaches_end else start + side - middles
    )
    ramp = np.clip(np.broadcast_to(distance, middles.shape) / max(feather * MAX_FADE * side, 1e-9), 0, 1)
    return slice(first, last), ramp * ramp * (3 - 2 * ramp)


def _resampled(picture: np.ndarray, crop: Crop, rows: slice, columns: slice) -> np.ndarray:
    """The picture resampled at `rows` and `columns` of the frame: (h, w, 3) uint8."""
    factor = picture.shape[0] / crop.side  # px of the picture per px of the frame
    margin = math.ceil(2 * factor) + 1  # px: the filter reaches over the edges of the picture
    wider = Image.fromarray(np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    box = [
        margin + factor * (place - start)
        for place, start in (
            (columns.start, crop.left),
            (rows.start, crop.top),
            (columns.stop, crop.left),
            (rows.stop, crop.top),
        )
    ]
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return np.asarray(wider.resize(size, Image.Resampling.BICUBIC, box=box))
