"""Stands in for the control nets of recorded runs at tiny widths, which the released classes do not allow."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

SIDES = {"down3": (8, 4, 2, 2), "up3": (2, 4, 8, 16)}


class StandInControl(nn.Module):
    """For each key, a convolution of the averaged condition plus a projection of the emotion code."""

    expression_types = ("pd_fpg",)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, weights: Path, scale: float = 1.0):
        super().__init__()
        self.weights, self.scale = load_file(weights / "diffusion_pytorch_model.safetensors"), scale

    def forward(self, condition: torch.Tensor, emo_embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        frames, pictures = condition.shape[2], condition.transpose(1, 2).flatten(0, 1)

        def maps(key: str, side: int) -> torch.Tensor:
            w = self.weights
            x = F.conv2d(
                F.adaptive_avg_pool2d(pictures, side), w[f"conv.{key}.weight"], w[f"conv.{key}.bias"]
            )
            code = F.linear(emo_embedding.flatten(0, 1), w[f"lin.{key}.weight"], w[f"lin.{key}.bias"])
            return self.scale * (x + code[:, :, None, None]).unflatten(0, (-1, frames)).transpose(1, 2)

        return {
            f"{name}_{i}": maps(f"{name}_{i}", side)
            for name, sides in SIDES.items()
            for i, side in enumerate(sides)
        }
