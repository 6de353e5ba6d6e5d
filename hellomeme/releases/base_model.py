"""Reads base models: Stable Diffusion 1.5 and its derivatives, as a diffusers folder or a single file."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import (
    BASE_FILES,
    CONFIG_FILES,
    HALF_BASE_FILES,
    HALF_WEIGHTS,
    NETWORK_FILES,
    PICKLES,
    WEIGHTS,
    Progress,
    as_path,
    fetch,
)
from .prediction import Prediction
from .single_file import SIGNS, TITLES, SingleFile
from .styles import BASES
from .weights import load_module, load_scheduler, read_config

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from ..models.adapters import ReferenceAdapter

TEXT_ENCODER_FILES = ("text_encoder/config.json", "text_encoder/model.safetensors")
MIN_VOCABULARY = 100  # for a tokenizer; a real one has more than the 256 byte tokens
TEXT_WIDTH_OF = {1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
log = logging.getLogger(__name__)


def load_base(
    source: str,
    dtype: torch.dtype,
    configs: str,
    adapter: ReferenceAdapter,
    text_width: int | None,
    progress: Progress | None = None,
) -> dict:
    """The parts of a base model: vae, text_encoder, tokenizer, unet, scheduler, and its `Prediction`.

    Args:
        source: a diffusers folder, a hub id, or a single .safetensors file.
        configs: folder or hub id whose configuration a single file takes.
        adapter: must fit the UNet's widths, which is checked before the base is loaded.
        text_width: the width of text states the release was trained with (768 for SD1.5); None allows any.
        progress: called during downloads, see `hub.fetch`.
    """
    path = as_path(source)
    if _is_file(path):
        return _load_single_file(path, dtype, configs, text_width, progress)

    from transformers import CLIPTextModel

    folder = fetch_base(source, progress)
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        if not (folder / part).is_dir():
            raise HelloMemeError(f"{source} is not a complete diffusers model: it has no folder {part}.")
    unet, vae = read_config(folder / "unet"), read_config(folder / "vae")
    latent_channels = vae.get("latent_channels", 4)
    _check_kind(source, unet.get("cross_attention_dim"), unet.get("in_channels"), text_width, latent_channels)
    if not adapter.fits(unet.get("block_out_channels") or ()):
        raise HelloMemeError(
            f"{source} does not fit this release: its UNet has widths {unet.get('block_out_channels')}, "
            f"not {adapter.unet_widths}; "
            "choose a model derived from the release's own base."
        )
    return {
        "unet": load_module(_unet(), folder / "unet", dtype),
        "vae": load_module(_autoencoder(vae, source), folder / "vae", dtype),
        "text_encoder": load_module(CLIPTextModel, folder / "text_encoder", dtype),
        "tokenizer": _load_tokenizer(folder, source),
        **_load_scheduler(folder, source),
    }


def _load_scheduler(folder: Path, source: str, prediction: Prediction | None = None) -> dict:
    """A folder's scheduler, and the prediction that its configuration names, unless another is given."""
    scheduler = load_scheduler(folder / "scheduler")
    if prediction is None:
        config = read_config(folder / "scheduler", "scheduler_config.json")
        prediction = Prediction.of_config(config, source)
    return {"scheduler": scheduler, "prediction": prediction}


def _load_tokenizer(folder: Path, source: str) -> PreTrainedTokenizerBase:
    from transformers import CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        if len(tokenizer) < MIN_VOCABULARY:  # without its files it is made all the same, but knows no words
            raise ValueError("no words")
        return tokenizer
    except Exception as error:
        raise HelloMemeError(
            f"The tokenizer of {source} cannot be read: download the model again."
        ) from error


def load_saved_reference_parts(folder: Path, dtype: torch.dtype) -> dict:
    """What sees the reference in the folder of a saved pipeline: `reference_unet`, `reference_vae` and
    `reference_text_encoder`, those that are there."""
    from transformers import CLIPTextModel

    kinds = {
        "reference_unet": lambda part: _unet(),
        "reference_vae": lambda part: _autoencoder(read_config(part), str(folder)),
        "reference_text_encoder": lambda part: CLIPTextModel,
    }
    there = {name: folder / name for name in kinds if (folder / name).is_dir()}
    return {name: load_module(kinds[name](part), part, dtype) for name, part in there.items()}


def fetch_base(source: str, progress: Progress | None = None) -> Path:
    """The folder of a base model, downloaded unless it is here; of a file that itself."""
    if _is_file(as_path(source)):
        return as_path(source)
    folder = fetch(source, BASE_FILES, progress)
    if (folder / "unet").is_dir() and not any((folder / "unet" / name).exists() for name in WEIGHTS):
        fetch(source, HALF_BASE_FILES, progress)
    return folder


