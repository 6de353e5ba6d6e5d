"""Loads, exchanges and unloads the LoRA of a pipeline, in place, with the loaders of diffusers.

LoRA layers are added beside the weights, which do not change: without them the base model is as it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from ..models.lora_layers import activate, adapters, reactivate, remove
from ..models.weight_differences import add_difference, original
from .hub import Progress
from .lora_file import LoraFile, layers_of
from .lora_formulas import difference
from .one_file import find_file
from .styles import LORAS, Lora
from .tensors import metadata_of
from .weights import reason

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..pipeline import HelloMemePipeline

LOADING_ERRORS = (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError, AttributeError)
METADATA = "lora_adapter_metadata"  # what diffusers writes into a file: PEFT's settings
# What may come before the names of the layers of a UNet, and of a text encoder
PREFIXES = (
    ("unet.", "lora_unet_", "lycoris_unet_"),
    (
        "text_encoder.",
        "text_encoder.text_model.",
        "lora_te_",
        "lora_te_text_model_",
        "lycoris_te_text_model_",
    ),
)
log = logging.getLogger(__name__)


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

    file = LoraFile(path)
    file.check(pipeline.unet.config.cross_attention_dim)
    try:
        values = file.read()
        foreign = (_load_layers if file.is_plain else _load_differences)(pipeline, file, values, name)
    except (torch.OutOfMemoryError, HelloMemeError):
        raise
    except LOADING_ERRORS as error:
        raise HelloMemeError(f"{path.name} is not a LoRA for this base model: {reason(error)}") from error
    if not any(name in adapters(net) for net in _networks(pipeline)):
        raise HelloMemeError(
            f"{path.name} is not a LoRA for this base model: none of its tensors belongs to it."
        )
    if foreign:
        log.warning(
            "%s: %d of its %d layers belong to another network and were left out, %s is one.",
            path.name,
            len(foreign),
            len(file.layers) + len(file.others),
            foreign[0],
        )


def _load_layers(
    pipeline: HelloMemePipeline, file: LoraFile, values: dict[str, torch.Tensor], name: str
) -> list[str]:
    """With PEFT, through diffusers. Returns the layers that no network has."""
    known = _layers(pipeline)
    foreign = [layer for layer in file.layers if layer not in known]
    if len(foreign) == len(file.layers):  # names of another kind, which diffusers may know
        foreign, others = [], []
    else:
        others = [tensor for tensor in file.others if "lora" not in tensor]  # an embedding, for example
    left_out = {tensor for layer in foreign for tensor in file.layers[layer].values()} | set(others)
    values = {tensor: value for tensor, value in values.items() if tensor not in left_out}
    tensors, alphas = pipeline.lora_state_dict(values)
    if not all("lora" in key for key in tensors):
        raise ValueError("it holds other tensors than those of a LoRA")
    metadata = json.loads(metadata_of(file.path).get(METADATA, "null"))
    options = {"network_alphas": alphas, "adapter_name": name, "metadata": metadata}
    options["low_cpu_mem_usage"] = True  # no random numbers first
    kinds = {key.partition(".")[0] for key in tensors}
    for unet, text_encoder in _pairs(pipeline):
        if unet is not None and "unet" in kinds:
            pipeline.load_lora_into_unet(tensors, unet=unet, **options)
        if text_encoder is not None and "text_encoder" in kinds:
            pipeline.load_lora_into_text_encoder(tensors, text_encoder=text_encoder, **options)
    return [*foreign, *others]


def _load_differences(
    pipeline: HelloMemePipeline, file: LoraFile, values: dict[str, torch.Tensor], name: str
) -> list[str]:
    """By the formulas, as differences to the weights. Returns the layers that no network has."""
    known = _layers(pipeline)
    for layer, parameter, tensors in file.changes(values):
        for module in known.get(layer, ()):
            try:
                weight = original(module, parameter)
                add_difference(module, parameter, name, difference(tensors, weight))
            except KeyError as error:
                raise ValueError(f"{layer} has no {error.args[0]}") from error
            except (ValueError, RuntimeError, AttributeError) as error:
                raise ValueError(f"{layer} does not fit: {reason(error)}") from error
    return [*(layer for layer in file.layers if layer not in known), *file.others]


def _layers(pipeline: HelloMemePipeline) -> dict[str, list[nn.Module]]:
    """The layers of all networks by the names that files have for them."""
    known: dict[str, list[nn.Module]] = {}
    for pair in _pairs(pipeline):
        for network, prefixes in zip(pair, PREFIXES, strict=True):
            for layer, module in layers_of(network, prefixes).items() if network is not None else ():
                known.setdefault(layer, []).append(module)
    return known
