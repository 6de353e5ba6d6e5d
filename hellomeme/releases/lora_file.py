"""What a LoRA file says of itself: its kind, the model it was made for, and the layers that it changes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .base_model import TEXT_WIDTH_OF
from .tensors import facts_of, metadata_of, read

if TYPE_CHECKING:
    from torch import Tensor, nn

# What follows the name of a layer in the layouts of kohya's scripts, PEFT and diffusers -> by our names
PLAIN = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_magnitude_vector": "norms",
    "lora_magnitude_vector.weight": "norms",
    "alpha": "alpha",
}
OTHERS = {"dora_scale": "dora_scale", "lora_mid.weight": "mid"}
OTHERS |= {name: name for name in ("diff", "diff_b", "w_norm", "b_norm", "on_input", "weight")}
OTHERS |= {f"hada_{name}": f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
OTHERS |= {f"lokr_{name}": f"lokr_{name}" for name in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")}
ENDS = sorted([*PLAIN, *OTHERS], key=len, reverse=True)
NOT_READ = {  # marks of kinds that are not read here
    r"\.(oft|boft)_": "OFT",
    r"\.[ab][12]\.weight$": "GLoRA",
    r"\.ia3_l\b": "IA3 of PEFT",
    r"\.vera_lambda_": "VeRA",
}
MADE_FOR = {  # marks of models with other layers than Stable Diffusion 1.5
    r"(double_blocks|single_blocks|single_transformer_blocks)[._]": "Flux",
    r"joint_blocks[._]|^lora_te3_": "Stable Diffusion 3",
    r"^(lora_)?transformer[._]": "a transformer",
    r"^lora_te[12]_|^text_encoder_2\.|^lora_unet_(input_blocks|output_blocks|middle_block)_": (
        "Stable Diffusion XL"
    ),
}
BASES = {  # in metadata: ss_base_model_version of kohya's scripts, modelspec.architecture
    r"^sdxl|^stable-diffusion-xl": "Stable Diffusion XL",
    r"^sd_v2|^stable-diffusion-v2": "Stable Diffusion 2",
    r"^sd3|^stable-diffusion-3": "Stable Diffusion 3",
    r"^flux": "Flux",
}
TEXT_INPUT = re.compile(r"attn2[._]to_k$")  # the layers that take the text states


class LoraFile:
    """layers: name of a layer -> what follows it in the file -> the tensor's name; others: other tensors."""

    def __init__(self, path: Path):
        self.path, self.facts = path, facts_of(path)
        self.layers: dict[str, dict[str, str]] = {}
        self.others: list[str] = []
        for name in self.facts:
            end = next((end for end in ENDS if name.endswith(f".{end}")), None)
            if end is None:
                self.others.append(name)
            else:
                self.layers.setdefault(name.removesuffix(f".{end}"), {})[end] = name
        for layer in [layer for layer, ends in self.layers.items() if set(ends) == {"weight"}]:
            self.others += self.layers.pop(layer).values()  # of no IA3, but in older names, or none of ours

    @property
    def is_plain(self) -> bool:
        """Whether PEFT loads it: there is nothing but products of two matrices, and norms of its own DoRA."""
        return all(end in PLAIN for layer in self.layers.values() for end in layer)

    def check(self, text_width: int) -> None:
        """Refuse, before anything is loaded, what was made for another kind of model, or is of a kind that is
        not read. text_width: of the base model's text states."""
        name, facts = self.path.name, metadata_of(self.path)
        told = [facts.get(key, "").lower() for key in ("ss_base_model_version", "modelspec.architecture")]
        width = next(self._text_widths(), None)
        if width not in (None, text_width):
            kind = TEXT_WIDTH_OF.get(width, "another kind of model")
            why = f"its text is {width} wide, not {text_width}"
        elif kind := _marked(MADE_FOR, self.facts):
            why = "its layers have the names of that"
        elif kind := None if width else _marked(BASES, told):
            why = "its metadata say so"
        else:
            if kind := _marked(NOT_READ, self.facts):
                raise HelloMemeError(
                    f"{name} is of the kind {kind}, which cannot be used here: choose a LoRA, DoRA, LoHa, "
                    "LoKr, IA3 or full difference."
                )
            return
        raise HelloMemeError(f"{name} is a LoRA for {kind} ({why}): choose one for this base model.")

    def _text_widths(self) -> Iterator[int]:
        for layer, ends in self.layers.items():
            shapes = {end: self.facts[name].shape for end, name in ends.items()}
            if not TEXT_INPUT.search(layer):
                continue
            for end, shape in shapes.items():
                if (PLAIN.get(end) == "down" or end in ("hada_w1_b", "diff")) and len(shape) > 1:
                    yield shape[1]
            # The two factors of LoKr, each whole or the second half of a product
            factors = [
                next((shapes[end] for end in (f"lokr_w{i}", f"lokr_w{i}_b") if end in shapes), ())
                for i in (1, 2)
            ]
            if all(len(shape) > 1 for shape in factors):
                yield math.prod(shape[1] for shape in factors)

    def read(self) -> dict[str, Tensor]:
        """All tensors by name; HelloMemeError for values that are not numbers."""
        import torch

        def own(x: torch.Tensor) -> torch.Tensor:
            """A copy: LoRA that are being trained are overwritten. Floats of 8 bits have no arithmetic."""
            small = x.is_floating_point() and x.element_size() == 1
            return x.to(torch.float32 if small else x.dtype, copy=True)

        return {name: own(x) for name, x in read(self.path, self.facts)}

    def changes(self, values: Mapping[str, Tensor]) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
        """Yields (layer, "weight" or "bias", tensors for `lora_formulas.difference`)."""
        for layer, ends in self.layers.items():
            own = {(PLAIN | OTHERS)[end]: values[name] for end, name in ends.items()}
            for end, parameter in (("w_norm", "weight"), ("b_norm", "bias"), ("diff_b", "bias")):
                if end in own:
                    yield layer, parameter, {"diff": own.pop(end)}
            if own:
                yield layer, "weight", own


def _marked(marks: Mapping[str, str], texts: Iterable[str]) -> str | None:
    """What the first mark that is in one of the texts stands for."""
    return next((kind for mark, kind in marks.items() if any(re.search(mark, text) for text in texts)), None)


def layers_of(network: nn.Module, prefixes: tuple[str, ...]) -> dict[str, nn.Module]:
    """The layers of a network by the names that LoRA files have for them: with dots or underscores.

    prefixes: before the names, as "lora_unet_" and "unet.".
    """
    found = {}
    for name, layer in network.named_modules():
        parts = name.split(".")
        if hasattr(layer, "weight") and not {"lora_A", "lora_B", "parametrizations"} & set(parts):
            name = ".".join(part for part in parts if part != "base_layer")
            for prefix in prefixes:
                found[prefix + (name if prefix.endswith(".") else name.replace(".", "_"))] = layer
    return found
