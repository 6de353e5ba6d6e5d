"""Stage 3a, for a base that was trained for minutes: base and adapters are trained together.

A well trained base, such as the paper's Stable Diffusion, does not need this. The features of ours say too
little about a face for the attentions to work with. So both are trained together for a while. A share of each
batch is captions without the adapters, so that the base stays a text-to-image model. Afterwards the stage
`adapters` freezes it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training.stages.adapters import TARGETS, AdapterStage
from training.stages.base import BaseStage


class TogetherStage(AdapterStage):
    """The loss of the adapters, with gradients into the UNet from both of its passes, and the loss of the
    base."""

    name = "together"

    def __init__(self, base: BaseStage, *adapter_parts, captions: float = 1 / 8, **more) -> None:
        """captions: captioned frames for each target of the adapters. The rest as for `AdapterStage`."""
        super().__init__(base.unet, *adapter_parts, **more)
        self.base, self.captions = base, captions
        base.text_encoder.requires_grad_(False)  # its empty prompt is what the adapters are trained with
        base.unet.requires_grad_(True)

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        drawn = super().draw(rng, batch)
        count = max(1, round(self.captions * batch * TARGETS))
        return drawn | {f"captioned_{name}": value for name, value in self.base.draw(rng, count).items()}

    def forward(self, batch: dict) -> torch.Tensor:
        captioned = {k.removeprefix("captioned_"): v for k, v in batch.items() if k.startswith("captioned_")}
        return super().forward(batch) + self.captions * self.base(captioned)

    def features(self, reference: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.reference_net(reference, self.empty_text.expand(len(reference), -1, -1))


def hand_over(work: Path) -> None:
    """Make the result of this stage that of `base`, and the start of `adapters`, in the work folder."""
    result, base = (
        load_file(work / "together" / "averaged.safetensors"),
        load_file(work / "base" / "averaged.safetensors"),
    )
    unet = "reference_net.unet."  # what this stage calls the base's UNet
    learnt = {"base": base, "adapters": {}}
    for name, tensor in result.items():
        if name.startswith(unet):
            base["unet." + name.removeprefix(unet)] = tensor
        else:
            learnt["adapters"][name] = tensor
    for stage, tensors in learnt.items():
        (work / stage).mkdir(exist_ok=True)
        # What came before does not go on from here
        (work / stage / "last.safetensors").unlink(missing_ok=True)
        save_file(tensors, work / stage / "averaged.safetensors")
