"""A loss that asks feature maps where on the head each of their positions lies.

Reference attentions carry what the reference shows to where the target needs it. For that, the maps on both
sides must tell the place on the head, and a short training hardly finds that out by itself: in a model
trained without this loss, the features told hardly more of it than the position in the picture alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from hellomeme.face.motion import FRAME
from training.dataset import Frames

FREQUENCIES = (0.5, 1.0, 2.0)  # radians per unit of the coordinates: sines a position can be matched by
EDGE = 4.0  # units: beyond it, coordinates are held
CHANNELS = 2 + 4 * len(FREQUENCIES) + 3
ANGLE = 20.0  # degrees that count as much as a unit


def head_places(frames: Frames, chosen: np.ndarray) -> torch.Tensor:
    """(..., 7) of frames by index (...): x, y (px of 512) of the head's origin, cosine and sine of its roll
    divided by half the width of the pose square, and yaw, pitch, roll (degrees)."""
    right = frames.landmarks[chosen][..., 263, :] - frames.landmarks[chosen][..., 33, :]  # from eye to eye
    right = right / np.linalg.norm(right, axis=-1, keepdims=True).clip(min=1e-6)
    places = [
        frames.origin[chosen],
        right / frames.scale[chosen][..., None].clip(min=1),
        frames.angles[chosen],
    ]
    return torch.from_numpy(np.concatenate(places, -1).astype(np.float32))


def encoded(places: torch.Tensor, side: int) -> torch.Tensor:
    """Places (N, 7) -> what is to be read at each position of a map, (N, CHANNELS, side, side)."""
    grid = (torch.arange(side, device=places.device) + 0.5) * FRAME / side
    x, y = grid[None, None, :] - places[:, 0, None, None], grid[None, :, None] - places[:, 1, None, None]
    cosine, sine = places[:, 2, None, None], places[:, 3, None, None]
    uv = torch.stack([cosine * x + sine * y, cosine * y - sine * x], 1).clamp(-EDGE, EDGE)
    waves = [f(k * uv) for k in FREQUENCIES for f in (torch.sin, torch.cos)]
    angles = (places[:, 4:] / ANGLE)[:, :, None, None].expand(-1, -1, side, side)
    return torch.cat([uv / 2, *waves, angles], 1)


class HeadCoordinates(nn.Module):
    """One linear map for each place of the UNet, for reference and target alike, so that both say it in the
    same way."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        """widths: place -> channels of its feature map."""
        super().__init__()
        self.heads = nn.ModuleDict(
            {place: nn.Sequential(nn.LayerNorm(n), nn.Linear(n, CHANNELS)) for place, n in widths.items()}
        )

    def forward(self, features: Mapping[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """Feature maps, place -> (N, C, h, w), of frames with `places` (N, 7) -> (N,) mean squared errors."""
        errors = []
        for place, head in self.heads.items():
            if (x := features.get(place)) is not None:
                read = head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).float()
                errors.append((read - encoded(places, x.shape[-1])).square().mean((1, 2, 3)))
        return torch.stack(errors).mean(0)
