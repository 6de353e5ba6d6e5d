"""The condition picture of the control nets, and the aligned face of the emotion encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .detect import HALF_SIDE, Face
from .drawing import FaceShape, draw_face
from .motion import FOCAL, FRAME, Motion
from .rotation import from_angles

if TYPE_CHECKING:
    import torch

# The square on the head: corners in drawing order, and the colours (RGB) of the edges that begin at each.
CORNERS = HALF_SIDE * np.array([(-1, -1, 0), (-1, 1, 0), (1, 1, 0), (1, -1, 0)], float)
EDGES = ((0, 255, 0), (0, 0, 255), (255, 0, 0), (255, 0, 255))  # left, top, right, bottom
LINE_WIDTH = 15  # px


@dataclass(frozen=True)
class Calibration:
    """The difference between the released weights' head model and MediaPipe's; it has not been measured.

    tilt: degrees of pitch, subtracted; MediaPipe measures about +9 for a level head. origin: to the right and
    up, in half sides of the square.
    """

    tilt: float = 0.0
    origin: tuple[float, float] = (0.0, 0.0)


def pose_corners(motion: Motion, calibration: Calibration = Calibration()) -> np.ndarray:
    """(T, 4, 2) px: the corners of the pose square in each frame, projected to 512 x 512 px."""
    tilt = from_angles(pitch=-calibration.tilt, yaw=0, roll=0)
    shift = motion.translation + [*(HALF_SIDE * np.array(calibration.origin)), 0]
    shift[:, 2] *= HALF_SIDE
    points = np.einsum("tij,cj->tci", motion.rotation @ tilt, CORNERS) + shift[:, None]
    # Corners of a very near face stay in front of the camera
    depth = np.maximum(-points[..., 2:], HALF_SIDE / 5)
    return FRAME / 2 + FOCAL * points[..., :2] * [1, -1] / depth


def pose_picture(motion: Motion, calibration: Calibration = Calibration()) -> np.ndarray:
    """(T, 512, 512, 3) uint8 RGB: on black, the outline of a square fixed to the head."""
    pictures = np.zeros((len(motion), FRAME, FRAME, 3), np.uint8)
    for picture, corners in zip(
        pictures, np.round(pose_corners(motion, calibration)).astype(int).tolist(), strict=True
    ):
        for start, end, colour in zip(corners, corners[1:] + corners[:1], EDGES, strict=True):
            cv2.line(picture, start, end, colour, LINE_WIDTH)
    return pictures


def condition_pictures(motion: Motion, size: int = FRAME, shape: FaceShape | None = None) -> np.ndarray:
    """(T, size, size, 3) uint8 RGB: what the control nets see of each frame.

    The pose picture, averaged over areas if smaller; with the reference's `shape`, the face is drawn on it.
    """
    pictures = pose_picture(motion)
    if size != FRAME:
        resized = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for picture in pictures]
        pictures = np.stack(resized)
    if shape is None:
        return pictures
    landmarks = shape.landmarks(motion) / FRAME
    return np.stack([draw_face(*pair) for pair in zip(pictures, landmarks, strict=True)])


def condition_tensor(motion: Motion, size: int = FRAME, shape: FaceShape | None = None) -> torch.Tensor:
    """torch.Tensor (3, T, size, size) float32 in [-1, 1]: `condition_pictures` as the networks take them."""
    import torch

    pictures = torch.from_numpy(condition_pictures(motion, size, shape))
    return pictures.permute(3, 0, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True)
class Template:
    """Where landmarks are in an aligned picture: their name in a `LandmarkSet` -> (x, y) as fractions of its
    size, px."""

    size: int
    points: dict[str, tuple[float, float]]


EMOTION_TEMPLATE = Template(
    224,
    {
        "image-left pupil": (0.3843, 0.27),
        "image-right pupil": (0.62, 0.2668),
        "nose tip": (0.503, 0.4185),
        "image-left mouth corner": (0.406, 0.5273),
        "image-right mouth corner": (0.5977, 0.525),
    },
)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) matrix of the similarity transform that maps points (N, 2) to others, by least squares."""
    z, w = source @ [1, 1j], target @ [1, 1j]
    turn = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean())
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def to_template(face: Face, template: Template) -> np.ndarray:
    """(2, 3) matrix from px of the face's picture to px of the aligned picture."""
    target = template.size * np.array(list(template.points.values()))
    return similarity(face.points(template.points), target)


def warp(
    frame: np.ndarray, matrix: np.ndarray, size: int | tuple[int, int], interpolation: int = cv2.INTER_CUBIC
) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3) uint8 by a (2, 3) matrix, px to px; bicubic, black outside.

    size: px, or width and height. interpolation: another one of OpenCV's.
    """
    shrink = int(1 / np.hypot(*matrix[:, 0]))
    if shrink > 1:  # antialiasing: sampling alone would skip pixels
        height, width = (max(round(side / shrink), 1) for side in frame.shape[:2])
        factors = np.array([frame.shape[1] / width, frame.shape[0] / height, 1])
        frame, matrix = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), matrix * factors
    size = (size, size) if isinstance(size, int) else size
    return cv2.warpAffine(frame, matrix, size, flags=interpolation)


def align(frame: np.ndarray, face: Face, template: Template) -> np.ndarray:
    """(size, size, 3) uint8: the face of a frame (H, W, 3) uint8, aligned to the template."""
    return warp(frame, to_template(face, template), template.size)


def emotion_input(frame: np.ndarray, face: Face) -> np.ndarray:
    """(3, 224, 224) float32 in [-1, 1]: the input of `FanEncoder`, from a frame (H, W, 3) uint8."""
    return align(frame, face, EMOTION_TEMPLATE).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
