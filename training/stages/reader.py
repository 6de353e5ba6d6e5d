"""A reader of latents: what expression and pose they show. Its errors are a loss of the adapters, beside the
pixels'.

A smile moves a few pixels. In a mean over all of a latent's numbers it hardly counts, and a short training
never gets to it. So a small network first learns to read from the truth's latents what the renderer was told;
then the adapters are also held to what it reads of their predictions. It takes no part in drawing and is not
exported.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from hellomeme.face.arkit import ARKIT_NAMES
from training.dataset import Frames
from training.loop import Stage
from training.readings import ANGLES, correlation

NOISE = 0.4  # largest standard deviation of the noise it reads through, in spreads of the latents
NAMES = (*ARKIT_NAMES, "yaw", "pitch", "roll")


def commands(frames: Frames) -> np.ndarray:
    """(N, 54): what the renderer was told, coefficients and then angles in degrees, in the order of NAMES."""
    return np.concatenate([frames.commanded, frames.angles], axis=1)


def haze(latents: torch.Tensor) -> torch.Tensor:
    """Noise like the latents (B, C, h, w), of another strength in each, up to NOISE."""
    return NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * torch.randn_like(latents)


class Reader(nn.Module):
    """Latents (B, C, h, w) of unit spread, sides a multiple of 8 -> (B, 54), each of NAMES in its spreads
    from its mean."""

    def __init__(self, latent_channels: int, side: int, widths: tuple[int, int, int] = (64, 96, 128)):
        super().__init__()
        layers, channels = [], latent_channels
        for width in widths:
            for stride in (1, 2):
                layers += [
                    nn.Conv2d(channels, width, 3, stride, padding=1),
                    nn.GroupNorm(8, width),
                    nn.SiLU(),
                ]
                channels = width
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (side // 8) ** 2, len(NAMES)))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.layers(latents)

    def difference(self, predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """(B,) mean squared difference of what is read of either, (B, C, h, w) both.

        Read through the same noise, which changes at every step: what only one exact picture would fool is of
        no use.
        """
        noise = haze(truth)
        return (self(predicted + noise) - self(truth + noise)).square().mean(1)


class ReaderStage(Stage):
    """Learns to read frames under a little noise."""

    name = "reader"

    def __init__(
        self,
        reader: Reader,
        frames: Frames,
        validation: Frames,
        latents: torch.Tensor,
        validation_latents: torch.Tensor,
    ):
        super().__init__()
        self.reader = reader
        told, validation_told = commands(frames), commands(validation)
        mean, spread = told.mean(0), told.std(0)
        spread[spread < 1e-3] = np.inf  # never told: nothing to read
        self.told, self.validation_told = ((values - mean) / spread for values in (told, validation_told))
        self.latents, self.validation_latents = latents, validation_latents

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        chosen = rng.integers(0, len(self.latents), batch)
        return dict(latents=self.latents[chosen].float(), told=torch.from_numpy(self.told[chosen]).float())

    def forward(self, batch: dict) -> torch.Tensor:
        latents = batch["latents"]
        return (self.reader(latents + haze(latents)) - batch["told"]).square().mean()

    def validate(self) -> dict[str, float]:
        """Correlations of what is read with what was told, on identities never trained on."""
        device = next(self.reader.parameters()).device
        read = torch.cat(
            [self.reader(part.float().to(device)).cpu() for part in self.validation_latents.split(256)]
        ).numpy()
        shown = (
            "jawOpen",
            "eyeBlinkLeft",
            "mouthSmileLeft",
            "mouthFrownLeft",
            "eyeLookOutLeft",
            "browInnerUp",
            *ANGLES,
        )
        return {
            name: correlation(read[:, NAMES.index(name)], self.validation_told[:, NAMES.index(name)])
            for name in shown
        }

    def picture(self) -> Image.Image:
        """What is read (upwards) against what was told (to the right), a square for each of NAMES."""
        device = next(self.reader.parameters()).device
        read = self.reader(self.validation_latents.float().to(device)).cpu().numpy()
        squares = []
        for ours, told in zip(read.T, self.validation_told.T, strict=True):
            square, _, _ = np.histogram2d(-ours, told, bins=48, range=[[-3, 3], [-3, 3]])
            squares.append(255 - np.minimum(255, 60 * square).astype(np.uint8))
        return Image.fromarray(np.vstack([np.hstack(squares[i : i + 9]) for i in range(0, len(squares), 9)]))
