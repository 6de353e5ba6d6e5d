"""Reads networks from folders and files: all weights of all models are loaded here.

Only safetensors are opened. What is missing, damaged, pickled or of another kind of model raises
`HelloMemeError` with one sentence.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import (
    BASE_FILES,
    CONFIG_FILES,
    HALF_BASE_FILES,
    HALF_WEIGHTS,
    WEIGHTS,
    Progress,
    as_path,
    download_again,
    fetch,
)

if TYPE_CHECKING:
    import torch
    from diffusers import SchedulerMixin

    from ..pipeline import HelloMemePipeline

PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
MAX_LORA_SCALE = 10
MAX_CONFIG_VALUE = 1 << 16  # for any number in a config.json; the largest real one is vocab_size, 49,408
MIN_VOCABULARY = 100  # for a tokenizer; a real one has more than the 256 byte tokens
TEXT_WIDTH_OF = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}


def check_weights(path: Path) -> None:
    """Refuse, with a sentence, a file that is not safetensors from beginning to end."""
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() in PICKLES:
        raise HelloMemeError(
            f"{path.name} is a pickle, which can run code when opened: use its .safetensors version."
        )
    try:
        start = path.open("rb").read(4)
        if start[:1] == b"\x80" or start[:2] == b"PK":
            raise HelloMemeError(
                f"{path.name} is a pickle under a safetensors name and was not opened: "
                "get it from its author again."
            )
        with safe_open(path, "np"):
            pass
    except (OSError, SafetensorError) as error:
        raise HelloMemeError(
            f"The weights {path} are damaged or incomplete: {download_again(path, 'them')}."
        ) from error


def _check_values(path: Path) -> None:
    """Refuse weights that are NaN or infinite: pictures would come out black."""
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if not all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys()):
            raise HelloMemeError(
                f"{path.name} holds values that are not numbers: get it from its author again."
            )


def read_config(folder: Path, name: str = "config.json") -> dict:
    """The JSON of a model folder."""
    path = folder / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
        return config
    except FileNotFoundError as error:
        why = f"The model folder {folder} has no {name}: download it again, or check the path."
        raise HelloMemeError(why) from error
    except (OSError, ValueError, RecursionError) as error:
        raise HelloMemeError(f"{path} is damaged: {download_again(path)}.") from error


def load_module(kind: type, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A network of class `kind` (of diffusers, transformers or ours), for inference, from its folder.

    Every tensor of the network must be in the file, and files of our own networks must have no extra tensors:
    a wrong class or version would otherwise pass unnoticed as random weights.
    """
    _check_sizes(folder)
    found = [folder / name for name in WEIGHTS + HALF_WEIGHTS if (folder / name).is_file()]
    if not found:
        pickled = any(path.suffix in PICKLES for path in folder.iterdir())
        why = "only pickled weights, which are never opened" if pickled else f"no {WEIGHTS[0]}"
        raise HelloMemeError(f"The model folder {folder} has {why}: get it with safetensors weights.")
    check_weights(found[0])
    try:
        network, report = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            variant="fp16" if found[0].name in HALF_WEIGHTS else None,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # what a config.json asks for can go wrong in any way
        why = f"The weights in {folder} do not fit its config.json for {kind.__name__}: {_reason(error)}"
        raise HelloMemeError(why) from error
    ours = kind.__module__.split(".")[0] == __package__.split(".")[0]
    wrong = [
        *report["missing_keys"],
        *report.get("mismatched_keys", ()),
        *(report["unexpected_keys"] if ours else ()),
    ]
    numbers = [
        name
        for name, fact in inspect.signature(kind).parameters.items()
        if ours and type(fact.default) in (int, float)
    ]
    for name in numbers:
        if not _is_positive(value := network.config[name]):
            config = folder / "config.json"
            raise HelloMemeError(
                f"{config} is damaged, it asks for {name} {value}: {download_again(config)}."
            )
    if wrong:
        raise HelloMemeError(
            f"The weights in {folder} are not those of {kind.__name__}: {len(wrong)} tensors differ, "
            f"{wrong[0]} is one."
        )
    return network.eval().requires_grad_(False)


def _check_sizes(folder: Path) -> None:
    """Refuse a config.json that asks for networks of absurd size, before memory is taken for them."""
    for name, value in read_config(folder).items():
        numbers = value if isinstance(value, list) else [value]
        if any(type(number) in (int, float) and number > MAX_CONFIG_VALUE for number in numbers):
            raise HelloMemeError(
                f"{folder / 'config.json'} is damaged, its {name} is too large: "
                f"{download_again(folder / 'config.json')}."
            )


def _is_positive(value) -> bool:
    return type(value) in (int, float) and value > 0


