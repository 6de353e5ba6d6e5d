"""Following one face through a clip: its motion, and one crop for all frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from ..errors import NoFaceError
from .crop import Crop
from .detect import Face, FaceAnalyzer
from .motion import Motion

MAX_MOVE = 1.0  # extents of the face: how far its centre may move between two detections
MAX_GROWTH = 1.6  # factor by which its extent may change between two detections
CENTRED = 0.05  # extents: how far from the middle of a crop a face may be that is not detected again
LOST_AFTER = 1.0  # s without a detection, after which any face may take its place
NO_LANDMARKS = np.empty((0, 2), np.float32)
STILL = np.zeros(2)


def analyse(
    frames: Iterable[np.ndarray],
    rate: Fraction,
    analyzer: FaceAnalyzer,
    crop_scale: float,
    index: int | None = None,
    see: Callable[[np.ndarray, Face], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Motion, Crop]:
    """The motion of one face in a clip, and the crop in which it is measured.

    frames: (H, W, 3) uint8; where their shape changes, the face is looked for anew and has a crop of its own.
    rate: frames per second. index: which face of the first frame with faces, by size from 0; the largest if
    None. That face is followed: other faces are ignored until it has been lost for a second. see: called with
    each frame that shows the face, and the face in px of the frame. progress: called with the number of
    frames done. No frame is kept in memory.
    Raises NoFaceError if the face is not found in the first second, or in less than half of all frames. Below
    one frame per second, the first second is not checked and no face is followed.
    """
    found: list[Face | None] = []
    what = "No face" if index is None else f"No face number {index}"
    last, move, missing, shapes = None, STILL, 0, []
    second = math.ceil(rate) if rate >= 1 else None
    for frame in frames:
        if shapes and shapes[-1] != frame.shape:
            last = None
        shapes.append(frame.shape)
        if missing + 1 > LOST_AFTER * rate:
            last = None
        face = _follow(analyzer, frame, last, move, index)
        move = STILL if face is None or last is None or missing else face.centre - last.centre
        if face is None:
            missing += 1
        else:
            last, missing = face, 0
            if see is not None:
                see(frame, face)
        found.append(face and replace(face, landmarks=NO_LANDMARKS))
        if len(found) == second and not any(found):
            break
        if progress is not None:
            progress(len(found))
    faces = [face for face in found if face is not None]
    if second and not any(found[:second]):
        raise NoFaceError(
            f"{what} found in the first second of the driver clip: choose one that begins with a face, "
            "or a later start."
        )
    if 2 * len(faces) < len(found):
        raise NoFaceError(
            f"{what} found in {len(found) - len(faces)} of the {len(found)} frames of the driver clip: "
            "choose one that shows a face most of the time."
        )
    crop = Crop.of_clip(found, shapes, crop_scale)
    seen = [
        face and _in_crop(face, crop.within(shape), crop) for face, shape in zip(found, shapes, strict=True)
    ]
    return replace(Motion.from_faces(seen, crop), rate=rate), crop


def _in_crop(face: Face, own: Crop, other: Crop) -> Face:
    """A face in the frame of `own`, as it would be in that of `other` at the same place of the crop."""
    if own is other:
        return face
    factor = other.side / own.side
    shift = np.array([other.left, other.top]) - factor * np.array([own.left, own.top])
    return face.mapped(factor, shift)


def _follow(
    analyzer: FaceAnalyzer, frame: np.ndarray, last: Face | None, move: np.ndarray, index: int | None
) -> Face | None:
    """The face closest to the last detection; without one, face number `index`. None if there is none.

    move: (2,) px that the face moved between the last two detections. Where that leads to it is looked for
    first. A face beside the middle of the crop seems to be turned: it is detected again in its own one.
    """
    if last is None:
        faces = analyzer.faces(frame, thorough=index is not None)
        return next(iter(faces[index or 0 :]), None)

    def distance(face: Face) -> float:
        return float(np.linalg.norm(face.centre - last.centre) / last.extent)

    def fits(face: Face) -> bool:
        return distance(face) < MAX_MOVE and 1 / MAX_GROWTH < face.extent / last.extent < MAX_GROWTH

    expected = last.mapped(1.0, move)
    face = analyzer.near(frame, expected)
    if face is not None and fits(face):
        beside = np.linalg.norm(face.centre - expected.centre) / face.extent
        return face if beside < CENTRED else analyzer.near(frame, face) or face
    return min(filter(fits, analyzer.faces(frame)), key=distance, default=None)