def _is_file(path: Path) -> bool:
    """Whether a source is a file or named like one."""
    return os.path.isfile(path) or path.suffix.lower() in (".safetensors", *PICKLES)


def load_text_encoder(source: str, dtype: torch.dtype, progress: Progress | None = None) -> torch.nn.Module:
    """The text encoder of a base model in a folder or on the hub, and nothing else of it."""
    from transformers import CLIPTextModel

    return _load_part(CLIPTextModel, source, "text_encoder", dtype, progress)


def load_autoencoder(
    source: str, config: str, dtype: torch.dtype, progress: Progress | None = None
) -> torch.nn.Module:
    """An AutoencoderKL: a .safetensors file, or a folder or hub id of one or of a base model that has one.

    config: the folder with the config.json that a single file takes. Raises HelloMemeError for anything else.
    """
    from diffusers import AutoencoderKL

    folder = fetch_autoencoder(source, progress)
    if _is_file(folder):
        return _autoencoder_file(folder, config, dtype)
    kind = read_config(folder).get("_class_name")
    if kind != "AutoencoderKL":
        raise HelloMemeError(
            f"{source} is not an autoencoder of Stable Diffusion but {kind}: choose another."
        )
    return load_module(AutoencoderKL, folder, dtype)


def fetch_autoencoder(source: str, progress: Progress | None = None) -> Path:
    """The folder or file of an autoencoder, downloaded unless it is here."""
    path = as_path(source)
    if _is_file(path):
        return path
    if os.path.isdir(path):
        return path / "vae" if (path / "vae").is_dir() else path
    if source in BASES.values():
        return fetch(source, tuple(f"vae/{name}" for name in NETWORK_FILES), progress) / "vae"
    return fetch(source, NETWORK_FILES, progress)


def _autoencoder_file(path: Path, config: str, dtype: torch.dtype) -> torch.nn.Module:
    from diffusers import AutoencoderKL

    file = SingleFile(path)
    if "vae" not in file.names:
        raise HelloMemeError(f"{path.name} is not an autoencoder for this model: it holds none.")
    return file.read("vae", AutoencoderKL, Path(config), dtype)


def _load_single_file(
    path: Path, dtype: torch.dtype, configs: str, text_width: int | None, progress: Progress | None
) -> dict:
    from transformers import CLIPTextModel

    file = SingleFile(path)
    text = file.side("unet", ("attn2.to_k.weight",), 1)
    if text is None:
        raise HelloMemeError(f"{path.name} is not a Stable Diffusion model: it holds no UNet.")
    latents = file.side("vae", ("post_quant_conv.weight",), 0) or 4
    _check_kind(path.name, text, file.side("unet", SIGNS["unet"], 1), text_width, latents)
    folder = fetch(configs, CONFIG_FILES, progress)
    kinds = {
        "unet": _unet(),
        "vae": _autoencoder(read_config(folder / "vae"), configs),
        "text_encoder": CLIPTextModel,
    }
    parts = {
        part: file.read(part, kind, folder / part, dtype)
        if part in file.names
        else _part_of_release(path, part, kind, configs, dtype, progress)
        for part, kind in kinds.items()
    }
    return parts | {
        "tokenizer": _load_tokenizer(folder, configs),
        **_load_scheduler(folder, configs, Prediction.of_file(file)),
    }


def _part_of_release(
    path: Path, part: str, kind: type, official: str, dtype: torch.dtype, progress: Progress | None
) -> torch.nn.Module:
    """A part of the release's own base model, for a file that lacks it."""
    log.warning("%s holds no %s: that of %s is used.", path.name, TITLES[part], official)
    try:
        return _load_part(kind, official, part, dtype, progress)
    except HelloMemeError as error:
        raise HelloMemeError(
            f"{path.name} holds no {TITLES[part]}, and that of {official} cannot be had: {error}"
        ) from error


def _load_part(
    kind: type, source: str, part: str, dtype: torch.dtype, progress: Progress | None
) -> torch.nn.Module:
    """One network of a base model in a folder or on the hub."""
    files = tuple(f"{part}/{name}" for name in NETWORK_FILES)
    folder = fetch(source, files, progress) / part
    if not any((folder / name).is_file() for name in WEIGHTS):
        half = tuple(f"{part}/{name}" for name in HALF_WEIGHTS)
        folder = fetch(source, (f"{part}/config.json", *half), progress) / part
    return load_module(kind, folder, dtype)


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
