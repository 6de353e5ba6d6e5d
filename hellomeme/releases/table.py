"""The releases as rows of a table: which networks make one up, where they come from, and its defaults.

A row is data; nothing else in the package asks which release it is working for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

PACKAGE = Path(__file__).resolve().parents[1]
# The demo model lies inside an installed package, and beside the package in a clone.
DEMO = (PACKAGE if (PACKAGE / "assets").is_dir() else PACKAGE.parent) / "assets" / "demo"


@dataclass(frozen=True)
class Source:
    """Where a part of a release comes from.

    folder: its name inside a model folder, where it is looked for first; "" is the model folder itself.
    elsewhere: a hub id or a path; None for a part that only model folders hold. subfolder: in it.
    """

    folder: str
    elsewhere: str | None = None
    subfolder: str = ""

    @classmethod
    def of(cls, elsewhere: str | Path) -> Source:
        """A hub id or a path, under its own last name in a model folder."""
        return cls(Path(elsewhere).name, str(elsewhere))

    @property
    def is_bundled(self) -> bool:
        return self.elsewhere is None


@dataclass(frozen=True)
class Network:
    """A network of a release.

    slot: its name in the pipeline, and in the folder of a saved pipeline. class_path: "module:class".
    """

    slot: str
    class_path: str
    source: Source


@dataclass(frozen=True)
class Control(Network):
    """A control net, and the expression it is loaded for: "drive_coeff" (ARKit) or "pd_fpg" (emotion code).

    A net that takes either has a row for each. What follows a control net has rows of its own.
    """

    expression_type: str


@dataclass(frozen=True)
class Sampler:
    """scheduler: a class of diffusers, made with `settings`; None for the one in the base model's folder."""

    scheduler: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipSampler(Sampler):
    """With motion networks, frames are drawn together in overlapping windows.

    first_pass: whether they begin from frames drawn one by one; without, all begin with the same noise.
    key_frames: windows share their end frames, which are drawn before the others. The first pass then draws
    only the first and the last frame.
    """

    first_pass: bool = True
    key_frames: bool = False


@dataclass(frozen=True)
class Release:
    """One row.

    root: the model folder in which every source is looked for first. base: of the base model.
    controls: all whose expression type is asked for are loaded, and their maps add up; the first one's type
    is the default. reference_control: whether the reference is seen with control maps of its own pose and
    expression. emotion_encoder: needed by control nets for "pd_fpg". face_parts_encoder: of eyes and
    mouth, for control nets for "drive_coeff"; without it they take ARKit coefficients alone. motion: the
    networks for clips, fetched with the first clip; see `load.has_motion`.
    size: px, side of the pictures it draws. crop_scale: side of the crop in extents of the face.
    condition_size: px, side of the condition picture its control nets take. face_basis: the file under `root`
    with the `FaceBasis` by which the face is drawn into the condition picture; None, as in all published
    releases, means that it shows the square on the head alone.
    turns: the lowest and highest pitch, yaw and roll, in degrees, that the weights were trained on: the head
    is held there. None: no limits.
    steps, guidance: defaults. text_width: of the base model's text states; None allows any.
    prompt, negative_prompt: what follows the user's words. negative_emotion: the emotion code of the negative
    half of guidance. gigabytes: the download, base model included. license: of all weights together, as the
    hub names it: that of the base model, where the others are freer.
    """

    name: str
    title: str
    base: Source
    reference: Network
    controls: tuple[Control, ...]
    size: int
    condition_size: int
    crop_scale: float
    steps: int
    guidance: float
    image_sampler: Sampler
    clip_sampler: ClipSampler
    text_width: int | None
    reference_control: bool = False
    emotion_encoder: Network | None = None
    face_parts_encoder: Network | None = None
    motion: tuple[Network, ...] = ()
    face_basis: str | None = None
    turns: Mapping[str, tuple[float, float]] | None = None
    prompt: str = ""
    negative_prompt: str = ""
    negative_emotion: Literal["black picture", "zeros"] = "black picture"
    gigabytes: float = 0.0
    license: str = "other"
    root: Path | None = None

    @property
    def expression_type(self) -> str:
        return self.controls[0].expression_type

    @property
    def has_styles(self) -> bool:
        """Whether other base models, LoRA and few-step presets of Stable Diffusion 1.5 are made for it: it
        reads a prompt. The demo's base is a model of its own."""
        return bool(self.prompt)


