"""Deep feature maps of the UNet, made at some steps and reused at the others (DeepCache, arXiv 2312.00858).

From step to step the maps deep in the UNet change little, while its first and last layer carry the detail. So
all of it runs at every n-th call only, and the input of the last layer is kept. At the other calls that layer
runs alone, on what was kept and on the new first skip connection. Reference, control maps and motion modules
of the adapters act before that layer: they are part of what is kept.
"""

import torch
from torch import Tensor, nn


class DeepFeatures:
    """What one run keeps from call to call. every: all of the UNet runs at the calls 0, every, 2 every .."""

    def __init__(self, every: int):
        self.every, self.calls = every, 0
        self.kept: Tensor | None = None  # (B*T, C, h, w)

    @property
    def is_due(self) -> bool:
        """Whether all of the UNet runs at the next call."""
        return self.kept is None or self.calls % self.every == 0

    def reused(self, rows: int) -> Tensor | None:
        """Counts a call. The kept map of its `rows` (B*T), or None where all of the UNet must run.

        Where guidance has ended since, these are the positive half, which is the second.
        """
        due = self.is_due
        self.calls += 1
        return None if due else self.kept[-rows:]

    def run_last_block(
        self, block: nn.Module, text: Tensor, frames: int, x: Tensor, skips: list[Tensor], temb: Tensor
    ) -> Tensor:
        """The last up block of the UNet, as its own forward; keeps the input of its last layer."""
        last = len(block.resnets) - 1
        for i in range(last):
            x = run_layer(block, i, text, frames, x, skips[-1 - i], temb)
        self.kept = x
        return run_layer(block, last, text, frames, x, skips[0], temb)


def run_layer(
    block: nn.Module, i: int, text: Tensor, frames: int, x: Tensor, skip: Tensor, temb: Tensor
) -> Tensor:
    """Layer `i` of an up block: map (B*T, C, h, w) and its skip connection -> (B*T, C, h, w).

    text: (B*T, N, D). frames: T, for the motion modules of a UNetMotionModel. temb: (B*T, D).
    """
    x = block.resnets[i](torch.cat([x, skip], dim=1), temb)
    if getattr(block, "has_cross_attention", False):
        x = block.attentions[i](x, encoder_hidden_states=text, return_dict=False)[0]
    if hasattr(block, "motion_modules"):
        x = block.motion_modules[i](x, num_frames=frames)
    return x