def load_base(
    source: str,
    dtype: torch.dtype,
    configs: str,
    widths: list[int],
    text_width: int | None,
    progress: Progress | None = None,
) -> dict:
    """The parts of a base model: vae, text_encoder, tokenizer, unet, scheduler.

    Args:
        source: a diffusers folder, a hub id, or a single .safetensors file.
        configs: folder or hub id whose configuration a single file takes.
        widths: the block widths that the reference adapter needs; checked before the base is loaded.
        text_width: the width of text states the release was trained with (768 for SD1.5); None allows any.
        progress: called during downloads, see `hub.fetch`.
    """
    path = as_path(source)
    if os.path.isfile(path) or path.suffix.lower() in (".safetensors", *PICKLES):
        return _load_single_file(path, dtype, fetch(configs, CONFIG_FILES, progress), text_width)

    from transformers import CLIPTextModel, CLIPTokenizer

    folder = fetch(source, BASE_FILES, progress)
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not (folder / part).is_dir():
            raise HelloMemeError(f"{source} is not a complete diffusers model: it has no folder {part}.")
    if not any((folder / "unet" / name).exists() for name in WEIGHTS):
        fetch(source, HALF_BASE_FILES, progress)
    unet, vae = read_config(folder / "unet"), read_config(folder / "vae")
    latent_channels = vae.get("latent_channels", 4)
    _check_kind(source, unet.get("cross_attention_dim"), unet.get("in_channels"), text_width, latent_channels)
    if list(unet.get("block_out_channels", ())) != list(widths):
        raise HelloMemeError(
            f"{source} does not fit this release: its UNet has widths {unet.get('block_out_channels')}, "
            f"not {widths}; "
            "choose a model derived from the release's own base."
        )
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        if len(tokenizer) < MIN_VOCABULARY:  # without its files it is made all the same, but knows no words
            raise ValueError("no words")
    except Exception as error:
        raise HelloMemeError(
            f"The tokenizer of {source} cannot be read: download the model again."
        ) from error
    return {
        "unet": load_module(_unet(), folder / "unet", dtype),
        "vae": load_module(_autoencoder(vae, source), folder / "vae", dtype),
        "text_encoder": load_module(CLIPTextModel, folder / "text_encoder", dtype),
        "tokenizer": tokenizer,
        "scheduler": load_scheduler(folder / "scheduler"),
    }


def load_scheduler(folder: Path) -> SchedulerMixin:
    """The scheduler that a folder's scheduler_config.json names, with its settings."""
    import diffusers

    config = read_config(folder, "scheduler_config.json")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise HelloMemeError(f"{folder} names no scheduler of diffusers: {config.get('_class_name')}.")
    try:
        return kind.from_config(config)
    except Exception as error:
        why = f"The scheduler_config.json in {folder} does not fit {kind.__name__}: {_reason(error)}"
        raise HelloMemeError(why) from error


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
        _check_values(path)
        name = f"lora_{len(names)}"
        try:
            pipeline.load_lora_weights(
                str(path.parent), weight_name=path.name, use_safetensors=True, adapter_name=name
            )
            fits = any(name in adapters for adapters in pipeline.get_list_adapters().values())
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError, AttributeError) as error:
            raise HelloMemeError(
                f"{path.name} is not a LoRA for this base model: {_reason(error)}"
            ) from error
        if not fits:
            raise HelloMemeError(
                f"{path.name} is not a LoRA for this base model: none of its tensors belongs to it."
            )
        names.append(name)
        scales.append(scale)
    if names:
        pipeline.set_adapters(names, scales)


def _load_single_file(path: Path, dtype, configs: Path, text_width: int | None) -> dict:
    from diffusers import StableDiffusionPipeline
    from safetensors import safe_open

    if not path.is_file():
        raise HelloMemeError(f"There is no file {path}: check the path.")
    if path.suffix.lower() != ".safetensors":
        check_weights(path)
        raise HelloMemeError(
            f"{path.name} is not a model: give a .safetensors file, a diffusers folder or a hub id."
        )
    check_weights(path)
    with safe_open(path, "np") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
    unet = "model.diffusion_model."
    text = next(
        (s[1] for k, s in shapes.items() if k.startswith(unet) and k.endswith("attn2.to_k.weight")), None
    )
    if text is None:
        raise HelloMemeError(f"{path.name} is not a Stable Diffusion model: it holds no UNet.")
    latent_channels = shapes.get("first_stage_model.post_quant_conv.weight", [4])[0]
    _check_kind(
        path.name, text, shapes.get(f"{unet}input_blocks.0.0.weight", [0, 0])[1], text_width, latent_channels
    )
    try:
        base = StableDiffusionPipeline.from_single_file(
            path, config=str(configs), torch_dtype=dtype, safety_checker=None, feature_extractor=None
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise HelloMemeError(
            f"{path.name} cannot be read as a Stable Diffusion 1.5 model: {_reason(error)}"
        ) from error
    parts = {name: getattr(base, name) for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    for name in ("unet", "vae", "text_encoder"):
        parts[name].eval().requires_grad_(False)
    return parts


def _check_kind(
    source: str,
    found_text_width: int | None,
    channels: int | None,
    expected_text_width: int | None,
    latent_channels: int,
) -> None:
    if expected_text_width is not None and found_text_width != expected_text_width:
        kind = TEXT_WIDTH_OF.get(found_text_width, "another kind of model")
        raise HelloMemeError(
            f"{source} is {kind} (its text is {found_text_width} wide, not {expected_text_width}): "
            "choose a model derived from Stable Diffusion 1.5."
        )
    if channels != latent_channels:
        raise HelloMemeError(
            f"{source} takes {channels} channels instead of {latent_channels} (an inpainting model?): "
            "choose a plain text-to-image model derived from Stable Diffusion 1.5."
        )


def _unet() -> type:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel


def _autoencoder(config: dict, source: str) -> type:
    from diffusers import AutoencoderKL

    from ..models.autoencoder import PatchAutoencoder

    kinds = {kind.__name__: kind for kind in (AutoencoderKL, PatchAutoencoder)}
    if config.get("_class_name") not in kinds:
        raise HelloMemeError(f"{source} has an autoencoder of an unknown kind: {config.get('_class_name')}.")
    return kinds[config["_class_name"]]


def _reason(error: Exception) -> str:
    """The first line of a library's message, as the end of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".") + "."
