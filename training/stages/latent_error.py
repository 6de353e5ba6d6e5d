"""How wrong predicted latents are, so that what is fine counts beside what is large."""

from __future__ import annotations

import torch
from torch import nn

WHITENED = 0.75  # 0: channels count by their variance, 1: all alike
SAMPLED = 1000  # frames of which the covariance is taken


class LatentError(nn.Module):
    """Half squared, half absolute differences along the principal axes of the latents' channels.

    Three of the demo's eight axes have an eighth of the others' mean variance. Outlines and the texture of
    hair are told by them: in the plain error they hardly count, and were not learnt.
    """

    def __init__(self, latents: torch.Tensor) -> None:
        """latents: (N, C, h, w) of the frames of training."""
        super().__init__()
        some = latents[:: max(1, len(latents) // SAMPLED)].float()
        variances, axes = torch.linalg.eigh(torch.cov(some.transpose(0, 1).flatten(1)))
        scale = variances.clamp(min=1e-6 * variances.max()) ** (-WHITENED / 2)
        scale = scale / scale.square().mean().sqrt()
        self.register_buffer("axes", axes * scale, persistent=False)  # (C, C), one axis a column

    def forward(self, predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """(B, C, ...) each -> errors along each axis, (B, C, ...)."""
        with torch.autocast(predicted.device.type, enabled=False):  # which would round the differences
            difference = ((predicted - truth).float().transpose(1, -1) @ self.axes).transpose(1, -1)
        # Squares alone are least where what is uncertain is blurred: outlines, and the texture of hair
        return (difference.square() + difference.abs()) / 2
