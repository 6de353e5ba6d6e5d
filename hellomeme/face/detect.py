"""Faces in pictures: landmarks, ARKit blendshapes and head pose, by MediaPipe."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (its exit hook must be registered before ours, see _close_all)
import itertools
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import HelloMemeError, NoFaceError
from ..io.quiet import silenced
from .arkit import ARKIT_NAMES
from .landmarks import FACE_POINTS, MEDIAPIPE, LandmarkSet
from .model_file import face_model

if TYPE_CHECKING:
    from mediapipe.tasks.python.vision import FaceLandmarker

FIELD_OF_VIEW = np.radians(63.0)  # vertical, of MediaPipe's camera
HALF_SIDE = 0.05  # m: half side of the pose square on the head
CROP_SCALE = 3.0  # side of the crop for the second detection, in extents of the face
CROP_SIZE = 512  # px, of the second detection
# Boxes with a larger intersection over union are the same face; two detections of a face have 0.85 or more
SAME_FACE_IOU = 0.4


@dataclass(frozen=True)
class Face:
    """A face, in px of the picture in which it was found (x right, y down).

    landmarks:   (478, 2) float32, MediaPipe's landmarks, or those of another `landmark_set`
    blendshapes: (51,) float32 in [0, 1], in the order of ARKIT_NAMES
    rotation:    (3, 3) float64, R = Rz Ry Rx on column vectors; x right, y up, z towards the viewer
    origin:      (2,) float64, the projection of the head's origin
    scale:       half side of the pose square: focal length * 5 cm / distance of the head's origin
    box:         (4,) float64, x0, y0, x1, y1 of the face from chin to brows, no forehead
    landmark_set: which landmark is which
    """

    landmarks: np.ndarray
    blendshapes: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    scale: float
    box: np.ndarray
    landmark_set: LandmarkSet = MEDIAPIPE

    def points(self, names: Iterable[str]) -> np.ndarray:
        """(N, 2) float64 px: landmarks by the names of a LandmarkSet."""
        return self.landmarks[[self.landmark_set.points[name] for name in names]].astype(float)

    @property
    def extent(self) -> float:
        """The longer side of the box, px."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    @property
    def centre(self) -> np.ndarray:
        """(2,) centre of the box, px."""
        return (self.box[:2] + self.box[2:]) / 2

    def mapped(self, factor: float, shift: np.ndarray) -> Face:
        """The face in another picture, where point p becomes `factor * p + shift`; shift: (2,) px."""
        return replace(
            self,
            landmarks=(self.landmarks * factor + shift).astype(np.float32),
            origin=self.origin * factor + shift,
            scale=self.scale * factor,
            box=self.box * factor + np.tile(shift, 2),
        )


@dataclass(frozen=True)
class Window:
    """A square part of a frame, in px. It may exceed the frame, which is then padded with black."""

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, centre: Sequence[float] | np.ndarray, side: float) -> Window:
        side = max(int(round(side)), 16)
        left, top = np.round(np.asarray(centre) - side / 2).astype(int)
        return cls(int(left), int(top), side)

    def crop(self, frame: np.ndarray, size: int) -> np.ndarray:
        """This part of a frame (H, W, 3) uint8, resized to (size, size, 3)."""
        import cv2

        x0, x1 = np.clip([self.left, self.left + self.side], 0, frame.shape[1])
        y0, y1 = np.clip([self.top, self.top + self.side], 0, frame.shape[0])
        part = frame[y0:y1, x0:x1]
        if part.size == 0:
            return np.zeros((size, size, 3), np.uint8)
        if part.shape[:2] != (self.side, self.side):
            top, left = y0 - self.top, x0 - self.left
            beyond = (top, self.side - top - (y1 - y0), left, self.side - left - (x1 - x0))
            part = cv2.copyMakeBorder(part, *map(int, beyond), cv2.BORDER_CONSTANT)
        method = cv2.INTER_AREA if size < self.side else cv2.INTER_CUBIC
        return cv2.resize(part, (size, size), interpolation=method)


