"""From a row of the table of releases, or a folder that fits one, to a pipeline that draws."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from ..memory_choice import place, place_added
from .embeddings import load_embeddings
from .files import check_here, lacking, needed
from .hub import DEMO_REMARK, WEIGHTS, Progress, as_path
from .networks import (
    chosen_controls,
    expression_types,
    load_controls,
    load_encoders,
    load_network,
    locate,
    network_class,
)
from .parts import load_parts
from .row_file import INDEX, read_row
from .styles import Embedding, Lora, Style
from .table import FACE_BASIS, RELEASES, Network, Release, Source
from .weights import read_config

if TYPE_CHECKING:
    import torch

    from ..expression import ExpressionEncoders
    from ..face.drawing import FaceBasis
    from ..pipeline import HelloMemePipeline

LATENT = 8  # px of a picture to one of its latents, along a side
MAX_LATENT_SIDE = 64  # the reference attention at `up_3` is at the full side and takes maps of 64 at most


def find(name: str) -> Release:
    """The row called `name`, or the row that a local folder of networks fits, with that folder as its root.

    A folder fits a row if it holds the row's reference adapter and a control net, under the names they have
    on the hub (`hm_reference`, `hm_control2`, ...) or in a saved pipeline. Of several it is the row with most
    control nets of the right classes there; those come first, so that their expression type is the default.
    A base model in the same folder (`unet`, `vae`, ...) becomes the default; with the demo's own base, the
    folder says the size of its pictures and `reference_control`. Raises HelloMemeError with the names there
    are.
    """
    for row in RELEASES:
        if row.name == name:
            return row
    folder = as_path(name)
    if not os.path.isdir(folder):
        known = ", ".join(row.name for row in RELEASES)
        raise HelloMemeError(
            f"There is no release or folder called {name}: choose from {known}, or a model folder."
        )
    if (saved := read_row(folder)) is not None:
        return dataclasses.replace(saved, name=folder.name)
    has_base = (folder / "unet").is_dir()
    # The demo's networks go by v1's names too. `max` keeps the first of equals: last, the demo loses ties.
    rows = [row for row in reversed(RELEASES) if has_base or not row.base.is_bundled]
    row = max(rows, key=lambda row: _likeness(row, folder))
    if not any(_likeness(row, folder)):
        raise HelloMemeError(f"{folder} is not a model folder: it lacks hm_reference or a control net.")
    own = {}
    if row.base.is_bundled:
        own = {"reference_control": _saved_index(folder).get("reference_control") is True}
        own |= _sizes(row, folder / "unet")
    base = Source("") if has_base else row.base
    basis = FACE_BASIS if (folder / FACE_BASIS).is_file() else None
    row = _as_named_in(folder, row)
    if row.face_parts_encoder is not None and not _is_in(folder, row.face_parts_encoder):
        row = dataclasses.replace(row, face_parts_encoder=None)  # networks trained here know nothing of it
    return dataclasses.replace(row, name=folder.name, root=folder, base=base, face_basis=basis, **own)


def _likeness(row: Release, folder: Path) -> tuple[int, ...]:
    """How many of the row's networks lie in a folder: by class, by their names on the hub, and in all.

    Between the first and the second of these: whether a saved pipeline says of the reference what the row
    says. All are 0 if the row's reference adapter or all of its control nets are not there.
    """

    def has_class(net: Network) -> bool:
        try:
            return read_config(folder / net.source.folder).get("_class_name") == network_class(net).__name__
        except HelloMemeError:  # raised again when the network is loaded
            return False

    named = _as_named_in(folder, row)
    there = [net for net in named.controls if _is_in(folder, net)]
    if not (there and _is_in(folder, named.reference)):
        return 0, 0, 0, 0
    networks = [named.reference, *there]
    of_release = [row.reference, *row.controls]
    said = _saved_index(folder).get("reference_control", False)
    same = row.base.is_bundled or said == row.reference_control  # the demo's kind comes with either
    classes, names = sum(map(has_class, networks)), sum(_is_in(folder, net) for net in of_release)
    return classes, int(same), names, len(there)


def _saved_index(folder: Path) -> dict:
    """What a saved pipeline says of itself; empty where a folder is none."""
    return read_config(folder, INDEX) if (folder / INDEX).is_file() else {}


def _as_named_in(folder: Path, row: Release) -> Release:
    """The row with its networks named as in a folder, and the control nets that are there first."""

    def named(net: Network) -> Network:
        if _is_in(folder, net) or not (folder / net.slot).is_dir():
            return net
        return dataclasses.replace(net, source=dataclasses.replace(net.source, folder=net.slot))

    controls = sorted(map(named, row.controls), key=lambda net: not _is_in(folder, net))
    motion = tuple(map(named, row.motion))
    return dataclasses.replace(row, reference=named(row.reference), controls=tuple(controls), motion=motion)


def _is_in(folder: Path, net: Network) -> bool:
    return (folder / net.source.folder).is_dir()


def _sizes(row: Release, unet: Path) -> dict[str, int]:
    """The row's sizes in px, for a UNet that was trained with others."""
    side = read_config(unet).get("sample_size", row.size // LATENT)
    if type(side) is not int or not 0 < side <= MAX_LATENT_SIDE:
        raise HelloMemeError(
            f"{unet / 'config.json'} is damaged, its sample_size is {side}: get the model again."
        )
    return {"size": LATENT * side, "condition_size": row.condition_size * LATENT * side // row.size}


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
    loras: Sequence[str | Path | tuple[str | Path, float] | Lora] = (),
    reference_base: str | None = None,
    expression_type: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    vae: str | None = None,
    prediction_type: str | None = None,
    embeddings: Sequence[str | Path | tuple[str | Path, str] | Embedding] = (),
    few_steps_lora: str | None = None,
    memory: str = "auto",
    compiled: bool = False,
) -> tuple[HelloMemePipeline, ExpressionEncoders, Release]:
    """The pipeline of a release, the encoders that its control nets need, and its row.

    Args:
        name: the name of a row, a local folder in the released layout, or a row of your own.
        base, loras, reference_base, vae, prediction_type, embeddings, few_steps_lora: the fields of
            `styles.Style`, which says what they may be.
        device, dtype: the best device there is, and what `choose_dtype` says, if not given.
        expression_type: "pd_fpg" or "drive_coeff", or "both" or a list of the two: which control nets to
            load, whose maps add up; the row's default if not given.
        progress: called during downloads, see `hub.fetch`.
        memory, compiled: see `memory_choice.place` and `acceleration.accelerate`.

    Raises:
        HelloMemeError: when any part is missing, damaged, pickled, unreachable or does not fit.
    """
    from ..acceleration import accelerate, check_compiler
    from ..pipeline import HelloMemePipeline
    from .loras import load_loras

    row = name if isinstance(name, Release) else find(name)
    style = Style(base, vae, tuple(loras), reference_base, prediction_type, tuple(embeddings), few_steps_lora)
    style.check()
    device = choose_device(device)
    if compiled:
        check_compiler(device)
    dtype = dtype or choose_dtype(device)
    chosen = chosen_controls(row, expression_types(row, expression_type))
    _check_offline(row, style, expression_type)

    # Small things first: what is wrong shows before gigabytes are loaded.
    adapter = load_network(row, row.reference, dtype, progress)
    controls = load_controls(row, chosen, dtype, progress)
    encoders = load_encoders(row, [net.expression_type for net in chosen], "cpu", dtype, progress)
    parts = load_parts(row, locate(row, row.base), style, adapter, dtype, progress)
    pipeline = HelloMemePipeline(
        hm_reference=adapter, **controls, **parts, reference_control=row.reference_control
    )
    load_loras(pipeline, style.loras, progress)
    load_embeddings(pipeline, style.embeddings, progress)
    pipeline.release, pipeline.encoders, pipeline.style = row, encoders, style
    pipeline.base, pipeline.compiled = style.base_source or row.base.elsewhere, compiled
    place(pipeline, device, memory)
    accelerate(pipeline)
    return pipeline, encoders, row


def _check_offline(row: Release, style: Style, expression_type: str | Sequence[str] | None) -> None:
    """Raises HelloMemeError if nothing may be downloaded and something is lacking."""
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        check_here(row, needed(row, expression_type, style.base_source, reference_base=style.reference_base))


def has_motion(row: Release) -> bool:
    """Whether clips of a release can be drawn with motion networks; without, each frame is drawn alone.

    A model folder may lack those that its row names. The hub is not asked.
    """

    def can_be_had(net: Network) -> bool:
        return not net.source.is_bundled or (row.root is not None and _is_in(row.root, net))

    return bool(row.motion) and all(map(can_be_had, row.motion))


def add_motion(pipeline: HelloMemePipeline, row: Release, progress: Progress | None = None) -> bool:
    """Give the pipeline its row's motion networks unless it has some; False if the row has none.

    progress: called during the download, see `hub.fetch`. Raises HelloMemeError, with one sentence, when they
    cannot be had or do not fit.
    """
    from ..acceleration import accelerate
    from ..models.motion_module import check_fit

    if pipeline.has_motion:
        return True
    if not has_motion(row):
        return False
    networks = {net.slot: load_network(row, net, pipeline.unet.dtype, progress) for net in row.motion}
    check_fit(pipeline.unet, networks.get("motion_adapter"), networks.get("hm_motion"))
    pipeline.register_modules(**networks)
    place_added(pipeline, networks.values())
    accelerate(pipeline)
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
    """float16 on CUDA, as the released weights are stored. bfloat16 on a CPU that multiplies it in hardware:
    a step of Stable Diffusion's size takes a third of the time there, a picture of 192 px of a model like the
    demo four fifths, and the pictures are the same to 45 dB. Else float32."""
    import torch

    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if device.type == "cpu" and multiplies_bfloat16() else torch.float32


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16: AMX or AVX-512 BF16."""
    import torch

    return any(torch.cpu.get_capabilities().get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _obstacle(row: Release) -> str | None:
    sources = [net.source for net in (row.reference, *row.controls)]
    if row.root is not None:
        folders = [row.root / source.folder for source in sources]
        for folder in folders:
            if not any((folder / name).is_file() for name in WEIGHTS):
                return f"{row.root} has no weights for {folder.name}: get the repository again."
        return None
    from huggingface_hub import is_offline_mode

    if not is_offline_mode() or not lacking(needed(row)):
        return None
    return (
        f"Needs {row.gigabytes:g} GB from the hub, which cannot be reached from here (HF_HUB_OFFLINE); "
        f"{DEMO_REMARK}."
    )
