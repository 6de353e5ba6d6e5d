"""The face drawn into the condition picture: from coefficients to landmarks, by a linear basis, to lines.

A pose picture alone says where the head is. Where eyes and mouth are, and how they look, a control net would
have to find out by itself. So they are drawn: the reference's own neutral shape, moved by the coefficients,
posed as the head is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import HelloMemeError
from .arkit import ARKIT_NAMES
from .detect import Face
from .landmarks import MEDIAPIPE
from .motion import Motion

# MediaPipe's landmarks by what is drawn of them, in drawing order; image-left (the person's right) first.
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
IRISES = (468, 473)
RIGHT_BROW, LEFT_BROW = (70, 63, 105, 66, 107), (300, 293, 334, 296, 336)
PARTS = {
    "oval": OVAL,
    "outer lips": OUTER_LIPS,
    "inner lips": INNER_LIPS,
    "right eye": RIGHT_EYE,
    "left eye": LEFT_EYE,
    "irises": IRISES,
    "right brow": RIGHT_BROW,
    "left brow": LEFT_BROW,
}
POINTS = [point for part in PARTS.values() for point in part]  # the P = 120 landmarks that are drawn
_ENDS = np.cumsum([len(part) for part in PARTS.values()])
ROWS = dict(zip(PARTS, np.split(np.arange(len(POINTS)), _ENDS[:-1]), strict=True))  # part -> rows of POINTS

GREY, RED, PURPLE, WHITE, GREEN, YELLOW = (
    *((90, 90, 90), (255, 60, 60), (60, 0, 120)),
    *((255, 255, 255), (0, 160, 0), (255, 200, 0)),
)
DRAWN_AT = 384  # px: small pictures are drawn about this large, then averaged: lines carry parts of a pixel
OVAL_WIDTH, BROW_WIDTH = 5 / 256, 8 / 256  # of the side of the picture
IRIS_RADIUS = 0.2  # of the width of the eye
FRACTION_BITS = 4  # of OpenCV's fixed-point coordinates


@dataclass(frozen=True)
class FaceBasis:
    """Landmarks of a face as a linear function of its coefficients: shape + sum of c_k * displacements_k.

    In coordinates of the head (x right, y up, z towards the viewer) around its origin, in half sides of the
    pose square (5 cm), for the landmarks POINTS. Fitted by `training.face_basis`.

    mean: (P, 3) float32, the average neutral shape. displacements: (51, P, 3) float32, as ARKIT_NAMES.
    """

    mean: np.ndarray
    displacements: np.ndarray

    @classmethod
    def load(cls, path: Path) -> FaceBasis:
        """Reads what `save` wrote; HelloMemeError for a file that is missing, damaged or of another kind."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            tensors = load_file(path)
            basis = cls(*(tensors[name].astype(np.float32) for name in ("mean", "displacements")))
            shapes = (basis.mean.shape, basis.displacements.shape)
            if shapes != ((len(POINTS), 3), (len(ARKIT_NAMES), len(POINTS), 3)):
                raise ValueError("another set of landmarks")
            if not all(np.isfinite(array).all() for array in (basis.mean, basis.displacements)):
                raise ValueError("values that are not numbers")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise HelloMemeError(
                f"{path} is missing, damaged or no face basis: get the model again."
            ) from error
        return basis

    def save(self, path: Path) -> None:
        """Writes a safetensors file of half precision, some 40 kB."""
        from safetensors.numpy import save_file

        tensors = {"mean": self.mean, "displacements": self.displacements}
        save_file({k: np.ascontiguousarray(v, np.float16) for k, v in tensors.items()}, path)

    def neutral(
        self,
        landmarks: np.ndarray,
        blendshapes: np.ndarray,
        rotation: np.ndarray,
        origin: np.ndarray,
        scale: float,
    ) -> np.ndarray:
        """(P, 3): the neutral shape of a person, from one picture of them.

        A picture shows two of three dimensions: along the line of sight the shape stays the average one.
        landmarks: (P, 2) px, those of POINTS. The other arguments are fields of a `Face`.
        """
        average = self.mean + np.einsum("k,kpd->pd", blendshapes, self.displacements)
        _meet_lids(average[None])
        seen = (landmarks - origin) / scale * (1, -1)
        return self.mean + (seen - average @ rotation[:2].T) @ rotation[:2]

    def landmarks(self, shape: np.ndarray, motion: Motion) -> np.ndarray:
        """(T, P, 2) px of the 512 px crop: the landmarks of a neutral shape (P, 3), moved and posed."""
        moved = shape + np.einsum("tk,kpd->tpd", motion.blendshapes, self.displacements)
        _meet_lids(moved)
        flat = np.einsum("tpd,ted->tpe", moved, motion.rotation[:, :2])
        return motion.origin[:, None] + motion.scale[:, None, None] * flat * (1, -1)


