"""From a row of the table of releases, or a folder that fits one, to a pipeline that draws."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import BASE_FILES, REMAINS, WEIGHTS, Progress, cached, fetch, local
from .table import FACE_BASIS, RELEASES, Control, Release
from .weights import load_base, load_loras, load_module, read_config

if TYPE_CHECKING:
    import torch

    from ..face.drawing import FaceBasis
    from ..pipeline import HelloMemePipeline

LATENT = 8  # px of a picture to one of its latents, along a side
LARGEST_SIDE = 128  # of latents: the first place is at half of it, and the reference attentions reach to 64


def find(name: str) -> Release:
    """The row called `name`, or the row that a local folder of networks fits, with that folder as its root.

    A folder fits a row if it holds the row's reference adapter and a control net under the names they have on
    the hub (`hm_reference`, `hm_control2`, ...), the row with most of its control nets there; those come
    first, so that their code is the default. A base model in the same folder (`unet`, `vae`, ...) becomes the
    default, and the size of the demo's own base that of its pictures. Raises HelloMemeError with the names
    there are.
    """
    for row in RELEASES:
        if row.name == name:
            return row
    folder = local(name)
    if not os.path.isdir(folder):
        known = ", ".join(row.name for row in RELEASES)
        raise HelloMemeError(
            f"There is no release or folder called {name}: choose from {known}, or a model folder."
        )
    has_base = (folder / "unet").is_dir()

    def has(source: str) -> bool:
        return (folder / source.rsplit("/", 1)[-1]).is_dir()

    fitting = [row for row in reversed(RELEASES) if has(row.reference) and (has_base or row.base != ".")]
    # The demo's networks go by v1's names too: it comes last.
    row = max(fitting, key=lambda row: sum(has(net.source) for net in row.controls), default=None)
    if row is None or not any(has(net.source) for net in row.controls):
        raise HelloMemeError(f"{folder} is not a model folder: it lacks hm_reference or a control net.")
    controls = tuple(sorted(row.controls, key=lambda net: not has(net.source)))
    sizes = _sizes(row, folder / "unet") if row.base == "." else {}
    base = "." if has_base else row.base
    basis = FACE_BASIS if (folder / FACE_BASIS).is_file() else None
    return dataclasses.replace(
        row, name=folder.name, root=folder, base=base, controls=controls, face_basis=basis, **sizes
    )


def _sizes(row: Release, unet: Path) -> dict[str, int]:
    """The row's sizes in px, for a UNet that was trained with others."""
    side = read_config(unet).get("sample_size", row.size // LATENT)
    if type(side) is not int or not 0 < side <= LARGEST_SIDE:
        raise HelloMemeError(
            f"{unet / 'config.json'} is damaged, its sample_size is {side}: get the model again."
        )
    return {"size": LATENT * side, "condition_size": row.condition_size * LATENT * side // row.size}


def locate(row: Release, source: str) -> str:
    """The folder of a part under the row's `root`, or else the source itself.

    Raises HelloMemeError where a model folder lacks a part that is nowhere else.
    """
    if row.root is not None and (folder := row.root / source.rsplit("/", 1)[-1]).is_dir():
        return str(folder)
    if row.root is not None and "/" not in source:
        raise HelloMemeError(f"The model folder {row.root} has no {source}: it is incomplete, get it again.")
    return source


def available() -> list[tuple[str, str, str | None]]:
    """(name, title, reason) of each row; the reason why it cannot run here is a sentence, or None if it can.

    The hub is not asked: whether it can be reached shows when a row is loaded.
    """
    return [(row.name, row.title, _obstacle(row)) for row in RELEASES]


def load(
    name: str | Release = "demo",
    base: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    loras: Sequence[str | Path | tuple[str | Path, float]] = (),
    reference_base: str | None = None,
    code: str | None = None,
    progress: Progress | None = None,
) -> tuple[HelloMemePipeline, torch.nn.Module | None, Release]:
    """The pipeline of a release, its emotion encoder (None where its code needs none), and its row.

    Args:
        name: the name of a row, a local folder in the released layout, or a row of your own.
        base: hub id, diffusers folder or single .safetensors file of a base model; the row's own if not
            given.
        device, dtype: the best device there is, and float16 on CUDA or float32 elsewhere, if not given.
        loras: LoRA files, folders or hub ids, or pairs of one and its scale; they change the model that
            draws.
        reference_base: a second base model whose autoencoder, text encoder and UNet see the reference
            picture, and whose text encoder reads the prompt (the released "stylize x1"); if not given, `base`
            does it all ("x2").
        code: "pd_fpg" or "drive_coeff": the expression code, where the release has control nets for several.
        progress: told of downloads, see `hub.fetch`.

    Raises:
        HelloMemeError: with one sentence, when any part is missing, damaged, pickled, unreachable or does not
        fit.
    """
    from ..models.adapters import HMReferenceAdapter
    from ..models.fan_encoder import FanEncoder
    from ..pipeline import HelloMemePipeline

    row = name if isinstance(name, Release) else find(name)
    get = functools.partial(fetch, progress=progress)
    device = choose_device(device)
    dtype = dtype or choose_dtype(device)
    code = code or row.code
    chosen = [net for net in row.controls if net.code == code]
    if not chosen:
        codes = ", ".join(dict.fromkeys(net.code for net in row.controls))
        raise HelloMemeError(f"The release {row.name} has no control net for {code}: choose from {codes}.")

    # Small things first: what is wrong shows before gigabytes are loaded.
    adapter = load_module(HMReferenceAdapter, get(locate(row, row.reference)), dtype)
    controls = {net.slot: _load_control(net, get(locate(row, net.source)), dtype) for net in chosen}
    uses_emotion = code == "pd_fpg" and row.emotion is not None
    emotion = load_module(FanEncoder, get(locate(row, row.emotion)), dtype) if uses_emotion else None

    widths = list(adapter.config.block_out_channels)
    parts = _load_bases(row, base, reference_base, widths, dtype, progress)
    pipeline = HelloMemePipeline(hm_reference=adapter, **controls, **parts)
    load_loras(pipeline, loras, progress)
    return pipeline.to(device), emotion and emotion.to(device), row


def _load_control(net: Control, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The control net in a folder, of the class its config.json names; HelloMemeError for another code's."""
    from ..models import control

    kind = getattr(control, str(read_config(folder).get("_class_name")), None)
    if getattr(getattr(kind, "expression", None), "type", None) != net.code:
        raise HelloMemeError(f"{folder} holds no control net for {net.code}: get it again.")
    return load_module(kind, folder, dtype)


def _load_bases(
    row: Release,
    base: str | None,
    reference_base: str | None,
    widths: list[int],
    dtype: torch.dtype,
    progress: Progress | None,
) -> dict:
    """The parts of the pipeline that come from base models; `widths` are those the adapter is made for."""

    def base_model(source: str) -> dict:
        return load_base(source, dtype, locate(row, row.base), widths, row.text_width, progress)

    parts = base_model(base or locate(row, row.base))
    if row.scheduler is not None:
        from diffusers import EulerDiscreteScheduler

        parts["scheduler"] = EulerDiscreteScheduler(**row.scheduler)
    if reference_base is not None:
        official = base_model(reference_base)
        parts["text_encoder"] = official["text_encoder"]
        parts |= {"reference_unet": official["unet"], "reference_vae": official["vae"]}
    return parts


def add_motion(pipeline: HelloMemePipeline, row: Release, progress: Progress | None = None) -> bool:
    """Give the pipeline its row's motion adapter unless it has one; False if the row has none.

    progress: told of the download, see `hub.fetch`. Raises HelloMemeError, with one sentence, when it cannot
    be had or does not fit.
    """
    from diffusers import MotionAdapter

    from ..models.motion_module import with_motion

    if pipeline.motion_adapter is not None:
        return True
    if row.motion is None or ("/" not in row.motion and not (row.root and (row.root / row.motion).is_dir())):
        return False
    adapter = load_module(
        MotionAdapter, fetch(locate(row, row.motion), progress=progress), pipeline.unet.dtype
    )
    with_motion(pipeline.unet, adapter)  # refuses one of another shape
    pipeline.register_modules(motion_adapter=adapter.to(pipeline.unet.device))
    return True


def face_basis(row: Release) -> FaceBasis | None:
    """The basis by which the row's control nets expect faces to be drawn, or None where they expect none.

    Raises HelloMemeError for a file that is missing or damaged.
    """
    from ..face.drawing import FaceBasis

    return None if row.face_basis is None else FaceBasis.load(row.root / row.face_basis)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """`device` if it works here, or the best there is: cuda, then mps, then cpu."""
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device is None:
        return torch.device(next(kind for kind, works in here.items() if works))
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise HelloMemeError(
            f"There is no device called {device}: choose cpu, cuda, cuda:1 or mps."
        ) from error
    if not here.get(chosen.type, False) or (
        chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
    ):
        works = ", ".join(kind for kind, usable in here.items() if usable)
        raise HelloMemeError(f"The device {device} cannot be used here: choose from {works}.")
    return chosen


def choose_dtype(device: torch.device) -> torch.dtype:
    """float16 on CUDA, as the released weights are stored; float32 elsewhere, where half is slow or
    missing."""
    import torch

    return torch.float16 if device.type == "cuda" else torch.float32


def _obstacle(row: Release) -> str | None:
    if row.root is not None:
        parts = [row.reference, *(net.source for net in row.controls)]
        missing = [part for part in parts if not any((row.root / part / name).is_file() for name in WEIGHTS)]
        return f"{row.root} has no weights for {missing[0]}: get the repository again." if missing else None
    from huggingface_hub import constants

    networks = [row.reference, row.controls[0].source, *([row.emotion] if row.emotion else [])]
    if not constants.is_offline_mode() or (cached(row.base, BASE_FILES) and all(map(cached, networks))):
        return None
    return (
        f"Needs {row.gigabytes:g} GB from the hub, which cannot be reached from here (HF_HUB_OFFLINE); "
        f"{REMAINS}."
    )
