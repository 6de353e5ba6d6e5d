"""Loads LoRA files into a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import Progress, as_path, fetch
from .weights import check_values, check_weights, reason

if TYPE_CHECKING:
    from ..pipeline import HelloMemePipeline

MAX_LORA_SCALE = 10


def load_loras(
    pipeline: HelloMemePipeline,
    sources: Sequence[str | Path | tuple[str | Path, float]],
    progress: Progress | None = None,
) -> None:
    """Loads LoRA files, folders or hub ids, or pairs of one and its scale (1), with diffusers' own loader."""
    names, scales = [], []
    for source in sources:
        source, scale = source if isinstance(source, (tuple, list)) and len(source) == 2 else (source, 1.0)
        if not isinstance(scale, (int, float)) or not -MAX_LORA_SCALE <= scale <= MAX_LORA_SCALE:
            raise HelloMemeError(
                f"The scale of a LoRA must be a number from -{MAX_LORA_SCALE} to {MAX_LORA_SCALE}."
            )
        path = as_path(source)
        if not os.path.isfile(path):
            folder = fetch(str(source), ("*.safetensors",), progress)
            files = sorted(folder.glob("*.safetensors"))
            if len(files) != 1:
                raise HelloMemeError(
                    f"{source} holds {len(files)} .safetensors files: name the one LoRA file to use."
                )
            path = files[0]
        check_weights(path)
        check_values(path)
        name = f"lora_{len(names)}"
        try:
            pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, use_safetensors=True, adapter_name=name
            )
            fits = any(name in adapters for adapters in pipeline.get_list_adapters().values())
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise HelloMemeError(f"{path.name} is not a LoRA for this base model: {reason(error)}") from error
        if not fits:
            raise HelloMemeError(
                f"{path.name} is not a LoRA for this base model: none of its tensors belongs to it."
            )
        names.append(name)
        scales.append(scale)
    if names:
        pipeline.set_adapters(names, scales)
