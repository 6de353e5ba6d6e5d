"""Which landmark of a face model is which. "Image-left" is the person's right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Indices of MediaPipe's 478 landmarks that the crop rule uses. The outline is without the eleven landmarks
# above the brows (54, 103, 67, 109, 10, 338, 297, 332, 284 and 21, 251 at the temples).
OUTLINE_BELOW_BROWS = (
    162, 127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152,
    377, 400, 378, 379, 365, 397, 288, 361, 323, 454, 356, 389,
)  # fmt: skip  # numbers in rows
BROWS = (46, 52, 53, 55, 63, 65, 66, 70, 105, 107, 276, 282, 283, 285, 293, 295, 296, 300, 334, 336)
EYES = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173,
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398,
)  # fmt: skip  # numbers in rows: an eye in each
PUPILS = tuple(range(468, 478))
NOSE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2, 98, 97, 326, 327, 294, 278, 344, 440, 275, 45, 220, 115, 48, 64)
MOUTH = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)  # fmt: skip  # numbers in rows: the outer and the inner edge of the lips
FACE_POINTS = OUTLINE_BELOW_BROWS + BROWS + EYES + PUPILS + NOSE + MOUTH


@dataclass(frozen=True)
class LandmarkSet:
    """The landmarks of a face model.

    points: name -> index. parts: indices of the image-left eye with its brow, of the image-right one, and of
    the mouth.
    """

    points: Mapping[str, int]
    parts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


MEDIAPIPE = LandmarkSet(  # 478 landmarks; the first halves of EYES and BROWS are image-left
    {
        "between the eyes": 168,
        "image-left eye's outer corner": 33,
        "image-right eye's outer corner": 263,
        "image-left pupil": 468,
        "image-right pupil": 473,
        "nose tip": 1,
        "image-left mouth corner": 61,
        "image-right mouth corner": 291,
    },
    (EYES[:16] + BROWS[:10], EYES[16:] + BROWS[10:], MOUTH),
)
RELEASED = LandmarkSet(  # 222 landmarks
    {
        "between the eyes": 33,
        "image-left eye's outer corner": 74,
        "image-right eye's outer corner": 96,
        "image-left pupil": 182,
        "image-right pupil": 202,
        "nose tip": 36,
        "image-left mouth corner": 149,
        "image-right mouth corner": 133,
    },
    (
        (*range(48, 60), *range(74, 95)),
        (*range(61, 73), *range(96, 117)),
        tuple(range(118, 149)),  # the outer edge of the lips
    ),
)
