"""The crop rule: which square of a picture the networks see."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import NoFaceError
from .detect import Face

RELEASED_SCALE = 3.0  # side of the released adapters' crop, in extents of the face
RAISED_BY = 0.115  # of the side: room for the hair


@dataclass(frozen=True)
class Crop:
    """A square in a picture, px; `left` and `top` count from the picture's edges and need not be whole."""

    left: float
    top: float
    side: float

    @classmethod
    def of(cls, faces: Sequence[Face], frame_shape: Sequence[int], scale: float = RELEASED_SCALE) -> "Crop":
        """One crop for all faces given: one face of a picture, or the same face in all frames of a clip.

        side = min(scale * mean extent, min(H, W) - 1); centre = middle of the union of the boxes, raised by
        0.115 side; shifted to lie inside the frame. frame_shape begins with H, W. Raises NoFaceError without
        faces.
        """
        if not faces:
            raise NoFaceError("No face to crop around: choose a picture that shows a face clearly.")
        height, width = frame_shape[:2]
        side = min(scale * float(np.mean([face.extent for face in faces])), min(height, width) - 1)
        low = np.min([face.box[:2] for face in faces], axis=0)
        high = np.max([face.box[2:] for face in faces], axis=0)
        left, top = (low + high) / 2 - side / 2 - (0, RAISED_BY * side)
        return cls(float(np.clip(left, 0, width - side)), float(np.clip(top, 0, height - side)), side)

    def apply(self, frame: np.ndarray, size: int) -> np.ndarray:
        """(H, W, 3) uint8 -> (size, size, 3) uint8, bicubic, antialiased where it shrinks."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC, box=box))

    def face(self, face: Face, size: int) -> Face:
        """The face in the pixels of the crop at size x size."""
        factor = size / self.side
        return face.mapped(factor, -factor * np.array([self.left, self.top]))
