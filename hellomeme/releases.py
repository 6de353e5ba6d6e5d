"""The releases as rows of a table: which networks make one up, where they come from, and its defaults.

A row is data; nothing else in the package asks which release it is working for.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import HelloMemeError
from .hub import BASE_FILES, REMAINS, WEIGHTS, Progress, cached, fetch, local
from .loading import load_base, load_loras, load_module, read_config

if TYPE_CHECKING:
    import torch

    from .pipeline import HelloMemePipeline

LATENT = 8  # px of a picture to one of its latents, along a side
LARGEST_SIDE = 128  # of latents: the first place is at half of it, and the reference attentions reach to 64
DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"


@dataclass(frozen=True)
class Control:
    """A control net: its name in the pipeline, where it comes from, and the expression code it takes."""

    slot: str
    source: str
    code: str


@dataclass(frozen=True)
class Release:
    """One row. A `source` is a hub repository, of which a folder of the same name under `root` takes
    precedence.

    size: px, side of the pictures it draws. condition_size: px, side of the pose picture its control nets
    take.
    crop_scale: side of the crop in extents of the face. scheduler: settings of EulerDiscreteScheduler, or
    None for the scheduler in the base's own folder. controls: the first one's code is used unless another is
    asked for.
    text_width: of the base model's text states. gigabytes: the download, base model included.
    motion: the motion adapter for clips, fetched with the first clip; None, or a folder missing beside the
    bundled networks, means that each frame of a clip is drawn alone. first_pass: whether frames are drawn one
    after the other before they are drawn together; without, all begin with the same noise.
    """

    name: str
    title: str
    base: str
    reference: str
    controls: tuple[Control, ...]
    emotion: str | None
    size: int
    condition_size: int
    crop_scale: float
    steps: int
    guidance: float
    scheduler: dict | None
    text_width: int | None
    prompt: str = ""
    gigabytes: float = 0.0
    root: Path | None = None
    motion: str | None = None
    first_pass: bool = True

    @property
    def code(self) -> str:
        return self.controls[0].code

    def locate(self, source: str) -> str:
        """The folder of a part under `root`, or else the source itself."""
        if self.root is not None and (folder := self.root / source.rsplit("/", 1)[-1]).is_dir():
            return str(folder)
        if self.root is not None and "/" not in source:
            raise HelloMemeError(
                f"The model folder {self.root} has no {source}: it is incomplete, get it again."
            )
        return source


SD15 = "songkey/stable-diffusion-v1-5"
# Euler on Stable Diffusion's own schedule, whatever scheduler the base model was saved with.
EULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
SD15_ROW = dict(
    base=SD15,
    emotion="songkey/pd_fgc_motion",
    size=512,
    condition_size=512,
    crop_scale=3.0,
    steps=25,
    guidance=1.5,
    scheduler=EULER,
    text_width=768,
    prompt="headshot, person, best quality, sharp focus",
)

RELEASES: tuple[Release, ...] = (
    Release(
        name="demo",
        title="Demo: toon heads, 128 px, no network needed",
        root=DEMO,
        base=".",
        reference="hm_reference",
        controls=(
            Control("hm_control", "hm_control", "drive_coeff"),
            Control("hm_control_up", "hm_control_up", "drive_coeff"),
        ),
        emotion=None,
        size=128,
        condition_size=32,
        crop_scale=2.0,
        steps=2,
        guidance=1.0,
        scheduler=None,
        text_width=None,
        # Its schedule ends in pure noise, under which nothing of a first pass is left
        motion="motion",
        first_pass=False,
    ),
    Release(
        name="v1",
        title="HelloMeme v1: Stable Diffusion 1.5, 512 px",
        reference="songkey/hm_reference",
        controls=(
            Control("hm_control2", "songkey/hm_control2", "pd_fpg"),
            Control("hm_control", "songkey/hm_control", "drive_coeff"),
        ),
        gigabytes=4.8,
        motion="songkey/hm_animatediff_frame12",
        **SD15_ROW,
    ),
    Release(
        name="v2",
        title="HelloMeme v2: Stable Diffusion 1.5, 512 px",
        reference="songkey/hm2_reference",
        controls=(
            Control("hm_control2", "songkey/hm2_control2", "pd_fpg"),
            Control("hm_control", "songkey/hm2_control", "drive_coeff"),
        ),
        gigabytes=4.9,
        motion="songkey/hm2_animatediff_frame12",
        **SD15_ROW,
    ),
)


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
    return dataclasses.replace(row, name=folder.name, root=folder, base=base, controls=controls, **sizes)


def _sizes(row: Release, unet: Path) -> dict[str, int]:
    """The row's sizes in px, for a UNet that was trained with others."""
    side = read_config(unet).get("sample_size", row.size // LATENT)
    if type(side) is not int or not 0 < side <= LARGEST_SIDE:
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
    from . import control, networks
    from .emotion import FanEncoder
    from .pipeline import HelloMemePipeline

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
    adapter = load_module(networks.HMReferenceAdapter, get(row.locate(row.reference)), dtype)
    controls = {}
    for net in chosen:
        folder = get(row.locate(net.source))
        kind = getattr(control, str(read_config(folder).get("_class_name")), None)
        if getattr(kind, "code", None) != code:
            raise HelloMemeError(f"{folder} holds no control net for {code}: get it again.")
        controls[net.slot] = load_module(kind, folder, dtype)
    uses_emotion = code == "pd_fpg" and row.emotion is not None
    emotion = load_module(FanEncoder, get(row.locate(row.emotion)), dtype) if uses_emotion else None

    def base_model(source: str) -> dict:
        widths = list(adapter.config.block_out_channels)
        return load_base(source, dtype, row.locate(row.base), widths, row.text_width, progress)

    parts = base_model(base or row.locate(row.base))
    if row.scheduler is not None:
        from diffusers import EulerDiscreteScheduler

        parts["scheduler"] = EulerDiscreteScheduler(**row.scheduler)
    if reference_base is not None:
        official = base_model(reference_base)
        parts["text_encoder"] = official["text_encoder"]
        parts |= {"reference_unet": official["unet"], "reference_vae": official["vae"]}
    pipeline = HelloMemePipeline(hm_reference=adapter, **controls, **parts)
    load_loras(pipeline, loras, progress)
    return pipeline.to(device), emotion and emotion.to(device), row


def add_motion(pipeline: HelloMemePipeline, row: Release, progress: Progress | None = None) -> bool:
    """Give the pipeline its row's motion adapter unless it has one; False if the row has none.

    progress: told of the download, see `hub.fetch`. Raises HelloMemeError, with one sentence, when it cannot
    be had or does not fit.
    """
    from diffusers import MotionAdapter

    from .networks import with_motion

    if pipeline.motion_adapter is not None:
        return True
    if row.motion is None or ("/" not in row.motion and not (row.root and (row.root / row.motion).is_dir())):
        return False
    adapter = load_module(
        MotionAdapter, fetch(row.locate(row.motion), progress=progress), pipeline.unet.dtype
    )
    with_motion(pipeline.unet, adapter)  # refuses one of another shape
    pipeline.register_modules(motion_adapter=adapter.to(pipeline.unet.device))
    return True


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
