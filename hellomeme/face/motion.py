"""What a driver does: expression and head pose over time, and how a reference takes it over."""

import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import HelloMemeError, NoFaceError
from ..io.atomic import atomic_write
from .arkit import ARKIT_NAMES
from .crop import Crop
from .detect import HALF_SIDE, Face

FRAME = 512  # px: side of the crop in which a motion is measured, whatever the networks' size
FOCAL = 241.43  # px: focal length of the released pose camera on that frame
NEAREST = -0.5  # the head never comes nearer to the pose camera than this t_z
EMOTION_WIDTH = 548
FORMAT = "hellomeme motion 1"
# Frames a second that a file may claim: from one frame of a clip that lasts a day, far below any clip's own
# rate, as frames spread over a clip are saved with what is left of its rate, to a high-speed camera's.
SLOWEST, FASTEST = Fraction(1, 86_400), Fraction(1000)


@dataclass(frozen=True)
class Motion:
    """T frames of one head, in a 512 x 512 crop. A picture is a motion of one frame.

    blendshapes: (T, 51) float32 in [0, 1], in the order of ARKIT_NAMES
    rotation:    (T, 3, 3) float64, R = Rz Ry Rx; x right, y up, z towards the viewer
    origin:      (T, 2) float64, px: where the head's origin projects
    scale:       (T,) float64, px: half side of the pose square
    valid:       (T,) bool: False where no face was found and a neighbouring frame's values stand in
    emotion:     (T, 548) float32 codes of the emotion encoder, or None
    rate:        frames per second of the clip it was measured in, exact, or None
    """

    blendshapes: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    scale: np.ndarray
    valid: np.ndarray
    emotion: np.ndarray | None = None
    rate: Fraction | None = None

    def __len__(self) -> int:
        return len(self.blendshapes)

    @classmethod
    def from_faces(cls, faces: Sequence[Face | None], crop: Crop) -> "Motion":
        """Faces in pixels of the picture that `crop` was taken from, one per frame. None, a frame without
        a face, takes the values of the last face before it, or of the first one. NoFaceError if all are
        None."""
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

    def with_emotion(self, emotion: np.ndarray) -> "Motion":
        """The same motion with (T, 548) emotion codes."""
        return replace(self, emotion=np.asarray(emotion, np.float32))

    def at(self, frames: Sequence[int] | np.ndarray) -> "Motion":
        """The frames with these numbers, in this order."""
        frames = np.asarray(frames, int)
        arrays = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "rate"}
        return replace(
            self, **{name: None if value is None else value[frames] for name, value in arrays.items()}
        )

    @property
    def translation(self) -> np.ndarray:
        """(T, 3): t_x, t_y, t_z of the pose camera; t_z < 0 and counts 0.05 m a unit."""
        offset = (self.origin - FRAME / 2) * [1, -1] * HALF_SIDE / self.scale[:, None]
        return np.concatenate([offset, -FOCAL / self.scale[:, None]], 1)

    def onto(
        self,
        reference: "Motion",
        expression: float = 1.0,
        head: float = 1.0,
        translation: float = 0.0,
        since: int = 0,
    ) -> "Motion":
        """This driver's motion, as `reference` (one frame) should perform it.

        expression: code = reference + expression * (driver - reference), for coefficients (then clipped to
            [0, 1]) and emotion codes (not clipped): 0 keeps the reference's own, 1 is the driver's, above 1
            exaggerates.
        head: the same for the rotation, along the shortest turn from the reference's to the driver's.
        translation: t = t_ref + translation * (t_driver - t_driver,since): the reference's own place at 0,
            and always in a picture, which is its own first frame.
        since: the driver's frame from which its place is measured.
        """
        if (self.emotion is None) != (reference.emotion is None):
            raise HelloMemeError(
                "Emotion codes are needed of both the reference and the driver, or of neither."
            )
        blendshapes = np.clip(_between(reference.blendshapes, self.blendshapes, expression), 0, 1)
        emotion = None if self.emotion is None else _between(reference.emotion, self.emotion, expression)
        own = Rotation.from_matrix(reference.rotation)
        turn = (own.inv() * Rotation.from_matrix(self.rotation)).as_rotvec()
        rotation = (own * Rotation.from_rotvec(head * turn)).as_matrix()
        place = reference.translation + translation * (self.translation - self.translation[since : since + 1])
        scale = FOCAL / -np.minimum(place[:, 2], NEAREST)
        origin = FRAME / 2 + place[:, :2] * [1, -1] * scale[:, None] / HALF_SIDE
        return Motion(blendshapes, rotation, origin, scale, self.valid.copy(), emotion)

    def save(self, path: str | Path) -> None:
        """Writes the arrays as .npz; nothing of the driver's pictures is in it. Never leaves half a file."""
        arrays = {name: value for name, value in vars(self).items() if value is not None}
        if self.rate is not None:
            arrays["rate"] = np.array(self.rate.as_integer_ratio(), np.int64)
        packed = io.BytesIO()  # some kilobytes a second; zipfile does not end well on a full disk
        np.savez_compressed(packed, format=FORMAT, **arrays)
        with atomic_write(path, "motion file") as draft:
            draft.write_bytes(packed.getbuffer())

    @classmethod
    def load(cls, path: str | Path) -> "Motion":
        """Reads what `save` wrote. Raises HelloMemeError for a missing, damaged or foreign file."""
        if not os.path.isfile(path):
            raise HelloMemeError(f"There is no motion file at {path}: check the path.")
        try:
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST_FILE:
                    raise ValueError("too large")
            with np.load(path, allow_pickle=False) as file:
                if str(file["format"]) != FORMAT:
                    raise ValueError("another format")
                arrays = {field.name: file[field.name] for field in fields(cls) if field.name in file}
            if "rate" in arrays:
                arrays["rate"] = _rate(arrays["rate"])
            motion = cls(**arrays)
            motion._check()
        except Exception as error:  # damaged and hostile files raise nearly anything
            raise HelloMemeError(
                f"{Path(path).name} is not a motion file of HelloMeme or is damaged: make it "
                "again from the driver."
            ) from error
        return motion

    def _check(self) -> None:
        """ValueError unless shapes, kinds and ranges are those the class promises."""
        frames = len(self)
        shapes = {
            "blendshapes": (frames, len(ARKIT_NAMES)),
            "rotation": (frames, 3, 3),
            "origin": (frames, 2),
            "scale": (frames,),
            "valid": (frames,),
            "emotion": (frames, EMOTION_WIDTH),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if name == "emotion" and value is None:
                continue
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


LARGEST_FILE = 1 << 29  # bytes unpacked: some 200,000 frames


def is_motion_file(path: str | Path) -> bool:
    """Whether a driver is a motion file rather than a clip, by the end of its name."""
    return Path(path).suffix.lower() == ".npz"


def _rate(pair: np.ndarray) -> Fraction:
    """(2,) integers, numerator and denominator, as a file holds them; ValueError outside SLOWEST..FASTEST."""
    if pair.shape != (2,) or pair.dtype.kind != "i" or (pair <= 0).any():
        raise ValueError("rate")
    rate = Fraction(*pair.tolist())
    if not SLOWEST <= rate <= FASTEST:
        raise ValueError("rate")
    return rate


def _between(reference: np.ndarray, driver: np.ndarray, strength: float) -> np.ndarray:
    """reference + strength * (driver - reference), exact at 0 and 1."""
    return ((1 - strength) * reference + strength * driver).astype(np.float32)
