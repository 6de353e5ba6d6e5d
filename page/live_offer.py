"""With which models Live is offered, as measured, and whose turn it is to draw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hellomeme.releases.load import find
from hellomeme.settings import Settings

from . import spaces_gpu, state
from .own_cores import SMALL

SLOWEST = 0.5  # s for a picture: Live is not offered with models that take longer
WAIT = 1.0  # s for another visitor's picture


def refusal(model: str, settings: Settings) -> str | None:
    """Why Live is not offered with a model and resolved settings, as a sentence; None where it is."""
    row, (title, reason) = find(model), state.STATE.models[model]
    if reason is not None:
        return reason
    if row.size <= SMALL:
        return None
    if spaces_gpu.ON_SPACES:
        return (
            f"Live is not offered with {title} here, as a GPU is lent for one picture at a time: choose the "
            "demo model, or run this page on a computer of your own."
        )
    seconds = picture_seconds(model, settings)
    if seconds is None:
        return (
            f"How fast {title} draws here is not known yet: draw one picture with it in the Image tab, then "
            "start the camera again."
        )
    if seconds > SLOWEST:
        return (
            f"A picture of {title} takes {seconds:.1f} s here, and Live needs two a second: choose the demo "
            "model, fewer steps or a guidance of 1."
        )
    return None


def picture_seconds(model: str, settings: Settings) -> float | None:
    """How long a picture takes with resolved settings, as measured; None before the first one."""
    pace = state.STATE.pace.get(model)
    return None if pace is None else pace * settings.steps * (2 if settings.guidance > 1 else 1)


@contextlib.contextmanager
def turn_to_draw() -> Iterator[bool]:
    """Whether nobody else draws, or stopped within a second: it is then this visitor's turn."""
    lock = state.STATE.drawing_lock
    if not lock.acquire(timeout=WAIT):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
