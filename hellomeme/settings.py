"""The settings of a picture and of a clip: the only place of their ranges, defaults and help texts.

Sliders, command line and tests read them from the metadata of the fields::

    for field in dataclasses.fields(Settings):
        field.name, field.default, field.metadata["min"], field.metadata["label"], ...
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import HelloMemeError
from .prompts import check_prompt
from .releases.few_steps import NAMES, OFF, find_preset

if TYPE_CHECKING:
    from .releases.table import Release

NO_UPSCALER = (
    "Upscaling needs a network: name a .safetensors file or hub id as the upscaler (--upscaler), or leave "
    "upscaling off."
)
MAX_SEED = 2**31 - 1
MAX_TEXT = 2000  # letters; the text encoder reads about 75 words


def number(kind: type, default: Any, low: float, high: float, step: float, label: str, help: str) -> Any:
    """A dataclass field for a number of type `kind` in [low, high]; the default None means "not chosen".

    step: of a slider. label, help: texts of the user interface.
    """
    metadata = {
        "kind": kind,
        "min": low,
        "max": high,
        "step": step,
        "default": default,
        "label": label,
        "help": help,
    }
    return dataclasses.field(default=default, metadata=metadata)


def _text(label: str, help: str) -> Any:
    """A field for a text, empty by default."""
    return dataclasses.field(default="", metadata={"kind": str, "default": "", "label": label, "help": help})


def _switch(default: bool, label: str, help: str) -> Any:
    """A field for a bool."""
    return dataclasses.field(
        default=default, metadata={"kind": bool, "default": default, "label": label, "help": help}
    )


def _choice(choices: tuple[str, ...], label: str, help: str) -> Any:
    """A field for one of these strings, by default the first."""
    metadata = {"kind": str, "choices": choices, "default": choices[0], "label": label, "help": help}
    return dataclasses.field(default=choices[0], metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Settings of a picture or clip.

    A value of the wrong type, NaN, or a number out of its range raises HelloMemeError. `guidance` and `steps`
    are None if not chosen; `resolved` then takes them from the few-step preset or the release.
    """

    expression: float = number(
        float,
        1.0,
        0.0,
        2.0,
        0.05,
        "Expression",
        "0 keeps the reference's own expression, 1 is the driver's, above 1 exaggerates.",
    )
    head: float = number(
        float,
        1.0,
        0.0,
        1.5,
        0.05,
        "Head turn",
        "0 keeps the reference's own head pose, 1 is the driver's, above 1 turns further.",
    )
    translation: float = number(
        float,
        0.0,
        0.0,
        1.0,
        0.05,
        "Head shift",
        "How far the head moves about the picture with the driver's; only clips move.",
    )
    guidance: float | None = number(
        float,
        None,
        1.0,
        10.0,
        0.1,
        "Guidance",
        "How strongly reference, pose and prompt steer; 1 switches guidance off and is twice as fast.",
    )
    steps: int | None = number(int, None, 1, 50, 1, "Steps", "Denoising steps: more are slower and finer.")
    seed: int = number(int, 0, 0, MAX_SEED, 1, "Seed", "The same seed and input give the same picture.")
    reference_face: int | None = number(
        int,
        None,
        0,
        99,
        1,
        "Face in the reference",
        "Which face, counted from 0 by size; the largest if not given.",
    )
    driver_face: int | None = number(
        int,
        None,
        0,
        99,
        1,
        "Face in the driver",
        "Which face, counted from 0 by size; the largest if not given.",
    )
    feather: float = number(
        float,
        0.5,
        0.0,
        1.0,
        0.05,
        "Soft edge",
        "How softly the result goes over into the original picture, where it is pasted back into it; "
        "0 is a hard edge.",
    )
    prompt: str = _text("Prompt", "Words put in front of the model's own prompt; (words:1.3) count for more.")
    negative_prompt: str = _text("Negative prompt", "Words to steer away from.")
    few_steps: str = _choice(
        NAMES, "Few steps", "A LoRA with which 4 to 8 steps suffice; it sets steps and guidance, too."
    )

    reuse: int = number(
        int,
        1,
        1,
        10,
        1,
        "Reuse",
        "Deep features are computed at every so many steps and reused at the others: 3 takes less than half "
        "the time of 25 steps, and the picture differs a little.",
    )
    guidance_end: float = number(
        float,
        1.0,
        0.0,
        1.0,
        0.05,
        "Guidance end",
        "Share of the steps after which there is no guidance: steps without it take half the time.",
    )
    upscale: str = _choice(
        (OFF, "2", "4"), "Upscaling", "How many times larger the upscaler makes the face picture or clip."
    )

    def __post_init__(self):
        check(self)
        for prompt in (self.prompt, self.negative_prompt):
            check_prompt(prompt)

    @property
    def enlargement(self) -> int:
        """How many times larger the result is than what the networks draw."""
        return 1 if self.upscale == OFF else int(self.upscale)

    @property
    def skips_work(self) -> bool:
        """Whether some steps are drawn with less than all of the network, or without guidance."""
        return self.reuse > 1 or self.guidance_end < 1

    def resolved(self, release: Release) -> Settings:
        """A copy with the guidance and steps of the few-step preset, or of the release, where they are None.

        Raises HelloMemeError for a preset with a release that it was not made for.
        """
        defaults = find_preset(self.few_steps, release) or release
        return dataclasses.replace(
            self,
            guidance=defaults.guidance if self.guidance is None else self.guidance,
            steps=defaults.steps if self.steps is None else self.steps,
        )

    def prompts(self, release: Release) -> tuple[str, str]:
        """The user's words in front of the release's, and the negative ones."""
        prompt = ", ".join(filter(None, (self.prompt.strip(), release.prompt)))
        negative = (self.negative_prompt.strip(), release.negative_prompt)
        return prompt, ", ".join(filter(None, negative))


