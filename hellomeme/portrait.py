"""What a reenactor works with: a face on its way in, as the networks see it, and a picture on its way out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from .face.crop import Crop
from .face.detect import Face
from .face.drawing import FaceShape
from .face.edit import Edit
from .face.motion import Motion
from .face.paste import paste
from .io.metadata import Stamp
from .pipeline import Reference
from .settings import Settings


@dataclass(frozen=True)
class Portrait:
    """A face as the networks are told of it: the cropped picture, the face in pixels of the whole frame, its
    motion.

    frame: (H, W, 3) uint8, the whole picture as it was read. crop: where in it the cropped picture lies.
    """

    picture: Image.Image
    face: Face
    motion: Motion
    crop: Crop
    frame: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class ReferencePortrait(Portrait):
    """A portrait with all that depends on it alone: latents, and the keys and values for the prompts last
    used.

    shape: of the face, for releases that draw it into the condition picture.
    """

    latents: torch.Tensor
    prepared: dict[tuple[str, str], Reference] = field(default_factory=dict, repr=False)
    shape: FaceShape | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Result:
    """picture: what was drawn. reference, driver: the crops it was drawn from. pose: the pose picture that
    steered it, 512 px. settings: those used, with every choice made. release: by name. driver is None for an
    edited face.
    frame, crop: the whole reference picture (H, W, 3) uint8, and where in it the face was. edit: of an edited
    face. held: the angles of the head, of "pitch", "yaw" and "roll", that lie beyond what the release draws
    and were held at its edge."""

    picture: Image.Image
    reference: Image.Image
    driver: Image.Image | None
    pose: Image.Image
    settings: Settings
    release: str
    frame: np.ndarray = field(repr=False)
    crop: Crop
    edit: Edit | None = None
    held: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def stamp(self) -> Stamp:
        """What a file of this result should carry; see `metadata.save`."""
        return Stamp(self.settings, self.release, edit=self.edit)

    def original_size(self, feather: float | None = None) -> Image.Image:
        """The whole reference picture with what was drawn pasted back; feather 0..1 as in the settings."""
        feather = self.settings.feather if feather is None else feather
        return Image.fromarray(paste(self.frame, self.crop, np.asarray(self.picture), feather))


def pixels(picture: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
