"""What needs the GPU: pictures, and the frames of clips.

On Spaces the functions with the decorator `lends_gpu` run in another process, unless the model draws fast
enough on the Space's own cores. So their arguments and results must be picklable. Faces are found before, and
files are written after, without the GPU.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from hellomeme.face.motion import is_motion_file
from hellomeme.releases.few_steps import OFF
from hellomeme.releases.load import find, has_motion
from hellomeme.releases.styles import Style
from hellomeme.settings import ClipSettings, Settings

from . import spaces_gpu, state
from .errors import visitor_errors
from .own_cores import draws_here
from .paces import TimeLeft
from .runs import stop_check
from .spaces_gpu import gpu

if TYPE_CHECKING:
    import numpy as np

    from hellomeme.face.edit import Turn
    from hellomeme.face.motion import Motion
    from hellomeme.reenactor import Portrait, Reenactor, Result
    from hellomeme.sampling.plan import ClipPlan
    from hellomeme.video import Report

ARKIT = "drive_coeff"  # the expression type of control nets that take ARKit coefficients


def image_duration(release: str, settings: Settings, pictures: int = 1, style: Style = Style()) -> int:
    """Seconds of GPU time for so many pictures. HelloMemeError where Spaces would refuse them."""
    row = find(release)
    settings = settings.resolved(row)
    seconds = spaces_gpu.duration(pictures * settings.steps, settings.guidance, row.size)
    seconds += _loading(style, settings)
    if not draws_here(release, settings):
        spaces_gpu.check_duration(seconds, "the steps")
    return seconds


def _loading(style: Style, settings: Settings) -> int:
    """Seconds for loading other weights than those of the page's start, in the process that has the GPU."""
    return spaces_gpu.LOADING if (style, settings.few_steps) != (state.STATE.style, OFF) else 0


def lends_gpu(duration: Callable[..., int]) -> Callable:
    """Decorator as `gpu`, for a function with the parameters `release` and `settings`, which on Spaces runs
    in the page's own process where `draws_here` says so."""

    def decorate(function: Callable) -> Callable:
        lent = gpu(duration)(function)
        if lent is function:
            return function
        parameters = inspect.signature(function)

        @functools.wraps(function)
        def draw(*args, **kwargs):
            given = parameters.bind(*args, **kwargs).arguments
            run = function if draws_here(given["release"], given["settings"]) else lent
            return run(*args, **kwargs)

        return draw

    return decorate


@lends_gpu(
    duration=lambda release, reference, driver, settings, flag, style=Style(): image_duration(
        release, settings, style=style
    )
)
def draw_image(
    release: str, reference: Portrait, driver: Portrait, settings: Settings, flag: str, style: Style = Style()
) -> Result | None:
    """The reference with the driver's face; None if the run was stopped. flag: of the run, see `Runs`."""

    def draw(reenactor: Reenactor, **options) -> Result:
        return reenactor.image(driver, settings, **options)

    return _draw(draw, release, reference, settings, flag, style)


@lends_gpu(
    duration=lambda release, reference, coefficients, turn, settings, flag, style=Style(): image_duration(
        release, settings, style=style
    )
)
def draw_expression(
    release: str,
    reference: Portrait,
    coefficients: Mapping[str, float],
    turn: Turn,
    settings: Settings,
    flag: str,
    style: Style = Style(),
) -> Result | None:
    """The reference with these ARKit coefficients and this turn of the head; None if the run was stopped."""

    def draw(reenactor: Reenactor, **options) -> Result:
        return reenactor.expression(coefficients, turn, settings, **options)

    return _draw(draw, release, reference, settings, flag, style, ARKIT)


@lends_gpu(
    duration=lambda release, reference, drivers, settings, flag, style=Style(): image_duration(
        release, settings, len(drivers), style
    )
)
def draw_row(
    release: str,
    reference: Portrait,
    drivers: list[Portrait],
    settings: Settings,
    flag: str,
    style: Style = Style(),
) -> list[Result] | None:
    """The reference with each driver's face; None if the run was stopped."""
    results = []
    for driver in drivers:

        def draw(reenactor: Reenactor, driver=driver, **options) -> Result:
            return reenactor.image(driver, settings, **options)

        result = _draw(draw, release, reference, settings, flag, style, show_steps=False)
        if result is None:
            return None
        results.append(result)
    return results


def _draw(
    draw: Callable[..., Result],
    release: str,
    reference: Portrait,
    settings: Settings,
    flag: str,
    style: Style,
    expression_type: str | None = None,
    show_steps: bool = True,
) -> Result | None:
    from hellomeme.reenactor import Stopped

    page, progress = state.STATE, gr.Progress()

    def on_step(step: int, steps: int) -> None:
        if show_steps:
            progress((step, steps), desc="Drawing", unit="steps")

    # Errors are converted here, as of all exceptions only a gr.Error is returned from another process.
    with visitor_errors(), page.free_memory_on_error(), page.drawing_lock:
        try:
            reenactor = page.drawing_reenactor(release, expression_type, style)
            ready = page.reference(release, reference, expression_type)
            settings = settings.resolved(reenactor.release)
            started = time.perf_counter()
            result = draw(reenactor, reference=ready, progress=stop_check(flag, on_step))
        except Stopped:
            return None
        page.record_pace(release, settings, time.perf_counter() - started)
    return result


