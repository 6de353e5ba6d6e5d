"""The result back in its place: the drawn square pasted into the whole reference picture, with a soft
edge."""

import math

import numpy as np
from PIL import Image

from .crop import Crop

WIDEST = 0.25  # of the crop's side: how far the softest edge reaches inwards; the face begins about there


def paste(frame: np.ndarray, crop: Crop, picture: np.ndarray, feather: float = 0.5) -> np.ndarray:
    """The frame (H, W, 3) uint8 with the picture (S, S, 3) uint8 in the crop's place; a new array.

    The picture is brought to the crop's size with bicubic sampling, antialiased where it shrinks. feather:
    from 0, a hard edge, to 1, which fades over a quarter of the crop. Pixels whose middle lies outside of the
    crop keep their values exactly; at an edge of the frame itself nothing fades.
    """
    columns, across = _fade(crop.left, crop.side, frame.shape[1], feather)
    rows, down = _fade(crop.top, crop.side, frame.shape[0], feather)
    mask = (down[:, None] * across)[..., None]
    pasted = frame.copy()
    part = pasted[rows, columns]
    part[:] = np.round(part + mask * (_resampled(picture, crop, rows, columns) - part.astype(float)))
    return pasted


def _fade(start: float, side: float, length: int, feather: float) -> tuple[slice, np.ndarray]:
    """(the pixels of a row or column of the frame that the crop covers, the picture's share 0..1 in each)."""
    first, last = math.ceil(start - 0.5), math.ceil(start + side - 0.5)
    # A crop may stop short of the frame's edge by less than a pixel: the picture is continued to it.
    reaches_start, reaches_end = start < 1, start + side > length - 1
    first, last = 0 if reaches_start else first, length if reaches_end else last
    middles = np.arange(first, last) + 0.5
    distance = np.minimum(
        np.inf if reaches_start else middles - start, np.inf if reaches_end else start + side - middles
    )
    ramp = np.clip(np.broadcast_to(distance, middles.shape) / max(feather * WIDEST * side, 1e-9), 0, 1)
    return slice(first, last), ramp * ramp * (3 - 2 * ramp)


def _resampled(picture: np.ndarray, crop: Crop, rows: slice, columns: slice) -> np.ndarray:
    """The picture at the pixels of the frame in `rows` and `columns`, (h, w, 3) uint8."""
    factor = picture.shape[0] / crop.side  # pixels of the picture in one of the frame
    margin = math.ceil(2 * factor) + 1  # pixels at the edges reach a little over the picture
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
