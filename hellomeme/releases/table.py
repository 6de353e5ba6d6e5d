"""The releases as rows of a table: which networks make one up, where they come from, and its defaults.

A row is data; nothing else in the package asks which release it is working for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# The demo model lies inside an installed package, and beside the package in a clone.
DEMO = (PACKAGE if (PACKAGE / "assets").is_dir() else PACKAGE.parent) / "assets" / "demo"


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
    face_basis: the file under `root` with the `FaceBasis` by which the face is drawn into the condition
    picture; None, as in all published releases, means that it shows the square on the head alone.
    turns: the lowest and highest pitch, yaw and roll, in degrees, that the weights were trained on: the head
    is held there. None: whatever is asked for.
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
    face_basis: str | None = None
    turns: Mapping[str, tuple[float, float]] | None = None

    @property
    def code(self) -> str:
        return self.controls[0].code


FACE_BASIS = "face_basis.safetensors"  # the name of that file in a model folder
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