class FaceAnalyzer:
    """Finds faces in pictures.

    MediaPipe starts with the first picture and is closed by `close()`, at the end of a `with` block, or with
    the object. Safe for use from several threads.
    model_path: a face_landmarker.task file; see `model_file` for the default. max_faces: per picture.
    """

    def __init__(self, model_path: str | Path | None = None, max_faces: int = 8):
        self.model_path, self.max_faces = model_path, max_faces
        self._lock, self._landmarker = threading.Lock(), None

    def __enter__(self) -> FaceAnalyzer:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes MediaPipe; the next picture starts it again."""
        with self._lock:
            if self._landmarker is not None:
                self._finalizer()
                self._landmarker = None

    def faces(self, frame: np.ndarray, thorough: bool = False) -> list[Face]:
        """The faces in a frame (H, W, 3) uint8 RGB, largest first; an empty list if there are none.

        thorough: search for small faces even if large ones are found. It takes about half a second, forty
        times as long. Otherwise small faces are searched for only if no other is found.
        Each face is detected in the frame and again in the centre of its own crop: with MediaPipe's
        wide-angle camera, a face away from the centre seems to be turned.
        Raises HelloMemeError for an array of another shape or type.
        """
        check_frame(frame)
        found = []
        for first in self._search(frame, thorough):
            if any(iou(first.box, face.box) > SAME_FACE_IOU for face in found):
                continue  # found in two overlapping windows
            window = Window.around(first.centre, CROP_SCALE * first.extent)
            # The second detection also filters out what is no face: cats, colour wheels, noise
            again = self._detect(frame, window, CROP_SIZE)
            found += [face for face in again if iou(first.box, face.box) > SAME_FACE_IOU][:1]
        return sorted(found, key=lambda face: -face.extent)[: self.max_faces]

    def face(self, frame: np.ndarray, name: str = "driver", index: int | None = None) -> Face:
        """One face of a frame (H, W, 3) uint8 RGB: number `index` by size from 0, or the largest if None.

        name: what error messages call the picture. Raises NoFaceError without a face, HelloMemeError if there
        are fewer faces.
        """
        faces = self.faces(frame, thorough=bool(index))  # the largest face needs no thorough search
        if not faces:
            raise NoFaceError(
                f"No face found in the {name} picture: choose one that shows a face clearly, "
                "upright and not too small."
            )
        if index is not None and not 0 <= index < len(faces):
            count = "is only one face" if len(faces) == 1 else f"are only {len(faces)} faces"
            raise HelloMemeError(
                f"Face {index} was asked for, but there {count} in the {name} picture: "
                f"choose a number from 0 (the largest) to {len(faces) - 1}."
            )
        return faces[index or 0]

    def follow(self, frame: np.ndarray, last: Face | None = None) -> Face | None:
        """The face in the next frame (H, W, 3) uint8 RGB of a camera, with as little work as possible; None
        if there is none.

        last: where it was before, around which it is detected once; None, or a face that is not there any
        more, for the largest face. Small faces are not searched for.
        """
        check_frame(frame)
        if last is not None and (face := self.near(frame, last)) is not None:
            return face
        for windows in itertools.islice(search_windows(*frame.shape[:2]), 2):  # the whole frame
            seen = [
                face for window in windows for face in self._detect(frame, window, min(window.side, 1024))
            ]
            if seen:
                return self.near(frame, max(seen, key=lambda face: face.extent))
        return None

    def near(self, frame: np.ndarray, face: Face) -> Face | None:
        """The face in a frame (H, W, 3) uint8 RGB about where `face` is, detected once, in the centre of that
        one's crop; None if there is none."""
        window = Window.around(face.centre, CROP_SCALE * face.extent)
        again = self._detect(frame, window, CROP_SIZE)
        best = max(again, key=lambda found: iou(found.box, face.box), default=None)
        return best if best is not None and iou(best.box, face.box) > SAME_FACE_IOU else None

    def _search(self, frame: np.ndarray, thorough: bool) -> list[Face]:
        """First detections, in which a face may occur twice.

        MediaPipe's detector sees 128 x 128 px and needs faces of medium size. If the whole frame shows none,
        it searches the frame with a wide border, for faces that fill it, and then overlapping parts of it,
        for small faces.
        """
        faces = []
        for windows in search_windows(*frame.shape[:2]):
            faces += [
                face for window in windows for face in self._detect(frame, window, min(window.side, 1024))
            ]
            if faces and not thorough:
                break
        return faces

    def _detect(self, frame: np.ndarray, window: Window, size: int) -> list[Face]:
        """The faces in a window of the frame, resized to size x size px for MediaPipe; in px of the frame."""
        import mediapipe

        view = np.ascontiguousarray(window.crop(frame, size))
        with self._lock:
            if self._landmarker is None:
                self._landmarker = _start(face_model(self.model_path), self.max_faces)
                # In a reference cycle, MediaPipe's __del__ would wait for a thread of a pool that the garbage
                # collector has already ended. The finalizer closes it before.
                self._finalizer = weakref.finalize(self, self._landmarker.close)
                self._finalizer.atexit = False  # see _close_all
                _analyzers.add(self)
            result = self._landmarker.detect(mediapipe.Image(mediapipe.ImageFormat.SRGB, view))
        factor = window.side / size
        return [
            _face(*parts, size).mapped(factor, np.array([window.left, window.top], float))
            for parts in zip(
                result.face_landmarks,
                result.face_blendshapes,
                result.facial_transformation_matrixes,
                strict=True,
            )
        ]


