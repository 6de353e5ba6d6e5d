"""Inputs of the control nets and expression encoders: the condition picture, and aligned faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from .detect import BROWS, EYES, HALF_SIDE, MOUTH, Face
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
    """Where landmarks are in an aligned picture: MediaPipe's index -> (x, y) as fractions of its size, px."""

    size: int
    points: dict[int, tuple[float, float]]


EMOTION_TEMPLATE = Template(
    224,
    {
        468: (0.3843, 0.27),
        473: (0.62, 0.2668),  # pupils, image-left first
        1: (0.503, 0.4185),  # nose tip
        61: (0.406, 0.5273),
        291: (0.5977, 0.525),  # mouth corners
    },
)
PARTS_TEMPLATE = Template(
    512,
    {
        168: (0.5095, 0.4013),  # between the eyes
        33: (0.2926, 0.4020),
        263: (0.7220, 0.4086),  # outer corners of the eyes, image-left first
        291: (0.6342, 0.7168),
        61: (0.3844, 0.7172),  # mouth corners
    },
)
# image-left eye with brow, image-right eye with brow, mouth: first halves of EYES and BROWS are image-left
PARTS = (EYES[:16] + BROWS[:10], EYES[16:] + BROWS[10:], MOUTH)
PART_SIDE, PART_SIZE, PART_BLUR, CLIP_SIZE = 1.2, 256, 5, 224


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) matrix of the similarity transform that maps points (N, 2) to others, by least squares."""
    z, w = source @ [1, 1j], target @ [1, 1j]
    turn = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean())
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def to_template(face: Face, template: Template) -> np.ndarray:
    """(2, 3) matrix from px of the face's picture to px of the aligned picture."""
    target = template.size * np.array(list(template.points.values()))
    return similarity(face.landmarks[list(template.points)].astype(float), target)


def warp(frame: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3) uint8 -> (size, size, 3) uint8 by a (2, 3) matrix, px to px; bicubic, black outside."""
    shrink = int(1 / np.hypot(*matrix[:, 0]))
    if shrink > 1:  # antialiasing: bicubic sampling alone would skip pixels
        height, width = (max(round(side / shrink), 1) for side in frame.shape[:2])
        factors = np.array([frame.shape[1] / width, frame.shape[0] / height, 1])
        frame, matrix = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), matrix * factors
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_CUBIC)


def align(frame: np.ndarray, face: Face, template: Template) -> np.ndarray:
    """(size, size, 3) uint8: the face of a frame (H, W, 3) uint8, aligned to the template."""
    return warp(frame, to_template(face, template), template.size)


def emotion_input(frame: np.ndarray, face: Face) -> np.ndarray:
    """(3, 224, 224) float32 in [-1, 1]: the input of `FanEncoder`, from a frame (H, W, 3) uint8."""
    return align(frame, face, EMOTION_TEMPLATE).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1


def face_parts(frames: Sequence[np.ndarray], faces: Sequence[Face]) -> np.ndarray:
    """(T, 3, 256, 256, 3) uint8: image-left eye with brow, image-right eye with brow, and mouth of each face.

    frames: T of (H, W, 3) uint8. Each part is a square of 1.2 times its largest extent in any frame of the
    aligned face, blurred 5 x 5.
    """
    matrices = [to_template(face, PARTS_TEMPLATE) for face in faces]
    aligned = [
        face.landmarks @ matrix[:, :2].T + matrix[:, 2] for face, matrix in zip(faces, matrices, strict=True)
    ]
    pictures = np.empty((len(faces), len(PARTS), PART_SIZE, PART_SIZE, 3), np.uint8)
    for part, indices in enumerate(PARTS):
        low = np.stack([points[list(indices)].min(0) for points in aligned])
        high = np.stack([points[list(indices)].max(0) for points in aligned])
        side = PART_SIDE * (high - low).max()
        zoom = PART_SIZE / side
        for t, corner in enumerate((low + high - side) / 2):
            matrix = zoom * matrices[t] - np.array([[0, 0, zoom * corner[0]], [0, 0, zoom * corner[1]]])
            pictures[t, part] = cv2.blur(warp(frames[t], matrix, PART_SIZE), (PART_BLUR, PART_BLUR))
    return pictures


def clip_input(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) uint8 -> (..., 3, 224, 224) float32, the input of CLIP's vision model."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    flat = pictures.reshape(-1, *pictures.shape[-3:])
    small = np.stack(
        [
            np.asarray(Image.fromarray(picture).resize((CLIP_SIZE, CLIP_SIZE), Image.Resampling.BICUBIC))
            for picture in flat
        ]
    )
    values = (small / 255 - OPENAI_CLIP_MEAN) / OPENAI_CLIP_STD
    return (
        values.transpose(0, 3, 1, 2).astype(np.float32).reshape(*pictures.shape[:-3], 3, CLIP_SIZE, CLIP_SIZE)
    )