def _meet_lids(points: np.ndarray) -> None:
    """Lids of (T, P, 3) points that have passed each other meet half-way instead: the eye is closed."""
    for eye in ("right eye", "left eye"):
        lower, upper = ROWS[eye][1:8], ROWS[eye][:8:-1]  # from the outer corner to the inner one
        middle = (points[:, lower, 1] + points[:, upper, 1]) / 2
        points[:, lower, 1] = np.minimum(points[:, lower, 1], middle)
        points[:, upper, 1] = np.maximum(points[:, upper, 1], middle)


@dataclass(frozen=True)
class FaceShape:
    """A reference's neutral shape (P, 3) with the basis that moves it."""

    basis: FaceBasis
    neutral: np.ndarray

    @classmethod
    def of(cls, face: Face, basis: FaceBasis) -> FaceShape:
        """The shape of a face, whatever picture it was found in. HelloMemeError for other landmarks than
        MediaPipe's."""
        if face.landmark_set is not MEDIAPIPE:
            raise HelloMemeError(
                "This model draws faces by MediaPipe's landmarks: choose the face models mediapipe."
            )
        landmarks = face.landmarks[POINTS].astype(float)
        return cls(basis, basis.neutral(landmarks, face.blendshapes, face.rotation, face.origin, face.scale))

    def landmarks(self, motion: Motion) -> np.ndarray:
        """(T, P, 2) px of the 512 px crop."""
        return self.basis.landmarks(self.neutral, motion)


def draw_face(square: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The pose square, dimmed, with outline, lips, mouth, eyes, irises and brows of a face drawn over it.

    square: (S, S, 3) uint8 RGB, the pose picture. landmarks: (P, 2), those of POINTS, as fractions of the
    side. Returns (S, S, 3) uint8.
    """
    side = len(square) * max(1, round(DRAWN_AT / len(square)))
    large = cv2.resize(square, (side, side), interpolation=cv2.INTER_NEAREST) // 2
    points = np.clip(landmarks, -1, 2) * side
    fixed = np.round(points * 2**FRACTION_BITS).astype(np.int32)

    def outline(part: str, colour: tuple[int, ...], width: float, closed: bool) -> None:
        thickness = max(1, round(width * side))
        cv2.polylines(large, [fixed[ROWS[part]]], closed, colour, thickness, cv2.LINE_AA, FRACTION_BITS)

    def fill(picture: np.ndarray, part: str, colour) -> None:
        cv2.fillPoly(picture, [fixed[ROWS[part]]], colour, cv2.LINE_AA, FRACTION_BITS)

    outline("oval", GREY, OVAL_WIDTH, closed=True)
    fill(large, "outer lips", RED)
    fill(large, "inner lips", PURPLE)
    for eye, iris in zip(("right eye", "left eye"), ROWS["irises"], strict=True):
        fill(large, eye, WHITE)
        opening, disc = np.zeros((2, side, side), np.uint8)
        fill(opening, eye, 255)
        corners = points[ROWS[eye][[0, 8]]]
        radius = max(1, round(IRIS_RADIUS * np.linalg.norm(corners[0] - corners[1]) * 2**FRACTION_BITS))
        centre = tuple(int(value) for value in fixed[iris])
        cv2.circle(disc, centre, radius, 255, -1, cv2.LINE_AA, FRACTION_BITS)
        _blend(large, GREEN, cv2.multiply(opening, disc, scale=1 / 255))
    for brow in ("right brow", "left brow"):
        outline(brow, YELLOW, BROW_WIDTH, closed=False)
    return cv2.resize(large, square.shape[1::-1], interpolation=cv2.INTER_AREA)


def _blend(picture: np.ndarray, colour: tuple[int, ...], share: np.ndarray) -> None:
    """Lays a colour over (S, S, 3) uint8, as much of it as share (S, S) of 255 says."""
    left, top, width, height = cv2.boundingRect(share)  # of what is not 0
    part = picture[top : top + height, left : left + width]
    weight = share[top : top + height, left : left + width, None] / 255
    part[:] = np.round(part * (1 - weight) + np.array(colour) * weight)
