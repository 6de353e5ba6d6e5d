"""A network that reads expression and pose from latents, used as a loss of the adapters.

A smile moves a few pixels and hardly counts in a mean over all latents, so that a short training never learns
it. A small network first learns to predict from latents the coefficients and angles that were rendered. Then
what it reads of the adapters' predictions must agree with what it reads of the true latents. It takes no part
in drawing and is not exported.
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


def rendered_values(frames: Frames) -> np.ndarray:
    """(N, 54): the coefficients and then the angles in degrees that were rendered, in the order of NAMES."""
    return np.concatenate([frames.commanded, frames.angles], axis=1)


def random_noise(latents: torch.Tensor) -> torch.Tensor:
    """Gaussian noise for latents (B, C, h, w), with a random standard deviation up to NOISE for each."""
    return NOISE * torch.rand(len(latents), 1, 1, 1, device=latents.device) * torch.randn_like(latents)


class Reader(nn.Module):
    """Latents (B, C, h, w) of unit spread, sides a multiple of 8 -> (B, 54), each of NAMES in its spreads
    from its mean."""

    def __init__(self, latent_channels: int, side: int, widths: tuple[int, int, int] = (64, 96, 128)) -> None:
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
        """(B,) mean squared difference between the readings of predicted and true latents, (B, C, h, w) both.

        The same noise is added to both, new at every call: a change that fools the reader without it is of no
        use then.
        """
        noise = random_noise(truth)
        return (self(predicted + noise) - self(truth + noise)).square().mean(1)


class ReaderStage(Stage):
    """The error of what is read of noisy latents of frames."""

    name = "reader"

    def __init__(
        self,
        reader: Reader,
        frames: Frames,
        validation: Frames,
        latents: torch.Tensor,
        validation_latents: torch.Tensor,
    ) -> None:
        super().__init__()
        self.reader = reader
        values, validation_values = rendered_values(frames), rendered_values(validation)
        mean, spread = values.mean(0), values.std(0)
        spread[spread < 1e-3] = np.inf  # of what never changes, 0 is to be read
        self.values, self.validation_values = ((v - mean) / spread for v in (values, validation_values))
        self.latents, self.validation_latents = latents, validation_latents

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        chosen = rng.integers(0, len(self.latents), batch)
        values = torch.from_numpy(self.values[chosen]).float()
        return dict(latents=self.latents[chosen].float(), values=values)

    def forward(self, batch: dict) -> torch.Tensor:
        latents = batch["latents"]
        return (self.reader(latents + random_noise(latents)) - batch["values"]).square().mean()

    def validate(self) -> dict[str, float]:
        """Correlations of what is read with what was rendered, on identities never trained on."""
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
            name: correlation(read[:, NAMES.index(name)], self.validation_values[:, NAMES.index(name)])
            for name in shown
        }

    def picture(self) -> Image.Image:
        """What is read (upwards) against what was rendered (to the right), a square for each of NAMES."""
        device = next(self.reader.parameters()).device
        read = self.reader(self.validation_latents.float().to(device)).cpu().numpy()
        squares = []
        for ours, true in zip(read.T, self.validation_values.T, strict=True):
            square, _, _ = np.histogram2d(-ours, true, bins=48, range=[[-3, 3], [-3, 3]])
            squares.append(255 - np.minimum(255, 60 * square).astype(np.uint8))
        return Image.fromarray(np.vstack([np.hstack(squares[i : i + 9]) for i in range(0, len(squares), 9)]))