# Clips


def clip_plan(release: str, frames: int, settings: Settings, clip: ClipSettings) -> ClipPlan:
    """How a clip with resolved settings is drawn."""
    from hellomeme.sampling.plan import ClipPlan

    row = find(release)
    return ClipPlan.of(frames, settings, clip, row, has_motion(row))


def clip_duration(
    release: str, frames: int, settings: Settings, clip: ClipSettings, style: Style = Style()
) -> int:
    """Seconds of GPU time for a clip with resolved settings; HelloMemeError where Spaces refuses them."""
    count = clip_plan(release, frames, settings, clip).predictions()
    seconds = spaces_gpu.duration(count, settings.guidance, find(release).size)
    seconds += _loading(style, settings)
    if not draws_here(release, settings):
        spaces_gpu.check_duration(seconds, "the number of frames or the steps")
    return seconds


class ClipProgress:
    """Shows the phase of a clip, how far it is, and about how long the phase still takes.

    drawing: seconds that drawing is expected to take, if earlier runs say so.
    """

    def __init__(self, drawing: float | None = None):
        self.show = gr.Progress()
        self.drawing = drawing
        self.left: dict[str, TimeLeft] = {}  # by phase

    def __call__(self, phase: str, done: float, total: int) -> None:
        expected = self.drawing if phase == "drawing" else None
        left = self.left.setdefault(phase, TimeLeft(expected)).seconds(done / total, time.perf_counter())
        text = phase.capitalize() + ("" if left is None else f", {left:.0f} s left")
        self.show((int(done), total), desc=text, unit="frames")


def make_clip(
    release: str,
    reference: Portrait,
    driver: str,
    output: Path,
    settings: Settings,
    clip: ClipSettings,
    flag: str,
    style: Style = Style(),
) -> Report | None:
    """Writes the clip `output`; None if the run was stopped. driver: path of a clip or motion file."""
    from hellomeme.reenactor import Stopped

    page, kind = state.STATE, (release, settings.upscale)
    settings, started = settings.resolved(find(release)), {}
    with page.drawing_lock:
        if not draws_here(release, settings):
            reenactor = page.reenactor(release)
            frames = functools.partial(_frames_on_gpu, release, flag, style)
            options = {"reference": reference, "style": style}
        else:
            reenactor = page.drawing_reenactor(release, style=style)
            page.add_motion(reenactor, clip)  # now, so that its download is shown, and not measured
            frames, options = reenactor.frames, {"reference": page.reference(release, reference)}

        def draw(reference, motion: Motion, settings: Settings, clip: ClipSettings, _):
            count, now = len(motion), time.perf_counter()
            started.update(frames=count, at=now, passes=clip_plan(release, count, settings, clip).passes)
            if not is_motion_file(driver):
                page.clip_paces.record_analysis(kind, count, now - began)
            progress = ClipProgress(page.clip_paces.drawing(kind, count, started["passes"]))
            if progress.drawing is not None:
                progress("drawing", 0, count)
            return frames(reference, motion, settings, clip, stop_check(flag, progress))

        began = time.perf_counter()
        analysing = stop_check(flag, ClipProgress())
        try:
            report = reenactor.video(driver, output, settings, clip, analysing, draw=draw, **options)
        except Stopped:
            return None
        spent = time.perf_counter() - started["at"]
    if not settings.skips_work:
        page.clip_paces.record_drawing(kind, started["frames"], started["passes"], spent)
    return report


def _frames_on_gpu(
    release: str,
    flag: str,
    style: Style,
    reference: Portrait,
    motion: Motion,
    settings: Settings,
    clip: ClipSettings,
    progress: Callable,
) -> Sequence[np.ndarray]:
    """As `Reenactor.frames`, in the process that has the GPU. That process shows its own progress."""
    from hellomeme.reenactor import Stopped

    frames = draw_frames(release, reference, motion, settings, clip, flag, style)
    if frames is None:
        raise Stopped
    return frames


@lends_gpu(
    duration=lambda release, reference, motion, settings, clip, flag, style=Style(): clip_duration(
        release, len(motion), settings, clip, style
    )
)
def draw_frames(
    release: str,
    reference: Portrait,
    motion: Motion,
    settings: Settings,
    clip: ClipSettings,
    flag: str,
    style: Style = Style(),
) -> list[np.ndarray] | None:
    """The frames of a clip, (size, size, 3) uint8; None if the run was stopped. settings: resolved ones."""
    from hellomeme.reenactor import Stopped

    page, frames, kind = state.STATE, len(motion), (release, settings.upscale)
    expected = page.clip_paces.drawing(kind, frames, clip_plan(release, frames, settings, clip).passes)
    progress = stop_check(flag, ClipProgress(expected))
    with visitor_errors(), page.free_memory_on_error():
        try:
            reenactor = page.drawing_reenactor(release, style=style)
            ready = page.reference(release, reference)
            return list(reenactor.frames(ready, motion, settings, clip, progress))
        except Stopped:
            return None
