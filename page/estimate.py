"""How long a clip will be, and how long it will take."""

from __future__ import annotations

from fractions import Fraction

from hellomeme.errors import HelloMemeError
from hellomeme.face.motion import is_motion_file
from hellomeme.releases.load import find
from hellomeme.settings import ClipSettings

from . import drawing, state
from .events import CLIP_SETTINGS, Values, clip_settings_of, settings_of, with_arguments
from .imports import import_networks

ANALYSIS = 0.03  # s a frame: reading it, and MediaPipe's two passes over it


def clip_source(driver: str | None, motion_file: str | None) -> str:
    """The path of a clip's driver; a motion file counts before a clip. HelloMemeError if there is none."""
    if motion_file and not is_motion_file(motion_file):
        raise HelloMemeError("The motion file must be one that was saved here, ending in .npz.")
    if not (driver or motion_file):
        raise HelloMemeError("There is no driver yet: upload a clip, record one, or choose a motion file.")
    return motion_file or driver


@with_arguments(
    "model", "guidance", "steps", *CLIP_SETTINGS, "driver", "motion_file", optional=("driver", "motion_file")
)
def estimate(values: Values, session: str | None) -> str:
    """The number of frames and the length of a clip with these settings, and about how long it will take."""
    model, driver, motion_file = (values[name] for name in ("model", "driver", "motion_file"))
    try:
        clip, source = clip_settings_of(values), clip_source(driver, motion_file)
        settings = settings_of(values).resolved(find(model))
        count, played, analysed = length(source, clip)
        drawing.clip_duration(model, count, settings, clip)
    except HelloMemeError as error:
        return "" if not (driver or motion_file) else str(error)
    plays = (
        f"{count} {'frame' if count == 1 else 'frames'}, {float(count / played):.1f} s at "
        f"{float(played):.4g} a second"
    )
    pace = state.STATE.pace.get(model)
    if pace is None:
        return f"{plays}. How long it takes is known after the first picture."
    passes = 2 if settings.guidance > 1 else 1
    wait = drawing.predictions(model, count, settings, clip) * passes * pace + analysed * ANALYSIS
    return f"{plays}. It takes about {_in_words(wait)} here."


def length(source: str, clip: ClipSettings) -> tuple[int, Fraction, int]:
    """(frames to make, frames a second at which they play, frames to analyse before) for a driver."""
    import_networks()
    from hellomeme.video import select_frames

    selection = select_frames(source, clip)
    return selection.count, selection.output_rate, 0 if is_motion_file(source) else selection.count


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
