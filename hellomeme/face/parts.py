"""Pictures of the eyes and the mouth of an aligned face, whose CLIP embeddings control nets for ARKit
coefficients take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .conditions import Template, to_template, warp
from .detect import Face

PARTS_TEMPLATE = Template(
    512,
    {
        "between the eyes": (0.5095, 0.4013),
        "image-left eye's outer corner": (0.2926, 0.4020),
        "image-right eye's outer corner": (0.7220, 0.4086),
        "image-right mouth corner": (0.6342, 0.7168),
        "image-left mouth corner": (0.3844, 0.7172),
    },
)
PART_SIDE, PART_SIZE, PART_BLUR, CLIP_SIZE = 1.2, 256, 5, 224


@dataclass(frozen=True)
class PartBoxes:
    """Where the parts of one face are; all that is kept of a frame until the whole clip has been seen.

    matrix: (2, 3), from px of the frame to px of the aligned face. low, high: (3, 2) px of the aligned face,
    corners around the landmarks of each part.
    """

    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, face: Face) -> PartBoxes:
        """The parts of a face, in px of its frame."""
        matrix = to_template(face, PARTS_TEMPLATE)
        aligned = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        parts = [aligned[list(indices)] for indices in face.landmark_set.parts]
        return cls(
            matrix, np.stack([part.min(0) for part in parts]), np.stack([part.max(0) for part in parts])
        )


def part_squares(boxes: Sequence[PartBoxes]) -> np.ndarray:
    """(3, 3): left, top and side, px of the aligned face, of the squares that are cut out of all frames.

    They have the centre of each part's extent over all frames, and 1.2 times its longer side.
    """
    low, high = np.min([face.low for face in boxes], 0), np.max([face.high for face in boxes], 0)
    side = PART_SIDE * (high - low).max(1, keepdims=True)
    return np.concatenate([(low + high - side) / 2, side], 1)


def part_pictures(frame: np.ndarray, matrix: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """(3, 256, 256, 3) uint8: image-left eye with brow, image-right eye with brow, and mouth, blurred 5 x 5.

    frame: (H, W, 3) uint8. matrix: of the `PartBoxes` of the face in it. squares: from `part_squares`.
    """
    aligned = warp(frame, matrix, PARTS_TEMPLATE.size)
    pictures = np.empty((len(squares), PART_SIZE, PART_SIZE, 3), np.uint8)
    for picture, (left, top, side) in zip(pictures, squares, strict=True):
        zoom = PART_SIZE / side
        cut = np.array([[zoom, 0, -zoom * left], [0, zoom, -zoom * top]])
        picture[:] = cv2.warpAffine(aligned, cut, (PART_SIZE, PART_SIZE), flags=cv2.INTER_LINEAR)
        picture[:] = cv2.GaussianBlur(picture, (PART_BLUR, PART_BLUR), 0)
    return pictures


def clip_input(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, 224, 224) float32, the input of CLIP's vision model."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    size = CLIP_SIZE, CLIP_SIZE
    small = [cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC) for picture in pictures]
    values = (np.stack(small) / 255 - OPENAI_CLIP_MEAN) / OPENAI_CLIP_STD
    return values.transpose(0, 3, 1, 2).astype(np.float32)
