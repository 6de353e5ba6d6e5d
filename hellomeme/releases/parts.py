"""The parts of a pipeline that come from base models, as a style asks for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .base_model import (
    fetch_autoencoder,
    fetch_base,
    load_autoencoder,
    load_base,
    load_saved_reference_parts,
    load_text_encoder,
)
from .hub import Progress, as_path
from .one_file import find_file
from .prediction import CHOICES, Prediction
from .styles import BASES, OFFICIAL, Style
from .table import Release, Sampler
from .weights import reason

if TYPE_CHECKING:
    import torch
    from diffusers import SchedulerMixin

    from ..models.adapters import ReferenceAdapter


def load_parts(
    row: Release,
    official: str,
    style: Style,
    adapter: ReferenceAdapter,
    dtype: torch.dtype,
    progress: Progress | None = None,
) -> dict:
    """The components of the pipeline by name, None where the style has none; LoRA are not loaded here.

    official: the row's own base model, a folder or hub id. adapter: which the UNets must fit.
    Which model is which follows the released code: where another model sees the reference ("x1"), its text
    encoder reads the prompt for both. Where the drawing model sees it ("x2"), the official text encoder
    reads the prompt of the reference. The folder of a saved pipeline has its own for the reference, if it was
    saved with some.
    """

    def base_model(source: str) -> dict:
        return load_base(source, dtype, official, adapter, row.text_width, progress)

    base = official if style.base in (None, OFFICIAL) else BASES.get(style.base, style.base)
    parts = base_model(base)
    own, image, clip = parts["scheduler"], row.image_sampler, row.clip_sampler
    found = parts.pop("prediction")
    prediction = CHOICES.get(style.prediction_type, None if found == Prediction() else found)
    same = (clip.scheduler, clip.settings) == (image.scheduler, image.settings)
    parts["scheduler"] = scheduler_of(image, own, prediction)
    parts["clip_scheduler"] = None if same else scheduler_of(clip, own, prediction)
    seeing = dict.fromkeys(("reference_unet", "reference_vae", "reference_text_encoder"))
    if style.reference_base is not None:
        named = official if style.reference_base == OFFICIAL else style.reference_base
        named = BASES.get(named, named)
        second = parts if _is_same(named, base) else base_model(named)
        parts["text_encoder"] = second["text_encoder"]
        seeing |= {"reference_unet": second["unet"], "reference_vae": second["vae"]}
    elif base != official and row.has_styles:
        seeing["reference_text_encoder"] = load_text_encoder(official, dtype, progress)
    elif base == official:
        seeing |= load_saved_reference_parts(as_path(official), dtype)
    if style.vae is not None:
        seeing["reference_vae"] = seeing["reference_vae"] or parts["vae"]  # another one decodes only
        parts["vae"] = _autoencoder(style.vae, official, parts["vae"], dtype, progress)
    return parts | seeing


def _is_same(source: str, other: str) -> bool:
    """Whether two names are of one base model."""
    return source == other or os.path.realpath(as_path(source)) == os.path.realpath(as_path(other))


def fetch_style(
    official: str, style: Style, more_loras: Sequence[str] = (), progress: Progress | None = None
) -> None:
    """Downloads what `load_parts` and the LoRA of a style need, without loading it.

    more_loras: sources of further ones. Raises HelloMemeError as loading does.
    """
    from .loras import find_lora

    for name in (style.base, style.reference_base):
        if name is not None:
            fetch_base(official if name == OFFICIAL else BASES.get(name, name), progress)
    if style.vae is not None:
        fetch_autoencoder(official if style.vae == OFFICIAL else BASES.get(style.vae, style.vae), progress)
    for source in (*(lora.source for lora in style.loras), *more_loras):
        find_lora(source, progress)
    for embedding in style.embeddings:
        find_file(embedding.source, progress, "embedding")


def _autoencoder(source: str, official: str, own, dtype: torch.dtype, progress: Progress | None):
    """The autoencoder that a style names, instead of the base's `own`."""
    from diffusers import AutoencoderKL

    if not isinstance(own, AutoencoderKL):
        raise HelloMemeError("The autoencoder of this base model is of its own kind and cannot be exchanged.")
    with tempfile.TemporaryDirectory() as folder:
        own.save_config(folder)  # which a single file takes
        source = official if source == OFFICIAL else BASES.get(source, source)
        vae = load_autoencoder(source, folder, dtype, progress)
    for name in ("latent_channels", "scaling_factor"):
        if vae.config[name] != own.config[name]:
            raise HelloMemeError(
                f"{source} is an autoencoder for another kind of model (its {name} is {vae.config[name]:g}, "
                f"not {own.config[name]:g}): choose one for Stable Diffusion 1.5."
            )
    return vae


def scheduler_of(
    sampler: Sampler, own: SchedulerMixin | None = None, prediction: Prediction | None = None
) -> SchedulerMixin:
    """The scheduler that a row names, or the base model's own.

    prediction: what the base model predicts; None for what the settings say. Raises HelloMemeError where
    diffusers has none of that name and with these settings: a row may come from the file of a saved pipeline.
    """
    import diffusers

    try:
        scheduler = getattr(diffusers, sampler.scheduler)(**sampler.settings) if sampler.scheduler else own
    except Exception as error:  # what settings from a file ask for can go wrong in any way
        why = f"The scheduler {sampler.scheduler} of this release cannot be made: {reason(error)}"
        raise HelloMemeError(why) from error
    return scheduler if prediction is None else prediction.scheduler(scheduler)
