"""One face through a clip: frame by frame its motion, and one crop for all frames."""

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

JUMP = 1.0  # extents of the face by which its middle may move between two frames it is found in
GROWTH = 1.6  # factor by which its size may change
PATIENCE = 1.0  # s without the face, after which any face is taken for it
NO_POINTS = np.empty((0, 2), np.float32)

Emotion = Callable[[np.ndarray, Face], np.ndarray]


def analyse(
    frames: Iterable[np.ndarray],
    rate: Fraction,
    analyzer: FaceAnalyzer,
    crop_scale: float,
    index: int | None = None,
    emotion: Emotion | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Motion, Crop]:
    """The motion of a face in frames (H, W, 3) uint8 at `rate` a second, and the crop that it is measured in.

    index: which face of the first frame that shows one, by size from 0; the largest if None. It is then
    followed: a face elsewhere does not count until the followed one is gone for a second. emotion: frame and
    face -> (1, 548) codes. progress: told how many frames are done. Only numbers are kept of a frame.
    Raises NoFaceError if no frame of the first second has the face, or less than half of all frames. Frames
    more than a second apart have no first second, and in them no face is followed.
    """
    found: list[Face | None] = []
    codes: list[np.ndarray | None] = []
    what = "No face" if index is None else f"No face number {index}"
    last, missing, shape = None, 0, None
    second = math.ceil(rate) if rate >= 1 else None
    for frame in frames:
        shape = frame.shape
        after = None if missing + 1 > PATIENCE * rate else last
        face = _follow(analyzer, frame, after, index)
        if face is None:
            missing += 1
        else:
            last, missing = face, 0
        if emotion is not None:  # the code before stands in where there is no face, as in Motion.from_faces
            codes.append(emotion(frame, face) if face is not None else codes[-1] if codes else None)
        found.append(face and replace(face, landmarks=NO_POINTS))
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
    crop = Crop.of(faces, shape, crop_scale)
    motion = Motion.from_faces(found, crop)
    motion = replace(motion, rate=rate)
    if emotion is not None:
        first = next(code for code in codes if code is not None)
        motion = motion.with_emotion(np.concatenate([first if code is None else code for code in codes]))
    return motion, crop


def _follow(analyzer: FaceAnalyzer, frame: np.ndarray, last: Face | None, index: int | None) -> Face | None:
    """The face nearest to where it was last, or without that the one asked for; None if it is not there."""
    if last is None:
        faces = analyzer.faces(frame, thorough=index is not None)
        return next(iter(faces[index or 0 :]), None)

    def distance(face: Face) -> float:
        return float(np.linalg.norm(face.centre - last.centre) / last.extent)

    near = [
        face
        for face in analyzer.faces(frame)
        if distance(face) < JUMP and 1 / GROWTH < face.extent / last.extent < GROWTH
    ]
    return min(near, key=distance, default=None)