def reference(source: Source, class_name: str = "HMReferenceAdapter") -> Network:
    return Network("hm_reference", f"hellomeme.models.adapters:{class_name}", source)


def coefficients(class_name: str, source: Source, slot: str = "hm_control") -> Control:
    """A control net for ARKit coefficients."""
    return Control(slot, f"hellomeme.models.control:{class_name}", source, "drive_coeff")


def emotion(class_name: str, source: Source) -> Control:
    """A control net for emotion codes."""
    return Control("hm_control2", f"hellomeme.models.control:{class_name}", source, "pd_fpg")


def either(class_path: str, source: Source, slot: str = "hm_control") -> tuple[Control, Control]:
    """A control net for emotion codes or ARKit coefficients, or the projection that follows one."""
    kinds = ("pd_fpg", "drive_coeff")
    return tuple(Control(slot, f"hellomeme.models.{class_path}", source, kind) for kind in kinds)


def projected(base: str, source: Source, projection: str, its_source: Source) -> tuple[Control, ...]:
    """A control net that knows no UNet, and the projections of its maps to SD1.5's."""
    return (
        *either(f"control_base:{base}", source),
        *either(f"control_base:{projection}", its_source, "hm_control_proj"),
    )


def motion_module(source: Source) -> Network:
    """AnimateDiff's, inside the blocks of the UNet."""
    return Network("motion_adapter", "diffusers:MotionAdapter", source)


def knitted_motion(class_name: str, source: Source) -> Network:
    """Motion modules at the places between the blocks."""
    return Network("hm_motion", f"hellomeme.models.knitted_motion:{class_name}", source)


FACE_BASIS = "face_basis.safetensors"  # the name of that file in a model folder
SD15 = Source.of("songkey/stable-diffusion-v1-5")
# Euler on Stable Diffusion's own schedule, whatever scheduler the base model was saved with.
EULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
SD15_ROW = dict(
    base=SD15,
    emotion_encoder=Network(
        "emotion_encoder", "hellomeme.models.fan_encoder:FanEncoder", Source.of("songkey/pd_fgc_motion")
    ),
    face_parts_encoder=Network(
        "image_encoder",
        "transformers:CLIPVisionModelWithProjection",
        Source("image_encoder", "songkey/IP-Adapter", "models/image_encoder"),
    ),
    size=512,
    condition_size=512,
    crop_scale=3.0,
    steps=25,
    guidance=1.5,
    image_sampler=Sampler("EulerDiscreteScheduler", EULER),
    clip_sampler=ClipSampler("EulerDiscreteScheduler", EULER),
    text_width=768,
    prompt="headshot, person, best quality, sharp focus",
    license="creativeml-openrail-m",
)
# From v3 on. The prompt is v1's, where the released app has other words for v5b and v5c.
LATER_ROW = SD15_ROW | dict(
    image_sampler=Sampler("DPMSolverMultistepScheduler", EULER | {"algorithm_type": "sde-dpmsolver++"}),
    clip_sampler=ClipSampler("EulerDiscreteScheduler", EULER, key_frames=True),
    negative_emotion="zeros",
)
V5_ROW = LATER_ROW | dict(
    clip_sampler=ClipSampler(
        "DPMSolverMultistepScheduler",
        EULER | {"algorithm_type": "sde-dpmsolver++"},
        first_pass=False,
        key_frames=True,
    )
)
V5_CONTROLS = projected(
    "HM5ControlNetBase",
    Source.of("songkey/hm5_control_base"),
    "HM5SD15ControlProj",
    Source.of("songkey/hm5_control_proj"),
)
V5_MOTION = (knitted_motion("HM5MotionAdapter", Source.of("songkey/hm5_motion")),)

