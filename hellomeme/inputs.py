"""What the networks are given: the reference, and what the frames are to show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import HelloMemeError
from .models.attention import KeysValues

BLACK = -1.0  # the condition picture of the negative half


@dataclass(frozen=True)
class Reference:
    """A reference picture ready to be driven any number of times.

    latents: (1, C, h, w), scaled. prepared: keys and values by place, of batch 2, [negative, positive].
    Both belong to the weights they were made with: load LoRA first, then set the reference.
    """

    latents: Tensor
    prepared: dict[str, KeysValues]

    def part(self, rows: slice) -> dict[str, KeysValues]:
        """What the denoiser takes for these rows of the batch [negative, positive]."""
        return {place: KeysValues(*(x[rows] for x in kv)) for place, kv in self.prepared.items()}


@dataclass(frozen=True)
class Conditions:
    """What T frames are to show.

    condition: (1, 3, T, H, W) in [-1, 1], the condition pictures.
    drive_coeff: (1, T, 51) in [0, 1], ARKit coefficients, for control nets of that type.
    face_parts: (1, T, 3, 1024), embeddings of eyes and mouth, with `drive_coeff`; zeros if not given.
    emotion: (1, T, 548) from FanEncoder, for control nets of type "pd_fpg".
    negative_emotion: (1, 1 or T, 548), for the negative half of guidance; needed with `emotion` then.
    """

    condition: Tensor
    drive_coeff: Tensor | None = None
    face_parts: Tensor | None = None
    emotion: Tensor | None = None
    negative_emotion: Tensor | None = None

    def inputs(self, expression_type: str) -> list[tuple[Tensor, Tensor | float | None]] | None:
        """The inputs of a control net, each with its negative; None without an expression of its type."""
        if expression_type == "pd_fpg":
            expression = [(self.emotion, self.negative_emotion)]
        else:
            expression = [(self.drive_coeff, 0.0), (self.face_parts, 0.0)]
        if expression[0][0] is None:
            return None
        return [(self.condition, BLACK), *((x, negative) for x, negative in expression if x is not None)]


def with_negative(positive: Tensor, negative: Tensor | float | None, use_guidance: bool) -> Tensor:
    """The batch [negative, positive], or the positive alone without guidance."""
    if not use_guidance:
        return positive
    if negative is None:
        raise HelloMemeError(
            "Guidance over an emotion code needs negative_emotion: pass that of a black picture."
        )
    negative = torch.as_tensor(negative).to(positive).expand_as(positive)
    return torch.cat([negative, positive])
