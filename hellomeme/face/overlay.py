"""Which face: a picture with a numbered box around each, to choose one by its number."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .detect import Face

MARGIN = 0.2  # of the box's height, on top: the box of a face ends at its brows
PLAIN, CHOSEN, DARK = (255, 255, 255), (255, 200, 0), (0, 0, 0)


def numbered(frame: np.ndarray, faces: Sequence[Face], chosen: int | None = None) -> np.ndarray:
    """A copy of the frame (H, W, 3) uint8 with the faces boxed and numbered from 0, in the order they are
    given.

    `FaceAnalyzer.faces(frame, thorough=True)` gives them in the order of `reference_face` and `driver_face`
    in the settings: by size. chosen: the number of the one to stand out.
    """
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture)
    line = max(round(max(frame.shape[:2]) / 300), 2)
    for number in reversed(range(len(faces))):  # larger faces above smaller ones
        x0, y0, x1, y1 = faces[number].box
        y0 -= MARGIN * (y1 - y0)
        colour = CHOSEN if number == chosen else PLAIN
        # A dark rim on both sides: the box shows on bright and dark pictures.
        draw.rectangle((x0 - line, y0 - line, x1 + line, y1 + line), outline=DARK, width=3 * line)
        draw.rectangle((x0, y0, x1, y1), outline=colour, width=line)
        font = ImageFont.load_default(max(10 * line, (y1 - y0) / 5))
        left, top, right, bottom = draw.textbbox((0, 0), str(number), font=font)
        width, height = right - left + 4 * line, bottom - top + 4 * line
        # Inside of the picture also where the face reaches over its edge.
        x = min(max(x0, 0), frame.shape[1] - width)
        y = min(max(y0, 0), frame.shape[0] - height)
        draw.rectangle((x, y, x + width, y + height), fill=colour)
        draw.text((x + 2 * line - left, y + 2 * line - top), str(number), font=font, fill=DARK)
    return np.asarray(picture)