def check_frame(frame: np.ndarray) -> None:
    """Raises HelloMemeError unless a frame is (H, W, 3) uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise HelloMemeError(
            f"A frame must be an array of H x W x 3 bytes, not {frame.shape} of {frame.dtype}."
        )


def search_windows(height: int, width: int) -> Iterator[list[Window]]:
    """Lists of windows, to be tried in this order until one list shows a face."""
    centre, longest = (width / 2, height / 2), max(height, width)
    yield [Window.around(centre, longest)]
    yield [Window.around(centre, 1.8 * longest)]
    for parts in (2, 3):
        side = longest / parts
        yield [Window.around((x, y), side) for y in _centres(height, side) for x in _centres(width, side)]


def _centres(length: int, side: float) -> np.ndarray:
    """Centres of windows that cover 0..length and overlap by half or more."""
    if length <= side:
        return np.array([length / 2])
    return np.linspace(side / 2, length - side / 2, int(np.ceil((length - side) / (side / 2))) + 1)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(np.maximum(sides, 0))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def _start(path: Path, max_faces: int) -> FaceLandmarker:
    """MediaPipe with a face model; HelloMemeError for a file that is no face model."""
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    # The bytes and not the path: MediaPipe does not accept every path
    options = vision.FaceLandmarkerOptions(
        BaseOptions(model_asset_buffer=path.read_bytes()),
        num_faces=max_faces,
        output_face_blendshapes=True,
        output_facial_transformation_matrixes=True,
    )
    try:
        with silenced(2):  # MediaPipe logs there when it starts, and has no setting for it
            landmarker = vision.FaceLandmarker.create_from_options(options)
            landmarker.detect(Image(ImageFormat.SRGB, np.zeros((64, 64, 3), np.uint8)))
    except (ValueError, RuntimeError) as error:
        raise HelloMemeError(
            f"The face model {path} is damaged or of another kind: replace it by MediaPipe's "
            "face_landmarker.task."
        ) from error
    return landmarker


_analyzers = weakref.WeakSet()  # with MediaPipe running
_abandoned = []  # after a fork: the parent's MediaPipe, which cannot be used or closed here


def _close_all() -> None:
    """At exit. MediaPipe closes through a thread pool, so this must run before Python ends those pools. The
    exit hooks of `threading` run in reverse order; `atexit` and MediaPipe's own __del__ run too late."""
    for analyzer in list(_analyzers):
        analyzer.close()


def _reset_after_fork() -> None:
    """In a forked process, which lacks MediaPipe's threads: the next picture starts it anew."""
    for analyzer in list(_analyzers):
        if analyzer._landmarker is not None:
            _abandoned.append((analyzer._landmarker, analyzer._finalizer.detach()))
        analyzer._lock, analyzer._landmarker = threading.Lock(), None


threading._register_atexit(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)


def _face(points: Sequence, categories: Sequence, matrix: np.ndarray, size: int) -> Face:
    """One face of MediaPipe's result for a picture of size x size px."""
    landmarks = np.array([(point.x, point.y) for point in points], np.float32) * size
    scores = {category.category_name: category.score for category in categories}
    matrix = np.asarray(matrix, float)
    u, _, v = np.linalg.svd(matrix[:3, :3])  # without the scale that the matrix contains too
    focal = size / 2 / np.tan(FIELD_OF_VIEW / 2)
    x, y, depth = matrix[0, 3], matrix[1, 3], -matrix[2, 3]  # cm
    subset = landmarks[list(FACE_POINTS)].astype(float)
    return Face(
        landmarks,
        np.array([scores[name] for name in ARKIT_NAMES], np.float32),
        u @ v,
        size / 2 + focal / depth * np.array([x, -y]),
        float(focal * (100 * HALF_SIDE) / depth),
        np.concatenate([subset.min(0), subset.max(0)]),
    )
