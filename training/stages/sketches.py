"""Deep supervision: what the decoder half of the UNet knows of the picture before its last block.

Without it, a short training uses the reference in one place alone, before the last block, where nearly every
position can copy a colour from nearby: without any other reference attention the error was the same to 1 %.
What takes more than one block, such as the shape of hair, is never learnt. So the target's features at each
up block are asked for the picture itself, as finely as they can tell it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn


class Sketches(nn.Module):
    """One linear map for each place, from its features to the latents of the picture."""

    def __init__(self, widths: Mapping[str, int], latent_channels: int) -> None:
        """widths: place -> channels of its feature map."""
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                place: nn.Sequential(nn.LayerNorm(n), nn.Linear(n, 4 * latent_channels))
                for place, n in widths.items()
            }
        )

    def forward(self, features: Mapping[str, torch.Tensor], latents: torch.Tensor) -> torch.Tensor:
        """Feature maps, place -> (N, D, s, s), of frames with clean latents (N, C, h, h) -> (N,) errors.

        A map of s x s positions is asked for the latents at twice its side, or at their own if that is less.
        """
        errors = []
        for place, head in self.heads.items():
            x = features[place]
            told = F.pixel_shuffle(head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).float(), 2)
            side = min(told.shape[-1], latents.shape[-1])
            difference = F.adaptive_avg_pool2d(told, side) - F.adaptive_avg_pool2d(latents, side)
            errors.append(difference.square().mean((1, 2, 3)))
        return torch.stack(errors).mean(0)
