"""Inputs and outputs of a reenactor: analysed pictures of a face, and results."""

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
from .releases.styles import Style
from .settings import Settings


@dataclass(frozen=True)
class Portrait:
    """An analysed picture of a face.

    picture: the crop, at the size of the networks. face: in px of the frame. motion: one frame. crop: where
    `picture` is in the frame, px. frame: (H, W, 3) uint8, the whole picture.
    """

    picture: Image.Image
    face: Face
    motion: Motion
    crop: Crop
    frame: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class ReferencePortrait(Portrait):
    """A portrait with everything that depends on it alone.

    latents: (1, C, h, w). prepared: (style, few-step preset, prompt, negative prompt) -> keys and values of
    the reference net, for those used last. shape: of the face, for releases that draw it into the condition
    picture. style: the one in which `latents` were encoded.
    """

    latents: torch.Tensor
    prepared: dict[tuple, Reference] = field(default_factory=dict, repr=False)
    shape: FaceShape | None = field(default=None, repr=False)
    style: Style = Style()

    def generator(self, seed: int) -> torch.Generator:
        """The generator of a seed, after discarding the numbers that the released code spends on sampling the
        reference latents, so that the noise that follows matches."""
        generator = torch.Generator().manual_seed(seed)
        torch.randn(self.latents.shape, generator=generator)
        return generator


@dataclass(frozen=True)
class Result:
    """A picture, and what it was made of.

    picture: the result. reference, driver: the crops; driver is None for an edited face. pose: the condition
    picture, 512 px. settings: resolved ones. release: its name. frame: the whole reference picture (H, W, 3)
    uint8. crop: where `reference` is in the frame, px. edit: of an edited face. held: which of the head
    angles "pitch", "yaw" and "roll" were limited to the range of the release. style: the weights that drew.
    """

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
    style: Style = Style()

    @property
    def stamp(self) -> Stamp:
        """The metadata of this result for `metadata.save`."""
        return Stamp(self.settings, self.release, edit=self.edit, style=self.style)

    def original_size(self, feather: float | None = None) -> Image.Image:
        """The whole reference picture with the result pasted back. feather: 0..1, None for the settings'."""
        feather = self.settings.feather if feather is None else feather
        return Image.fromarray(paste(self.frame, self.crop, np.asarray(self.picture), feather))


def pixels(picture: np.ndarray) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] / 127.5 - 1
