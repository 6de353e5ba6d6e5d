"""Base models and autoencoders in one .safetensors file, named as in the first code of Stable Diffusion.

diffusers knows those names. It is given stand-ins, which take no memory, in place of the tensors: what it has
made of them tells which tensor belongs where, and the tensors themselves are then read into their place.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .tensors import check_weights, facts_of
from .weights import empty, fill, matched, other_shape, read_config, report_left_over

if TYPE_CHECKING:
    import torch

# Part -> how the names of its tensors begin in a file of several parts
PREFIXES = {
    "unet": ("model.diffusion_model.", "diffusion_model.", "unet."),
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": ("cond_stage_model.transformer.", "text_encoder."),
}
# Part -> a tensor by which a file of this part alone is known, in the first code's and diffusers' names
SIGNS = {"unet": ("input_blocks.0.0.weight", "conv_in.weight"), "vae": ("encoder.conv_in.weight",)}
TITLES = {"unet": "UNet", "vae": "autoencoder", "text_encoder": "text encoder"}


class SingleFile:
    """A file that holds the unet, vae and text_encoder of a base model, or some of these parts.

    names: part -> its tensors, by their names without the prefix of the part, and as they are in the file.
    """

    def __init__(self, path: Path):
        """Raises HelloMemeError where there is no such file, or it is not safetensors."""
        if not os.path.isfile(path):
            raise HelloMemeError(f"There is no file {path}: check the path.")
        check_weights(path)
        if path.suffix.lower() != ".safetensors":
            raise HelloMemeError(
                f"{path.name} is not a model: give a .safetensors file, a diffusers folder or a hub id."
            )
        self.path, self.facts = path, facts_of(path)
        self.names = {part: found for part in PREFIXES if (found := self._names_of(part))}

    def _names_of(self, part: str) -> dict[str, str]:
        for prefix in PREFIXES[part]:
            if found := {name.removeprefix(prefix): name for name in self.facts if name.startswith(prefix)}:
                return found
        alone = any(sign in self.facts for sign in SIGNS.get(part, ()))
        return {name: name for name in self.facts} if alone else {}

    def side(self, part: str, ends: tuple[str, ...], axis: int) -> int | None:
        """The size of the first tensor whose name ends so, along an axis; None without one."""
        found = (
            self.facts[name].shape for short, name in self.names.get(part, {}).items() if short.endswith(ends)
        )
        return next((shape[axis] for shape in found if len(shape) > axis), None)

    def read(self, part: str, kind: type, config: Path, dtype: torch.dtype) -> torch.nn.Module:
        """A part, as a network of class `kind` with the configuration in a folder.

        Raises HelloMemeError where tensors are missing or of another shape, and for values that are not
        numbers.
        """
        names, title = self.names[part], TITLES[part]
        network = empty(kind, config)
        places = self._places(part, read_config(config))
        sources, missing, left = matched(network, places)
        if missing:
            raise HelloMemeError(
                f"{self.path.name} lacks {len(missing)} of the {len(network.state_dict())} tensors of its "
                f"{title}, {missing[0]} is one: get it from its author again, or choose another."
            )
        left = [*(places[place] for place in left), *(name for name in names if name not in places.values())]
        sources = {place: names[places[source]] for place, source in sources.items()}
        if other := other_shape(network, self.facts, sources):
            raise HelloMemeError(
                f"{self.path.name} has another {title} than this release's base model: {other}; choose a "
                "model derived from that one."
            )
        report_left_over(self.path, kind, [names[name] for name in left])
        return fill(network, self.path, sources, dtype)

    def _places(self, part: str, config: Mapping) -> dict[str, str]:
        """The name that diffusers has for a tensor of a part -> its name without the prefix."""
        import torch
        from diffusers.loaders.single_file_utils import (
            convert_ldm_unet_checkpoint,
            convert_ldm_vae_checkpoint,
        )

        names = list(self.names[part])
        if (
            part == "text_encoder"
            or "conv_in.weight" in names
            or any(".down_blocks." in name for name in names)
        ):
            return {name: name for name in names}
        numbers = torch.arange(len(names))
        # Each is one number, seen from everywhere in a tensor of the right shape
        stand_ins = {
            PREFIXES[part][0] + name: number.expand(self.facts[self.names[part][name]].shape)
            for name, number in zip(names, numbers, strict=True)
        }
        convert = {"unet": convert_ldm_unet_checkpoint, "vae": convert_ldm_vae_checkpoint}[part]
        try:
            converted = convert(stand_ins, config=dict(config))
        except KeyError as error:
            raise HelloMemeError(
                f"{self.path.name} lacks {error.args[0]} of its {TITLES[part]}: get it from its author "
                "again, or choose another."
            ) from error
        return {place: names[int(one.flatten()[0])] for place, one in converted.items() if one.numel()}
