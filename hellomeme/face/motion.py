"""Motion: expression and head pose over time, and how a reference performs it."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import HelloMemeError, NoFaceError
from ..io.atomic import atomic_write
from .arkit import ARKIT_NAMES
from .crop import Crop
from .detect import HALF_SIDE, Face

FRAME = 512  # px: side of the crop in which motion is measured, at any resolution of the networks
FOCAL = 241.43  # px: focal length of the pose camera of the released weights, for that side
MAX_T_Z = -0.5  # half sides of the pose square: a head comes no nearer to the pose camera
EMOTION_WIDTH = 548
CODES = {"emotion": (EMOTION_WIDTH,), "face_parts": (3, 1024)}  # arrays that may be None: shape of a frame
FORMAT = "hellomeme motion 1"
MAX_FILE_SIZE = 1 << 31  # bytes, unpacked: about 140,000 frames with all codes
HEADERS = 1 << 12  # bytes of them for the names, shapes and types of the arrays
# Frames per second in a file: from one frame of a clip that lasts a day (frames that are spread over a clip
# are saved with their own rate) to the rate of a high-speed camera.
MIN_RATE, MAX_RATE = Fraction(1, 86_400), Fraction(1000)


@dataclass(frozen=True)
class Motion:
    """T frames of one head, measured in a 512 x 512 px crop. A picture is a motion of one frame.

    blendshapes: (T, 51) float32 in [0, 1], in the order of ARKIT_NAMES
    rotation:    (T, 3, 3) float64, R = Rz Ry Rx; x right, y up, z towards the viewer
    origin:      (T, 2) float64, px: where the head's origin projects
    scale:       (T,) float64, px: half side of the pose square (5 cm) at the head's distance
    valid:       (T,) bool: False where no face was found and the values are those of another frame
    emotion:     (T, 548) float32, codes of `FanEncoder`, or None
    rate:        frames per second of the clip it was measured in, exact, or None
    face_parts:  (T, 3, 1024) float32, CLIP embeddings of image-left eye, image-right eye and mouth, or None
    """

    blendshapes: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    scale: np.ndarray
    valid: np.ndarray
    emotion: np.ndarray | None = None
    rate: Fraction | None = None
    face_parts: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.blendshapes)

    @classmethod
    def from_faces(cls, faces: Sequence[Face | None], crop: Crop) -> Motion:
        """The motion of one face per frame.

        faces: in px of the frame. None, for a frame without a face, gets the values of the last face before
        it, or of the first face. crop: of the frame. Raises NoFaceError if all are None.
        """
        valid = np.array([face is not None for face in faces], bool)
        if not valid.any():
            raise NoFaceError("No face in any frame of the driver: choose one that shows a face clearly.")
        last = np.maximum.accumulate(np.where(valid, np.arange(len(faces)), valid.argmax()))
        seen = [crop.face(faces[i], FRAME) for i in last]
        return cls(
            np.stack([face.blendshapes for face in seen]).astype(np.float32),
            np.stack([face.rotation for face in seen]),
            np.stack([face.origin for face in seen]),
            np.array([face.scale for face in seen], float),
            valid,
        )

    @property
    def codes(self) -> dict[str, np.ndarray]:
        """The arrays of CODES that are not None, by name."""
        return {name: value for name in CODES if (value := getattr(self, name)) is not None}

    def at(self, frames: Sequence[int] | np.ndarray) -> Motion:
        """The frames with these indices, in this order."""
        frames = np.asarray(frames, int)
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rate"}
        return replace(
            self, **{name: None if value is None else value[frames] for name, value in arrays.items()}
        )

    @property
    def translation(self) -> np.ndarray:
        """(T, 3): t_x and t_y in m, t_z < 0 in units of 0.05 m, in the coordinates of the pose camera."""
        offset = (self.origin - FRAME / 2) * [1, -1] * HALF_SIDE / self.scale[:, None]
        return np.concatenate([offset, -FOCAL / self.scale[:, None]], 1)

    def onto(
        self,
        reference: Motion,
        expression: float = 1.0,
        head: float = 1.0,
        translation: float = 0.0,
        since: int = 0,
    ) -> Motion:
        """This driver's motion, as the reference (one frame) performs it.

        expression: reference + expression * (driver - reference), for blendshapes (clipped to [0, 1]) and
            emotion codes and embeddings (not clipped). 0 is the reference's own, 1 the driver's, above 1
            exaggerates.
        head: the same for the rotation, along the shortest arc.
        translation: t = t_ref + translation * (t_driver - t_driver[since]). A picture is its own frame
            `since`: it stays at the reference's place.
        since: the index of the driver's frame from which translation is measured.
        Raises HelloMemeError if only one of the two has emotion codes, or embeddings of face parts.
        """
        from scipy.spatial.transform import Rotation

        if self.codes.keys() != reference.codes.keys():
            raise HelloMemeError(
                "Emotion codes and embeddings of face parts are needed of both the reference and the driver, "
                "or of neither."
            )
        blendshapes = np.clip(_between(reference.blendshapes, self.blendshapes, expression), 0, 1)
        codes = {name: _between(reference.codes[name], own, expression) for name, own in self.codes.items()}
        start = Rotation.from_matrix(reference.rotation)
        turn = (start.inv() * Rotation.from_matrix(self.rotation)).as_rotvec()
        rotation = (start * Rotation.from_rotvec(head * turn)).as_matrix()
        place = reference.translation + translation * (self.translation - self.translation[since : since + 1])
        scale = FOCAL / -np.minimum(place[:, 2], MAX_T_Z)
        origin = FRAME / 2 + place[:, :2] * [1, -1] * scale[:, None] / HALF_SIDE
        return Motion(blendshapes, rotation, origin, scale, self.valid.copy(), **codes)

    def save(self, path: str | Path) -> None:
        """Writes the arrays as .npz, atomically. The file holds no pictures.

        Raises HelloMemeError if that fails, and for more frames than `load` takes.
        """
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        if self.rate is not None:
            arrays["rate"] = np.array(self.rate.as_integer_ratio(), np.int64)
        if sum(value.nbytes for value in arrays.values()) > MAX_FILE_SIZE - HEADERS:
            raise HelloMemeError(
                f"{len(self)} frames are too many for a motion file with these codes: choose fewer, or a "
                "lower rate."
            )
        packed = io.BytesIO()  # in memory first: zipfile fails badly on a full disk
        np.savez_compressed(packed, format=FORMAT, **arrays)
        with atomic_write(path, "motion file") as draft:
            draft.write_bytes(packed.getbuffer())

    @classmethod
    def load(cls, path: str | Path) -> Motion:
        """Reads a file of `save`. Raises HelloMemeError if it is missing, damaged or of another kind."""
        if not os.path.isfile(path):
            raise HelloMemeError(f"There is no motion file at {path}: check the path.")
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > MAX_FILE_SIZE:
                    raise ValueError("too large")
            with np.load(path, allow_pickle=False) as file:
                if str(file["format"]) != FORMAT:
                    raise ValueError("another format")
                arrays = {field.name: file[field.name] for field in fields(cls) if field.name in file}
            if "rate" in arrays:
                arrays["rate"] = _rate(arrays["rate"])
            motion = cls(**arrays)
            motion._check()
        except Exception as error:  # damaged and malicious files raise nearly anything
            raise HelloMemeError(
                f"{Path(path).name} is not a motion file of HelloMeme or is damaged: make it "
                "again from the driver."
            ) from error
        return motion

    def _check(self) -> None:
        """Raises ValueError unless shapes, types and ranges are those of the docstring."""
        frames = len(self)
        shapes = {
            "blendshapes": (frames, len(ARKIT_NAMES)),
            "rotation": (frames, 3, 3),
            "origin": (frames, 2),
            "scale": (frames,),
            "valid": (frames,),
        }
        shapes |= {name: (frames, *CODES[name]) for name in self.codes}
        for name, shape in shapes.items():
            value = getattr(self, name)
            kinds = "b" if name == "valid" else "fb"
            if (
                frames == 0
                or value.shape != shape
                or value.dtype.kind not in kinds
                or not np.isfinite(value).all()
            ):
                raise ValueError(name)
        if not self.valid.any():
            raise ValueError("valid")
        orthogonal = np.allclose(self.rotation @ self.rotation.transpose(0, 2, 1), np.eye(3), atol=1e-3)
        if not orthogonal or (np.linalg.det(self.rotation) < 0).any() or (self.scale <= 0).any():
            raise ValueError("rotation or scale")
        if (self.blendshapes < 0).any() or (self.blendshapes > 1).any():
            raise ValueError("blendshapes")


def is_motion_file(path: str | Path) -> bool:
    """Whether the path of a driver is that of a motion file (.npz) and not of a clip."""
    return Path(path).suffix.lower() == ".npz"


def _rate(pair: np.ndarray) -> Fraction:
    """The rate in a file: (2,) integers, numerator and denominator. ValueError for any other array."""
    if pair.shape != (2,) or pair.dtype.kind != "i" or (pair <= 0).any():
        raise ValueError("rate")
    rate = Fraction(*pair.tolist())
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError("rate")
    return rate


def _between(reference: np.ndarray, driver: np.ndarray, strength: float) -> np.ndarray:
    """reference + strength * (driver - reference), exact at 0 and 1."""
    return ((1 - strength) * reference + strength * driver).astype(np.float32)
