"""The crop rule: which square of a picture the networks see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import NoFaceError
from .detect import Face

RELEASED_SCALE = 3.0  # side of the crop in extents of the face, for the released weights
SHIFT_UP = 0.115  # of the side: room for the hair


@dataclass(frozen=True)
class Crop:
    """A square in a picture, in px from its top left corner; not necessarily whole numbers."""

    left: float
    top: float
    side: float

    @classmethod
    def of(cls, faces: Sequence[Face], frame_shape: Sequence[int], scale: float = RELEASED_SCALE) -> Crop:
        """One crop for all faces: the face of a picture, or the same face in all frames of a clip.

        side = min(scale * mean extent, min(H, W) - 1). The centre is that of the union of the boxes, moved up
        by 0.115 side; the crop is then shifted into the frame. faces: in px of the frame. frame_shape: begins
        with H, W. scale: side of the crop in extents of the face. Raises NoFaceError without faces.
        """
        if not faces:
            raise NoFaceError("No face to crop around: choose a picture that shows a face clearly.")
        height, width = frame_shape[:2]
        side = min(scale * float(np.mean([face.extent for face in faces])), min(height, width) - 1)
        low = np.min([face.box[:2] for face in faces], axis=0)
        high = np.max([face.box[2:] for face in faces], axis=0)
        left, top = (low + high) / 2 - side / 2 - (0, SHIFT_UP * side)
        return cls(float(np.clip(left, 0, width - side)), float(np.clip(top, 0, height - side)), side)

    def apply(self, frame: np.ndarray, size: int) -> np.ndarray:
        """The crop of a frame (H, W, 3) uint8, resized to (size, size, 3): bicubic, with antialiasing."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC, box=box))

    def face(self, face: Face, size: int) -> Face:
        """The face in px of the crop at size x size; `face` is in px of the frame."""
        factor = size / self.side
        return face.mapped(factor, -factor * np.array([self.left, self.top]))
