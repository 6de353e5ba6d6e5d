"""Faces in pictures by the ONNX face models of the releases: the signals their weights were trained on."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..errors import HelloMemeError
from ..releases.hub import Progress, as_path, fetch
from .arkit import ARKIT_NAMES
from .conditions import warp
from .detect import HALF_SIDE, Face, FaceAnalyzer, Window, check_frame, iou, search_windows
from .landmarks import RELEASED
from .motion import FOCAL
from .nanodet import boxes_of, detector_input
from .rotation import from_angles

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

REPOSITORY = "songkey/hello_group_facemodel"
# The last to be downloaded comes first: where it is, all are (`hub.fetch`).
FILES = LANDMARKS, DETECTOR, EXPRESSION, POSE = (
    "hello_face_landmark.onnx",
    "hello_face_det.onnx",
    "hello_arkit_blendshape.onnx",
    "hello_3dmm.onnx",
)
SHA256 = {
    LANDMARKS: "463aaa48dd24b9d3b966c76accf9a27f7c590a73a3827d5002a975e46bd54995",
    DETECTOR: "7ea8de1da304c1459a11f637798bb1140805365aeb3cf6637ca6d61909720aec",
    EXPRESSION: "8f54987fc0c91f715a14c3d6cf6043e6e0a5834d5da9d9274ead02cc7cbebe3e",
    POSE: "f39829ebd72c7bdc9e5e6e952089a2236ddfd2b33c20c9c9592df132bc3dcc40",
}
COUNT, ROUNDS = 222, 3  # landmarks, and how often they are looked for, each time in a better crop
LEAST_PROBABILITY = 1e-4  # of a face, as the landmark model says
LANDMARK_CROP, POSE_CROP, EXPRESSION_CROP = (128, 0.15), (224, 0.35), (224, 0.15)  # px, margin
# The coefficients of the 3DMM: angles are behind identity, expression and texture, translation behind light.
COEFFICIENTS, ANGLES, TRANSLATION = 1201, slice(1168, 1171), slice(1198, 1201)
POSE_FOCAL = FOCAL / HALF_SIDE  # px: of the 3DMM's camera, for translations in m
SAME_FACE_IOU = 0.4


def face_analyzer(models: str = "mediapipe", progress: Progress | None = None) -> FaceAnalyzer:
    """The face analyzer for a choice of models: "mediapipe", "release", or a folder with the ONNX files.

    "release" downloads them, 324 MB, unless they are in the cache. progress: called then, see `hub.fetch`.
    Raises HelloMemeError where onnxruntime or a file is missing.
    """
    if models == "mediapipe":
        return FaceAnalyzer()
    return ReleasedFaceAnalyzer(None if models == "release" else models, progress=progress)


class ReleasedFaceAnalyzer(FaceAnalyzer):
    """Finds faces with the ONNX models of the releases, on the CPU. Safe for use from several threads.

    The coefficients are in the model's own order, which is the released weights'; whether it is that of
    ARKIT_NAMES is not known. The models load with the first picture.
    """

    def __init__(
        self, folder: str | Path | None = None, max_faces: int = 8, progress: Progress | None = None
    ):
        """folder: with the four files; from the hub if None. max_faces: per picture. progress: of downloads.

        Raises HelloMemeError where onnxruntime or a file is missing, or a file of the hub has changed.
        """
        super().__init__(max_faces=max_faces)
        if importlib.util.find_spec("onnxruntime") is None:
            raise HelloMemeError(
                "The face models of the releases need a package more: pip install onnxruntime, or choose the "
                "face models mediapipe."
            )
        self.folder = fetch(REPOSITORY, FILES, progress) if folder is None else as_path(folder)
        for path in (self.folder / name for name in FILES):
            if not path.is_file():
                raise HelloMemeError(f"The face models in {self.folder} lack {path.name}: get them again.")
            if folder is None and hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[path.name]:
                raise HelloMemeError(
                    f"{path} is another file than the one that is known by this name: delete it and try "
                    "again, or give a folder with the face models."
                )
        self._sessions: dict[str, InferenceSession] = {}

    def close(self) -> None:
        """Frees the models; the next picture loads them again."""
        with self._lock:
            self._sessions.clear()

    def faces(self, frame: np.ndarray, thorough: bool = False) -> list[Face]:
        """As `FaceAnalyzer.faces`: the faces in a frame (H, W, 3) uint8 RGB, largest first.

        Raises HelloMemeError for an array of another shape or type, or files that are not these models.
        """
        check_frame(frame)
        found: list[np.ndarray] = []
        for windows in search_windows(*frame.shape[:2]):
            for box in (box for window in windows for box in self._boxes(frame, window)):
                points = self._landmarks(frame, box)
                others = [iou(_box(points), _box(other)) for other in found] if points is not None else [1]
                found += [points] if max(others, default=0) < SAME_FACE_IOU else []
            if found and not thorough:
                break
        largest = sorted(found, key=lambda points: -np.ptp(points, axis=0).max())[: self.max_faces]
        return [self._face(frame, points) for points in largest]

    def follow(self, frame: np.ndarray, last: Face | None = None) -> Face | None:
        """As `FaceAnalyzer.follow`, of the faces of the whole frame."""
        return max(self.faces(frame), key=lambda face: iou(face.box, last.box) if last else 0.0, default=None)

    def near(self, frame: np.ndarray, face: Face) -> None:
        """None: these models look at the whole frame in any case."""

    def _boxes(self, frame: np.ndarray, window: Window) -> np.ndarray:
        """(N, 4) px: boxes of the faces in a window, most certain first."""
        height, width = self._session(DETECTOR).get_inputs()[0].shape[2:]
        sides, extent = np.array([frame.shape[1], frame.shape[0]]), np.full(2, window.side)
        if window.side >= sides.max():  # what is beside an upright frame needs no room
            extent = window.side * sides / sides.max()
        zoom = (np.array([width, height]) / extent).min()
        corner = np.array([window.left, window.top]) + (window.side - np.array([width, height]) / zoom) / 2
        matrix = zoom * np.column_stack([np.eye(2), -corner])
        view = warp(frame, matrix, (width, height), cv2.INTER_LINEAR)
        try:
            boxes = boxes_of(self._run(DETECTOR, detector_input(view)), width, height)
        except ValueError as error:
            raise self._wrong(DETECTOR) from error
        return boxes / zoom + np.tile(corner, 2)

    def _landmarks(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """(222, 2) px: the landmarks of the face in a box; None if there is none."""
        points, angle = box.reshape(2, 2), 0.0
        for _ in range(ROUNDS):
            matrix = crop_matrix(points, *LANDMARK_CROP, angle)
            crop = warp(frame, matrix, LANDMARK_CROP[0], cv2.INTER_LINEAR)
            places, _, probability = self._outputs(LANDMARKS, crop[..., ::-1] / 255, 2 * COUNT, None, 1)
            if probability[0] < LEAST_PROBABILITY:
                return None
            points = _back(LANDMARK_CROP[0] * places.reshape(2, COUNT).T, matrix)
            angle = eye_angle(points)
        return points

    def _face(self, frame: np.ndarray, points: np.ndarray) -> Face:
        """The face with these landmarks: its pose and coefficients are read in crops around them."""
        size = POSE_CROP[0]
        matrix = crop_matrix(points, *POSE_CROP)
        crop = warp(frame, matrix, size, cv2.INTER_LINEAR)
        (values,) = self._outputs(POSE, crop / 255, COEFFICIENTS)
        x, y, z = values[TRANSLATION]  # of the crop's camera, which looks down -z
        focal = POSE_FOCAL / max(-z, HALF_SIDE)  # px of the crop to a metre at the head

        level = crop_matrix(points, *EXPRESSION_CROP, eye_angle(points))
        crop = warp(frame, level, EXPRESSION_CROP[0], cv2.INTER_LINEAR)
        (blendshapes,) = self._outputs(EXPRESSION, crop[..., ::-1] / 255, len(ARKIT_NAMES))
        return Face(
            points.astype(np.float32),
            np.clip(blendshapes, 0, 1),
            from_angles(*np.degrees(values[ANGLES].astype(float))),
            _back(size / 2 + focal * np.array([[x, -y]]), matrix)[0],
            float(focal * HALF_SIDE / matrix[0, 0]),
            _box(points),
            RELEASED,
        )

    def _outputs(self, name: str, picture: np.ndarray, *sizes: int | None) -> list[np.ndarray]:
        """The first outputs of a model, flat, which have these sizes; None for any."""
        outputs = [np.ravel(output) for output in self._run(name, picture)][: len(sizes)]
        fits = [size in (None, output.size) for size, output in zip(sizes, outputs, strict=False)]
        if len(outputs) < len(sizes) or not all(fits):
            raise self._wrong(name)
        return outputs

    def _run(self, name: str, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs of a model for a picture (H, W, 3)."""
        session = self._session(name)
        batch = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
        try:
            return session.run(None, {session.get_inputs()[0].name: batch})
        except Exception as error:  # onnxruntime's own classes, one for each kind of failure
            raise self._wrong(name) from error

    def _session(self, name: str) -> InferenceSession:
        import onnxruntime

        with self._lock:
            if name not in self._sessions:
                path = str(self.folder / name)
                try:
                    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                except Exception as error:
                    raise self._wrong(name) from error
                self._sessions[name] = session
            return self._sessions[name]

    def _wrong(self, name: str) -> HelloMemeError:
        return HelloMemeError(
            f"{self.folder / name} is damaged or another model than its name says: get the face models again."
        )


def crop_matrix(points: np.ndarray, size: int, margin: float, angle: float = 0.0) -> np.ndarray:
    """(2, 3) matrix from px of the frame to px of a square crop around points (N, 2).

    size: px of the crop. margin: share of it around the longer side of the points' extent. angle: radians by
    which a line in the frame descends to the right that is level in the crop.
    """
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = points @ turn.T
    low, high = turned.min(0), turned.max(0)
    zoom = (1 - margin) * size / (high - low).max()
    return np.column_stack([zoom * turn, size / 2 - zoom * (low + high) / 2])


def eye_angle(points: np.ndarray) -> float:
    """Radians by which the line of the eyes' outer corners descends to the right, of landmarks (222, 2)."""
    names = RELEASED.points
    x, y = points[names["image-right eye's outer corner"]] - points[names["image-left eye's outer corner"]]
    return float(np.arctan2(y, x))


def _back(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 2): points of a crop in px of the frame."""
    return np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T


def _box(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points.min(0), points.max(0)]).astype(float)