RELEASES: tuple[Release, ...] = (
    Release(
        name="demo",
        title="Demo: toon heads, 192 px, no network needed",
        root=DEMO,
        base=Source(""),
        reference=reference(Source("hm_reference")),
        controls=(
            coefficients("HMControlNet", Source("hm_control")),
            coefficients("HMV2ControlNet", Source("hm_control_up"), "hm_control_up"),
        ),
        motion=(motion_module(Source("motion")),),
        size=192,
        condition_size=48,
        crop_scale=2.0,
        steps=1,
        guidance=1.0,
        image_sampler=Sampler(),
        # Its schedule ends in pure noise, under which nothing of a first pass is left
        clip_sampler=ClipSampler(first_pass=False),
        text_width=None,
        face_basis=FACE_BASIS,
        reference_control=True,
        license="mit",
        turns={"pitch": (-19.0, 38.0), "yaw": (-38.0, 38.0), "roll": (-19.0, 19.0)},
    ),
    Release(
        name="v1",
        title="HelloMeme v1: Stable Diffusion 1.5, 512 px",
        reference=reference(Source.of("songkey/hm_reference")),
        controls=(
            emotion("HMControlNet2", Source.of("songkey/hm_control2")),
            coefficients("HMControlNet", Source.of("songkey/hm_control")),
        ),
        motion=(motion_module(Source.of("songkey/hm_animatediff_frame12")),),
        gigabytes=4.8,
        **SD15_ROW,
    ),
    Release(
        name="v2",
        title="HelloMeme v2: Stable Diffusion 1.5, 512 px",
        reference=reference(Source.of("songkey/hm2_reference")),
        controls=(
            emotion("HMV2ControlNet2", Source.of("songkey/hm2_control2")),
            coefficients("HMV2ControlNet", Source.of("songkey/hm2_control")),
        ),
        motion=(motion_module(Source.of("songkey/hm2_animatediff_frame12")),),
        gigabytes=4.9,
        **SD15_ROW,
    ),
    # Where the hub shows no size, gigabytes counts float32
    Release(
        name="v3",
        title="HelloMeme v3: Stable Diffusion 1.5, 512 px",
        reference=reference(Source.of("songkey/hm3_reference"), "HM3ReferenceAdapter"),
        controls=either("control:HMV3ControlNet", Source.of("songkey/hm3_control_mix")),
        motion=(
            motion_module(Source.of("songkey/hm3_animatediff")),
            knitted_motion("HM3MotionAdapter", Source.of("songkey/hm3_motion")),
        ),
        gigabytes=5.5,
        **LATER_ROW,
    ),
    Release(
        name="v4",
        title="HelloMeme v4: Stable Diffusion 1.5, 512 px",
        reference=reference(Source.of("songkey/hm4_reference"), "HM3ReferenceAdapter"),
        controls=projected(
            "HMControlNetBase",
            Source.of("songkey/hm_control_base"),
            "HM4SD15ControlProj",
            Source.of("songkey/hm4_control_proj"),
        ),
        motion=(
            motion_module(Source.of("songkey/hm4_animatediff")),
            knitted_motion("HM3MotionAdapter", Source.of("songkey/hm4_motion")),
        ),
        gigabytes=5.9,
        **LATER_ROW,
    ),
    Release(
        name="v5",
        title="HelloMeme v5: Stable Diffusion 1.5, 512 px",
        reference=reference(Source.of("songkey/hm5_reference"), "HM5ReferenceAdapter"),
        controls=V5_CONTROLS,
        motion=V5_MOTION,
        gigabytes=6.1,
        **V5_ROW,
    ),
    Release(
        name="v5b",
        title="HelloMeme v5b: Stable Diffusion 1.5, 512 px",
        reference=reference(Source.of("songkey/hm5b_reference"), "HM5bReferenceAdapter"),
        controls=V5_CONTROLS,
        motion=V5_MOTION,
        gigabytes=6.8,
        **V5_ROW,
    ),
    Release(
        name="v5c",
        title="HelloMeme v5c: Stable Diffusion 1.5, 512 px, pictures only",
        reference=reference(Source.of("songkey/hm5c_reference"), "HM5bReferenceAdapter"),
        controls=projected(
            "HM5ControlNetBase",
            Source.of("songkey/hm5_control_base"),
            "HM5SD15ControlProj",
            Source.of("songkey/hm5c_control_proj"),
        ),
        reference_control=True,
        gigabytes=6.8,
        **V5_ROW,
    ),
)
