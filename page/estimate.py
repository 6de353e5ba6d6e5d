"""How long a clip will be, and how long it will take."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from hellomeme.errors import HelloMemeError
from hellomeme.face.motion import is_motion_file
from hellomeme.releases.load import find
from hellomeme.settings import ClipSettings

from . import drawing, state
from .events import CLIP_SETTINGS, Values, clip_settings_of, settings_of, with_arguments
from .imports import import_networks
from .paces import ClipWork

WARM_UP = 60.0  # s: how long an estimate waits for the first measurement


def clip_source(driver: str | None, motion_file: str | None) -> str:
    """The path of a clip's driver; a motion file counts before a clip. HelloMemeError if there is none."""
    if motion_file and not is_motion_file(motion_file):
        raise HelloMemeError("The motion file must be one that was saved here, ending in .npz.")
    if not (driver or motion_file):
        raise HelloMemeError("There is no driver yet: upload a clip, record one, or choose a motion file.")
    return motion_file or driver


@with_arguments(
    "model",
    "guidance",
    "steps",
    *CLIP_SETTINGS,
    "driver",
    "motion_file",
    "upscale",
    "reuse",
    "guidance_end",
    optional=("driver", "motion_file", "upscale", "reuse", "guidance_end"),
)
def estimate(values: Values, session: str | None) -> Iterator[str]:
    """The number of frames and the length of a clip with these settings, and about how long it will take."""
    model, driver, motion_file = (values[name] for name in ("model", "driver", "motion_file"))
    try:
        clip, source = clip_settings_of(values), clip_source(driver, motion_file)
        settings = settings_of(values).resolved(find(model))
        count, played, analysed = length(source, clip)
        drawing.clip_duration(model, count, settings, clip)
    except HelloMemeError as error:
        yield "" if not (driver or motion_file) else str(error)
        return
    plays = (
        f"{count} {'frame' if count == 1 else 'frames'}, {float(count / played):.1f} s at "
        f"{float(played):.4g} a second"
    )
    page, kind = state.STATE, (model, settings.upscale)
    work = ClipWork(analysed, count, drawing.clip_plan(model, count, settings, clip).passes)
    if page.clip_paces.whole(kind, work) is None and page.is_warming_up(model):
        yield f"{plays}. How long it takes is being measured."
        page.warm.wait(WARM_UP)
    seconds = page.clip_paces.whole(kind, work)
    if seconds is None:
        yield f"{plays}. How long it takes here is known after the first clip with this model."
    else:
        yield f"{plays}. It takes about {_in_words(seconds)} here."


def length(source: str, clip: ClipSettings) -> tuple[int, Fraction, int]:
    """(frames to make, frames a second at which they play, frames to analyse before) for a driver."""
    import_networks()
    from hellomeme.video import select_frames

    selection = select_frames(source, clip)
    return selection.count, selection.output_rate, 0 if is_motion_file(source) else selection.count


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
