"""A user's own clips, as `own_clips` trains on them: found, analysed, encoded and kept as latents."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hellomeme.errors import HelloMemeError, NoFaceError
from hellomeme.face.crop import Crop
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.drawing import FaceBasis, FaceShape
from hellomeme.face.motion import FRAME, Motion
from hellomeme.face.track import analyse
from hellomeme.io.ffmpeg import probe, read_frames
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.table import Release
from training.pictures import to_tensor

CLIPS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".3gp")
FEWEST = 12  # frames that are read even of a short clip
SEEN = ("blendshapes", "rotation", "origin", "scale", "valid")  # of a motion


@dataclass(frozen=True)
class Clip:
    """latents (T, C, h, w) float16, scaled, of the cropped frames; motion: T frames in the same crop.

    shape: of the face, for releases that draw it into the condition picture.
    """

    name: str
    latents: torch.Tensor
    motion: Motion
    shape: FaceShape | None = None

    @property
    def usable(self) -> np.ndarray:
        """Indexes of the frames in which the face was found."""
        return np.flatnonzero(self.motion.valid)


@dataclass(frozen=True)
class Analysed:
    """A clip before the base is loaded: which frames are taken, the motion in them, their
    crop, and the shape of the face, see `Clip`."""

    path: Path
    rate: Fraction
    motion: Motion
    crop: Crop
    shape: FaceShape | None

    def encoded(self, pipeline: HelloMemePipeline, size: int) -> Clip:
        """The clip with its frames as latents, encoded where the pipeline's autoencoder lies."""
        frames = read_frames(self.path, self.rate, count=len(self.motion), name="training")
        latents = [pipeline.encode(to_tensor(self.crop.apply(frame, size)[None].copy())) for frame in frames]
        return Clip(self.path.name, torch.cat(latents).half().cpu(), self.motion, self.shape)


def clip_paths(folder: Path) -> list[Path]:
    """The clips of a folder in order of their names. HelloMemeError if there is no folder or no clip in
    it."""
    if not folder.is_dir():
        raise HelloMemeError(f"There is no folder {folder}: give the folder that your clips are in.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in CLIPS)
    if not paths:
        raise HelloMemeError(
            f"The folder {folder} has no clips: put MP4, MOV, WebM or GIF files of a face into it."
        )
    return paths


def analysed(
    path: Path, release: Release, analyzer: FaceAnalyzer, rate: float, frames: int, basis: FaceBasis | None
) -> Analysed:
    """Motion and crop of a clip, of `rate` frames a second and at most `frames` of them, spread over it.

    With a `basis`, also the shape of the face, as its first frame shows it.
    Raises HelloMemeError for a clip that cannot be read or has one frame only, NoFaceError where the face is
    not to be seen most of the time.
    """
    info = probe(path, "training")
    if info.frames < 2:
        raise HelloMemeError(
            f"The training clip {path.name} is a single frame: take it out, for training compares two "
            "frames of a face."
        )
    wanted = min(max(Fraction(rate), FEWEST / info.seconds), frames / info.seconds, info.rate)
    try:
        motion, crop = analyse(
            read_frames(path, wanted, name="training"), wanted, analyzer, release.crop_scale
        )
    except NoFaceError as error:
        raise NoFaceError(
            f"The training clip {path.name} does not show a face in its first second or in most of its "
            "frames: cut it to where one is seen, or take it out."
        ) from error
    if motion.valid.sum() < 2:
        raise NoFaceError(
            f"The training clip {path.name} shows a face in a single frame: take it out, for training "
            "compares two frames of a face."
        )
    shape = None if basis is None else shape_in(path, wanted, motion, crop, analyzer, basis)
    return Analysed(path, wanted, motion, crop, shape)


def shape_in(
    path: Path, rate: Fraction, motion: Motion, crop: Crop, analyzer: FaceAnalyzer, basis: FaceBasis
) -> FaceShape:
    """The shape of the face that `motion` follows through a clip, from the first frame it was found in."""
    first = int(motion.valid.argmax())
    frame = next(itertools.islice(read_frames(path, rate, name="training"), first, None))
    faces = [crop.face(face, FRAME) for face in analyzer.faces(frame)]
    face = min(faces, key=lambda face: np.linalg.norm(face.origin - motion.origin[first]))
    return FaceShape.of(face, basis)


def save_clip(clip: Clip, path: Path) -> None:
    tensors = {"latents": clip.latents.contiguous()}
    if clip.shape is not None:
        tensors["neutral"] = torch.from_numpy(np.ascontiguousarray(clip.shape.neutral))
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(getattr(clip.motion, name))) for name in SEEN}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def load_clip(name: str, path: Path, basis: FaceBasis | None) -> Clip:
    tensors = load_file(path)
    shape = None if basis is None else FaceShape(basis, tensors["neutral"].numpy())
    return Clip(name, tensors["latents"], Motion(*(tensors[part].numpy() for part in SEEN)), shape)
