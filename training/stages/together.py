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

from hellomeme.models.unet import adapted_unet_forward
from training.stages.adapters import TARGETS, AdapterStage
from training.stages.base import BaseStage
from training.stages.coordinates import HeadCoordinates, head_places
from training.stages.sketches import Sketches

SKETCH_WEIGHT = 0.5  # of the error in what the up blocks tell of the picture
PLACES_WEIGHT = 0.2  # of the error in where on the head a position lies
TOLD_BY_CONTROL = ("up_1", "up_2", "up_3")  # places where the target's features can know


class TogetherStage(AdapterStage):
    """The loss of the adapters, with gradients into the UNet from both of its passes, and the loss of the
    base."""

    name = "together"
    helpers = ("coordinates.", "sketches.")

    def __init__(self, base: BaseStage, *adapter_parts, captions: float = 1 / 8, **more) -> None:
        """captions: captioned frames for each target of the adapters. The rest as for `AdapterStage`."""
        super().__init__(base.unet, *adapter_parts, **more)
        channels = base.unet.config.block_out_channels
        last = len(channels) - 1
        widths = {f"down_{i}": width for i, width in enumerate(channels)} | {"mid": channels[-1]}
        widths |= {f"up_{i}": channels[min(last, last - i + 1)] for i in range(last + 1)}
        self.coordinates = HeadCoordinates(widths)
        ups = {place: width for place, width in widths.items() if place.startswith("up")}
        self.sketches = Sketches(ups, base.unet.config.in_channels)
        self.base, self.captions = base, captions
        base.text_encoder.requires_grad_(False)  # its empty prompt is what the adapters are trained with
        base.unet.requires_grad_(True)

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        drawn = super().draw(rng, batch)
        count = max(1, round(self.captions * batch * TARGETS))
        return drawn | {f"captioned_{name}": value for name, value in self.base.draw(rng, count).items()}

    def described(self, references: np.ndarray, targets: np.ndarray) -> dict[str, torch.Tensor]:
        return dict(
            reference_places=head_places(self.frames, references), places=head_places(self.frames, targets)
        )

    def forward(self, batch: dict) -> torch.Tensor:
        captioned = {k.removeprefix("captioned_"): v for k, v in batch.items() if k.startswith("captioned_")}
        reenacted = super().forward(batch)
        truth = batch["latents"].transpose(1, 2).flatten(0, 1)
        sketched = self.sketches(self.target_features, truth).mean()
        lost = self.coordinates(self.reference_features, batch["reference_places"])
        shown = {place: self.target_features[place] for place in TOLD_BY_CONTROL}
        lost = lost + self.coordinates(shown, batch["places"].flatten(0, 1)).view(len(lost), -1).mean(1)
        lost = (lost * batch["keep"]).mean()  # where the conditions were dropped, nothing tells the place
        asked = SKETCH_WEIGHT * sketched + PLACES_WEIGHT * lost
        return reenacted + self.captions * self.base(captioned) + asked

    def features(self, reference: torch.Tensor, own: dict | None = None) -> dict[str, torch.Tensor]:
        self.reference_features = super().features(reference, own)
        return self.reference_features

    def predict(
        self, noisy: torch.Tensor, timesteps: torch.Tensor | int, prepared: dict, control: dict
    ) -> torch.Tensor:
        text = self.empty_text.expand(len(noisy), -1, -1)
        net = self.denoising_net
        output = adapted_unet_forward(
            net.unet, noisy, timesteps, text, net.reference_adapter, prepared, control
        )
        self.target_features = output.features
        return output.prediction


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
        elif not name.startswith(TogetherStage.helpers):
            learnt["adapters"][name] = tensor
    for stage, tensors in learnt.items():
        (work / stage).mkdir(exist_ok=True)
        # What came before does not go on from here
        (work / stage / "last.safetensors").unlink(missing_ok=True)
        save_file(tensors, work / stage / "averaged.safetensors")
