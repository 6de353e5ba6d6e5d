"""Pictures of the eyes and the mouth of an aligned face, whose CLIP embeddings control nets for ARKit
coefficients take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from .conditions import Template, to_template, warp
from .detect import BROWS, EYES, MOUTH, Face

PARTS_TEMPLATE = Template(
    512,
    {
        168: (0.5095, 0.4013),  # between the eyes
        33: (0.2926, 0.4020),
        263: (0.7220, 0.4086),  # outer corners of the eyes, image-left first
        291: (0.6342, 0.7168),
        61: (0.3844, 0.7172),  # mouth corners
    },
)
# image-left eye with brow, image-right eye with brow, mouth: first halves of EYES and BROWS are image-left
PARTS = (EYES[:16] + BROWS[:10], EYES[16:] + BROWS[10:], MOUTH)
PART_SIDE, PART_SIZE, PART_BLUR, CLIP_SIZE = 1.2, 256, 5, 224


@dataclass(frozen=True)
class PartBoxes:
    """Where the parts of one face are; all that is kept of a frame until the whole clip has been seen.

    matrix: (2, 3), from px of the frame to px of the aligned face. low, high: (3, 2) px of the aligned face,
    corners of the extents of the parts.
    """

    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, face: Face) -> PartBoxes:
        """The parts of a face, in px of its frame."""
        matrix = to_template(face, PARTS_TEMPLATE)
        aligned = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        parts = [aligned[list(indices)] for indices in PARTS]
        return cls(
            matrix, np.stack([part.min(0) for part in parts]), np.stack([part.max(0) for part in parts])
        )


def part_sides(boxes: Sequence[PartBoxes]) -> np.ndarray:
    """(3,) px of the aligned face: the side of each part's square in all frames of a clip, 1.2 times its
    largest extent in any of them."""
    return PART_SIDE * np.max([face.high - face.low for face in boxes], axis=(0, 2))


def part_pictures(frame: np.ndarray, boxes: PartBoxes, sides: np.ndarray) -> np.ndarray:
    """(3, 256, 256, 3) uint8: image-left eye with brow, image-right eye with brow, and mouth, blurred 5 x 5.

    frame: (H, W, 3) uint8. boxes: of the face in it. sides: from `part_sides`.
    """
    pictures = np.empty((len(PARTS), PART_SIZE, PART_SIZE, 3), np.uint8)
    for part, side in enumerate(sides):
        zoom = PART_SIZE / side
        corner = (boxes.low[part] + boxes.high[part] - side) / 2
        matrix = zoom * (boxes.matrix - np.column_stack([np.zeros((2, 2)), corner]))
        pictures[part] = cv2.blur(warp(frame, matrix, PART_SIZE), (PART_BLUR, PART_BLUR))
    return pictures


def clip_input(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, 224, 224) float32, the input of CLIP's vision model."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    size = CLIP_SIZE, CLIP_SIZE
    small = [Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC) for picture in pictures]
    values = (np.stack(small) / 255 - OPENAI_CLIP_MEAN) / OPENAI_CLIP_STD
    return values.transpose(0, 3, 1, 2).astype(np.float32)
