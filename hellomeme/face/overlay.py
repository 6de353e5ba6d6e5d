"""Numbered boxes around the faces of a picture, to choose one by its number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .detect import Face

MARGIN = 0.2  # of the box's height, added on top: the box of a face ends at the brows
PLAIN, CHOSEN, DARK = (255, 255, 255), (255, 200, 0), (0, 0, 0)


def numbered(
    frame: np.ndarray, faces: Sequence[Face], chosen: int | None = None, first: int = 0
) -> np.ndarray:
    """A copy of the frame (H, W, 3) uint8 with a box around each face and its number, from `first`.

    faces: by size, as `FaceAnalyzer.faces(frame, thorough=True)` returns them; the numbers from 0 are then
    those of `reference_face` and `driver_face` in the settings. chosen: that of the face to highlight. first:
    what the largest face is called.
    """
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    line = max(round(max(frame.shape[:2]) / 300), 2)
    for number in reversed(range(len(faces))):  # larger faces on top
        x0, y0, x1, y1 = faces[number].box
        y0 -= MARGIN * (y1 - y0)
        colour = CHOSEN if number == chosen else PLAIN
        # A dark rim on both sides, so that the box is visible on bright and dark pictures
        draw.rectangle((x0 - line, y0 - line, x1 + line, y1 + line), outline=DARK, width=3 * line)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=line)
        font = ImageFont.load_default(max(10 * line, (y1 - y0) / 5))
        shown = str(number + first)
        left, top, right, bottom = draw.textbbox((0, 0), shown, font=font)
        width, height = right - left + 4 * line, bottom - top + 4 * line
        # The number stays inside the picture even where the box does not
        x = min(max(x0, 0), frame.shape[1] - width)
        y = min(max(y0, 0), frame.shape[0] - height)
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        draw.text((x + 2 * line - left, y + 2 * line - top), shown, font=font, fill=DARK)
    return np.asarray(picture)
