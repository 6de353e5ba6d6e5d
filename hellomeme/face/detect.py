"""Faces in pictures: landmarks, ARKit coefficients and the pose of the head, by MediaPipe."""

import concurrent.futures.thread  # noqa: F401  (before our own hook at the end of the program, see _close_all)
import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import HelloMemeError, NoFaceError
from ..io.quiet import silenced
from .arkit import ARKIT_NAMES
from .model_file import face_model

# MediaPipe's 478 points, by what the crop rule needs of them. The outline leaves out its eleven points
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

FIELD_OF_VIEW = np.radians(63.0)  # MediaPipe's vertical one
HALF_SIDE = 0.05  # m: half side of the pose square on the head
SOLVE_SIDE = 3.0  # side of the crop for the second look, in extents of the face: the crop rule's
SOLVE_SIZE = 512  # px
# Intersection over union from which two boxes are one face; two looks at a face agree to 0.85 and more
SAME = 0.4


@dataclass(frozen=True)
class Face:
    """A face, in pixels of the picture it was found in (x to the right, y down).

    landmarks:   (478, 2) float32, MediaPipe's points
    blendshapes: (51,) float32 in [0, 1], in the order of ARKIT_NAMES
    rotation:    (3, 3) float64, R = Rz Ry Rx on column vectors; x right, y up, z towards the viewer
    origin:      (2,) float64, where the origin of the head projects
    scale:       half side of the pose square: focal length * 5 cm / distance of the head's origin
    box:         (4,) float64, x0, y0, x1, y1 around FACE_POINTS: chin to brows, no forehead
    """

    landmarks: np.ndarray
    blendshapes: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    scale: float
    box: np.ndarray

    @property
    def extent(self) -> float:
        """The larger of width and height of the box."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    @property
    def centre(self) -> np.ndarray:
        """(2,) middle of the box."""
        return (self.box[:2] + self.box[2:]) / 2

    def mapped(self, factor: float, shift) -> "Face":
        """The same face where point p of this picture is `factor * p + shift` of another."""
        return Face(
            (self.landmarks * factor + shift).astype(np.float32),
            self.blendshapes,
            self.rotation,
            self.origin * factor + shift,
            self.scale * factor,
            self.box * factor + np.tile(shift, 2),
        )


@dataclass(frozen=True)
class _Window:
    """A square part of a frame, px; it may reach over the edges, where the frame is continued in black."""

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, centre, side: float) -> "_Window":
        side = max(int(round(side)), 16)
        left, top = np.round(np.asarray(centre) - side / 2).astype(int)
        return cls(int(left), int(top), side)

    def of(self, frame: np.ndarray, size: int) -> np.ndarray:
        import cv2

        x0, x1 = np.clip([self.left, self.left + self.side], 0, frame.shape[1])
        y0, y1 = np.clip([self.top, self.top + self.side], 0, frame.shape[0])
        part = np.zeros((self.side, self.side, 3), np.uint8)
        part[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left] = frame[y0:y1, x0:x1]
        method = cv2.INTER_AREA if size < self.side else cv2.INTER_CUBIC
        return cv2.resize(part, (size, size), interpolation=method)


class FaceAnalyzer:
    """Finds faces. MediaPipe is started at the first picture and ends with `close()`, at the end of a
    `with` block or with the object; calls from several threads wait for each other.

    model_path: a face_landmarker.task file; see `model_file` for what is used without one.
    """

    def __init__(self, model_path: str | Path | None = None, max_faces: int = 8):
        self.model_path, self.max_faces = model_path, max_faces
        self._lock, self._landmarker = threading.Lock(), None

    def __enter__(self) -> "FaceAnalyzer":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends MediaPipe; the next picture would start it again."""
        with self._lock:
            if self._landmarker is not None:
                self._end()
                self._landmarker = None

    def faces(self, frame: np.ndarray, thorough: bool = False) -> list[Face]:
        """The faces of a (H, W, 3) uint8 RGB frame, largest first; none gives an empty list.

        thorough: look for small faces beside large ones too, which takes some forty times longer
        (about half a second). Without, small ones are looked for only where there is no other.
        Each face is found in the frame, then solved again in the middle of a square crop of its own:
        MediaPipe's camera is wide-angled, so that a face away from the centre comes out turned.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise HelloMemeError(
                f"A frame must be an array of H x W x 3 bytes, not {frame.shape} of {frame.dtype}."
            )
        found = []
        for first in self._find(frame, thorough):
            if any(_overlap(first.box, face.box) > SAME for face in found):
                continue  # a face of two overlapping parts
            window = _Window.around(first.centre, SOLVE_SIDE * first.extent)
            # what the second look does not confirm is no face: cats, colour wheels and noise fail here
            again = [
                face for face in self._look(frame, window, SOLVE_SIZE) if _overlap(first.box, face.box) > SAME
            ]
            found += again[:1]
        return sorted(found, key=lambda face: -face.extent)[: self.max_faces]

    def face(self, frame: np.ndarray, name: str = "driver", index: int | None = None) -> Face:
        """The largest face, or number `index` counted from 0 in order of size.

        Raises NoFaceError without a face, HelloMemeError without that many; `name` names the picture in both.
        """
        faces = self.faces(frame, thorough=bool(index))  # the largest needs no second search
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

    def _find(self, frame: np.ndarray, thorough: bool) -> list[Face]:
        """Faces at first look, some of them twice. The detector sees 128 x 128 px and is made for faces of a
        fair size; where it finds none in the whole frame it looks again: with a wide border, for a face that
        fills the frame, then in overlapping parts, for faces that are small in it."""
        faces = []
        for windows in _looks(*frame.shape[:2]):
            faces += [
                face for window in windows for face in self._look(frame, window, min(window.side, 1024))
            ]
            if faces and not thorough:
                break
        return faces

    def _look(self, frame: np.ndarray, window: _Window, size: int) -> list[Face]:
        """Faces in a window of the frame, shown to MediaPipe as size x size px; in pixels of the frame."""
        import mediapipe

        view = np.ascontiguousarray(window.of(frame, size))
        with self._lock:
            if self._landmarker is None:
                self._landmarker = _start(face_model(self.model_path), self.max_faces)
                # Left to the garbage collector in a cycle, MediaPipe would wait in its __del__ for a thread
                # of a pool that the collector has already ended. Held here, it is closed while all of it is
                # still there.
                self._end = weakref.finalize(self, self._landmarker.close)
                self._end.atexit = False  # see _close_all
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


def _looks(height: int, width: int):
    """Lists of windows, to be tried until one list shows a face."""
    centre, longest = (width / 2, height / 2), max(height, width)
    yield [_Window.around(centre, longest)]
    yield [_Window.around(centre, 1.8 * longest)]
    for parts in (2, 3):
        side = longest / parts
        yield [_Window.around((x, y), side) for y in _centres(height, side) for x in _centres(width, side)]


def _centres(length: int, side: float) -> np.ndarray:
    """Middles of windows that cover 0..length and overlap by half."""
    if length <= side:
        return np.array([length / 2])
    return np.linspace(side / 2, length - side / 2, int(np.ceil((length - side) / (side / 2))) + 1)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = np.prod(np.maximum(sides, 0))
    return both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def _start(path: Path, max_faces: int):
    from mediapipe import Image, ImageFormat
    from mediapipe.tasks.python import BaseOptions, vision

    # the bytes, not the path: MediaPipe resolves paths in ways of its own
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


_analyzers = weakref.WeakSet()  # those with MediaPipe running
_left_behind = []  # after a fork: MediaPipe of the parent process, unusable here and not to be closed


def _close_all() -> None:
    """At the end of the program. MediaPipe closes through a thread pool, so this must come before Python ends
    those: hooks run last registered first, `atexit` would be too late, and so is MediaPipe's own __del__."""
    for analyzer in list(_analyzers):
        analyzer.close()


def _forget_all() -> None:
    """In a forked process, where the threads of MediaPipe do not exist: start afresh at the next picture."""
    for analyzer in list(_analyzers):
        if analyzer._landmarker is not None:
            _left_behind.append((analyzer._landmarker, analyzer._end.detach()))
        analyzer._lock, analyzer._landmarker = threading.Lock(), None


threading._register_atexit(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _face(points, categories, matrix: np.ndarray, size: int) -> Face:
    """One face of MediaPipe's result for a view of size x size px."""
    landmarks = np.array([(point.x, point.y) for point in points], np.float32) * size
    scores = {category.category_name: category.score for category in categories}
    matrix = np.asarray(matrix, float)
    u, _, v = np.linalg.svd(matrix[:3, :3])  # the matrix carries a scale too: keep the rotation only
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
