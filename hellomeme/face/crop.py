"""The crop rule: which square of a picture the networks see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import NoFaceError
from .detect import Face

RELEASED_SCALE = 3.0  # side of the crop in extents of the face, for the released weights
SHIFT_UP = 0.115  # of the side: room for the hair


@dataclass(frozen=True)
class Crop:
    """A square in a picture, in px from its top left corner; not necessarily whole numbers.

    others: the squares in frames of other shapes, (H, W) and crop, of a clip whose shape changes.
    """

    left: float
    top: float
    side: float
    others: tuple[tuple[tuple[int, int], Crop], ...] = ()

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

    @classmethod
    def of_clip(
        cls, faces: Sequence[Face | None], shapes: Sequence[Sequence[int]], scale: float = RELEASED_SCALE
    ) -> Crop:
        """The crop of the frames of the first face's shape, with those of other shapes in `others`.

        faces: of each frame, or None. shapes: of each frame, begins with H, W. scale: as in `of`. Raises
        NoFaceError without faces.
        """
        shapes = [tuple(shape[:2]) for shape in shapes]
        crops = {}
        for shape in dict.fromkeys(shapes):
            own = [face for face, other in zip(faces, shapes, strict=True) if face and other == shape]
            side = min(shape) - 1
            middle = cls((shape[1] - side) / 2, (shape[0] - side) / 2, side)  # where no face is seen
            crops[shape] = cls.of(own, shape, scale) if own else middle
        first = next((shape for face, shape in zip(faces, shapes, strict=True) if face), None)
        if first is None:
            return cls.of([], (), scale)
        crop = crops.pop(first)
        return replace(crop, others=tuple(crops.items()))

    def within(self, frame_shape: Sequence[int]) -> Crop:
        """The crop of a frame of this shape, which begins with H, W."""
        return dict(self.others).get(tuple(frame_shape[:2]), self)

    def apply(self, frame: np.ndarray, size: int) -> np.ndarray:
        """The crop of a frame (H, W, 3) uint8, resized to (size, size, 3): bicubic, with antialiasing."""
        crop = self.within(frame.shape)
        box = (crop.left, crop.top, crop.left + crop.side, crop.top + crop.side)
        return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC, box=box))

    def face(self, face: Face, size: int) -> Face:
        """The face in px of the crop at size x size; `face` is in px of the frame."""
        factor = size / self.side
        return face.mapped(factor, -factor * np.array([self.left, self.top]))
