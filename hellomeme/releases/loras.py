"""Loads, exchanges and unloads the LoRA of a pipeline, in place, with the loaders of diffusers.

LoRA layers are added beside the weights, which do not change: without them the base model is as it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from ..models.lora_layers import activate, adapters, reactivate, remove
from .base_model import TEXT_WIDTH_OF
from .hub import Progress
from .one_file import find_file
from .styles import LORAS, Lora
from .tensors import check_values
from .weights import reason

if TYPE_CHECKING:
    from torch import nn

    from ..pipeline import HelloMemePipeline

LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError, AttributeError)
# Ends of the tensors that take the text states, in the layouts of diffusers, PEFT and kohya's scripts
TEXT_INPUTS = ("attn2.to_k.lora.down.weight", "attn2.to_k.lora_A.weight", "attn2_to_k.lora_down.weight")


def load_loras(
    pipeline: HelloMemePipeline,
    sources: Sequence[str | Path | tuple[str | Path, float] | Lora],
    progress: Progress | None = None,
) -> None:
    """Makes these the pipeline's LoRA, each with its strength; those that are not among them are removed.

    Each goes into the UNets and text encoders that draw and that see the reference. Unlike in the released
    code, where the UNet takes LoRA at full strength only, the strength holds for both.
    sources: what `Lora.of` takes. Raises HelloMemeError for one that is missing, damaged or made for another
    kind of model; the pipeline is then as before.
    """
    strengths: dict[str, float] = {}
    files: dict[str, Path] = {}
    for lora in map(Lora.of, sources):
        path = find_lora(lora.source, progress)
        name = _adapter_name(path)
        strengths[name], files[name] = strengths.get(name, 0.0) + lora.strength, path
    networks = _networks(pipeline)
    added = [name for name in files if not any(name in adapters(net) for net in networks)]
    try:
        for name in added:
            _load(pipeline, files[name], name)
    except BaseException:
        for net in networks:
            remove(net, added)
            reactivate(net)
        raise
    for net in networks:
        remove(net, [name for name in adapters(net) if name not in strengths])
        activate(net, strengths)


def find_lora(source: str | Path, progress: Progress | None = None) -> Path:
    """The file of a LoRA, checked to be safetensors. source: as for `Lora`."""
    return find_file(LORAS.get(str(source), source), progress, "LoRA file")


def _adapter_name(path: Path) -> str:
    """A name for the content of a file: another file, or a new version of it, gets another."""
    facts = path.stat()
    key = f"{os.path.realpath(path)} {facts.st_size} {facts.st_mtime_ns}"
    return f"lora_{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _networks(pipeline: HelloMemePipeline) -> list[nn.Module]:
    return [net for pair in _pairs(pipeline) for net in pair if net is not None]


def _pairs(pipeline: HelloMemePipeline) -> list[tuple]:
    """(UNet, text encoder): those that draw, and those that see the reference where these are others."""
    seeing = None if pipeline.reference_unet is pipeline.unet else pipeline.reference_unet
    return [(pipeline.unet, pipeline.text_encoder), (seeing, pipeline.reference_text_encoder)]


def _load(pipeline: HelloMemePipeline, path: Path, name: str) -> None:
    """Adds the layers of a file to all networks, not yet active. HelloMemeError if none fits."""
    import torch

    _check_kind(path, pipeline.unet.config.cross_attention_dim)
    check_values(path)
    try:
        tensors, alphas, metadata = pipeline.lora_state_dict(
            str(path.parent), weight_name=path.name, use_safetensors=True, return_lora_metadata=True
        )
        if not all("lora" in key for key in tensors):
            raise ValueError("it holds other tensors than those of a LoRA")
        options = {"network_alphas": alphas, "adapter_name": name, "metadata": metadata}
        options["low_cpu_mem_usage"] = True  # no random numbers first
        kinds = {key.partition(".")[0] for key in tensors}
        for unet, text_encoder in _pairs(pipeline):
            if unet is not None and "unet" in kinds:
                pipeline.load_lora_into_unet(tensors, unet=unet, **options)
            if text_encoder is not None and "text_encoder" in kinds:
                pipeline.load_lora_into_text_encoder(tensors, text_encoder=text_encoder, **options)
    except torch.OutOfMemoryError:
        raise
    except LOADING_ERRORS as error:
        raise HelloMemeError(f"{path.name} is not a LoRA for this base model: {reason(error)}") from error
    if not any(name in adapters(net) for net in _networks(pipeline)):
        raise HelloMemeError(
            f"{path.name} is not a LoRA for this base model: none of its tensors belongs to it."
        )


def _check_kind(path: Path, text_width: int) -> None:
    """Refuses a LoRA for a base model with another text encoder, before anything is loaded."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        shapes = (file.get_slice(key).get_shape() for key in file.keys() if key.endswith(TEXT_INPUTS))
        width = next((shape[1] for shape in shapes if len(shape) > 1), text_width)
    if width != text_width:
        kind = TEXT_WIDTH_OF.get(width, "another kind of model")
        raise HelloMemeError(
            f"{path.name} is a LoRA for {kind} (its text is {width} wide, not {text_width}): "
            "choose one for this base model."
        )
