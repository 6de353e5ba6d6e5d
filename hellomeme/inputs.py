"""What the networks are given: the reference, and what the frames are to show."""

from __future__ import annotations

from collections.abc import Sequence
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

    def inputs(self, expression_type: str) -> dict[str, tuple[Tensor, Tensor | float | None]] | None:
        """The arguments of a control net, each with its negative; None without an expression of its type."""
        if expression_type == "pd_fpg":
            expression = {"emo_embedding": (self.emotion, self.negative_emotion)}
        else:
            expression = {"drive_coeff": (self.drive_coeff, 0.0), "face_parts": (self.face_parts, 0.0)}
        given = {name: pair for name, pair in expression.items() if pair[0] is not None}
        if next(iter(expression)) not in given:
            return None
        return {"condition": (self.condition, BLACK)} | given

    def first_inputs(
        self, expression_types: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor | float | None]] | None:
        """The same for the first of these types that is given."""
        found = map(self.inputs, expression_types)
        return next((inputs for inputs in found if inputs is not None), None)


def frames_axis(name: str) -> int:
    """The axis of T in the argument of a control net with this name."""
    return 2 if name == "condition" else 1


def negative_inputs(inputs: dict[str, tuple[Tensor, Tensor | float | None]]) -> dict[str, Tensor]:
    """From `Conditions.inputs`, the arguments of the negative half: of one frame, or of T where one is given
    for each."""
    found = {}
    for name, (positive, negative) in inputs.items():
        if negative is None:
            raise HelloMemeError(
                "Guidance over an emotion code needs negative_emotion: pass that of a black picture."
            )
        one = positive.narrow(frames_axis(name), 0, 1)
        found[name] = negative.to(one) if isinstance(negative, Tensor) else torch.full_like(one, negative)
    frames = max(x.shape[frames_axis(name)] for name, x in found.items())
    sizes = {name: [-1] * x.dim() for name, x in found.items()}
    for name, size in sizes.items():
        size[frames_axis(name)] = frames
    return {name: x.expand(sizes[name]) for name, x in found.items()}