@dataclass(frozen=True)
class ClipSettings:
    """Settings of a clip in addition to `Settings`. Bad values raise HelloMemeError."""

    frames: int = number(
        int,
        0,
        0,
        100_000,
        1,
        "Frames",
        "How many frames to make; 0 makes all. Without a start they are spread evenly over the clip.",
    )
    start: float | None = number(
        float,
        None,
        0.0,
        86_400.0,
        0.1,
        "Start",
        "Seconds into the driver at which to begin; frames then follow each other.",
    )
    end: float | None = number(
        float,
        None,
        0.0,
        86_400.0,
        0.1,
        "End",
        "Seconds into the driver at which to stop; its own end if not given.",
    )
    rate: str = _choice(
        ("source", "8", "12", "15", "24", "25", "30"),
        "Frames a second",
        "The driver's own rate, or another; frames spread over the clip play at it faster than life, "
        "without sound.",
    )
    smoothing: float = number(
        float,
        0.5,
        0.0,
        1.0,
        0.05,
        "Smoothing",
        "Calms what trembles while the head is still; 0 switches it off.",
    )
    relative: bool = _switch(
        False,
        "Relative motion",
        "Adds the driver's changes to the reference's own pose instead of copying the pose.",
    )
    neutral: int | None = number(
        int,
        None,
        0,
        100_000,
        1,
        "Neutral frame",
        "The frame from which relative motion counts, from 0; the calmest one if not given.",
    )
    region: str = _choice(
        ("all", "expression", "head", "eyes", "mouth"), "Region", "Which part of the driver's motion counts."
    )
    motion: bool = _switch(
        True, "Motion module", "Looks across frames, where the model can, so that they flicker less."
    )
    overlap: int = number(
        int,
        4,
        0,
        8,
        1,
        "Overlap",
        "Frames that neighbouring windows of 12 share: more are smoother and slower. From v3 on it is one.",
    )
    fast: bool = _switch(
        False,
        "Fast first pass",
        "In v1 and v2, draws the first pass in batches instead of each frame from the one before.",
    )
    side_by_side: bool = _switch(False, "Side by side", "Shows the driver and its pose beside the result.")

    def __post_init__(self):
        check(self)


def check(settings: Any) -> None:
    """Converts the fields of a frozen settings dataclass to their types, in place; raises HelloMemeError for
    the first bad value."""
    for field in dataclasses.fields(settings):
        object.__setattr__(settings, field.name, _checked(field, getattr(settings, field.name)))


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """`value` in the type of the field; HelloMemeError if the field does not allow it."""
    wanted = field.metadata
    label = wanted["label"]
    if value is None and wanted["default"] is None:
        return None
    if wanted["kind"] is bool:
        if not isinstance(value, bool):
            raise HelloMemeError(f"{label} must be on or off, not {_shown(value)}.")
        return value
    if "choices" in wanted and str(value) not in wanted["choices"]:
        raise HelloMemeError(f"{label} must be one of {', '.join(wanted['choices'])}, not {_shown(value)}.")
    if wanted["kind"] is str:
        value = str(value) if "choices" in wanted else value
        if not isinstance(value, str):
            raise HelloMemeError(f"{label} must be text, not {_shown(value)}.")
        if len(value) > MAX_TEXT:
            raise HelloMemeError(f"{label} is {len(value)} letters long: shorten it to {MAX_TEXT}.")
        if any("\ud800" <= letter <= "\udfff" for letter in value):  # a lone surrogate cannot be encoded
            raise HelloMemeError(f"{label} holds a broken letter: type it again.")
        return value
    low, high = wanted["min"], wanted["max"]
    whole = wanted["kind"] is int
    kind, most = ("whole number", high) if whole else ("number", f"{high:g}")
    described = f"{label} must be a {kind} from {low:g} to {most}"
    # Any number type will do: a slider sends 4.0 for 4, and NumPy has its own types
    try:
        found = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not low <= found <= high or (whole and found != int(found)):
        raise HelloMemeError(f"{described}, not {_shown(value)}.")
    return wanted["kind"](found)


def _shown(value: Any) -> str:
    """The repr of a value on one line, shortened to 60 characters."""
    text = "empty" if value is None else " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
