"""What needs the GPU. Arguments and results are such as can be pickled, since on Spaces they go to another
process and back; faces are found before, clips and files are coded after."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import find
from hellomeme.settings import ClipSettings, Settings

from . import studio
from .spaces_gpu import ON_SPACES, check, gpu, seconds

if TYPE_CHECKING:
    import numpy as np

    from hellomeme.face.edit import Turn
    from hellomeme.reenactor import Portrait, Result
    from hellomeme.video import Report


def needed(release: str, settings: Settings, pictures: int = 1) -> int:
    """Seconds of GPU time for so many pictures; HelloMemeError where Spaces would not give them."""
    row = find(release)
    settings = settings.resolved(row)
    time_needed = seconds(pictures * settings.steps, settings.guidance, row.size)
    check(time_needed, "the steps")
    return time_needed


@gpu(duration=lambda release, reference, driver, settings, flag: needed(release, settings))
def picture(
    release: str, reference: Portrait, driver: Portrait, settings: Settings, flag: str
) -> Result | None:
    """The reference with the driver's face, or None if the file `flag` appeared meanwhile."""
    return _one(
        release,
        None,
        reference,
        settings,
        flag,
        lambda reenactor, **more: reenactor.image(driver, settings, **more),
    )


@gpu(duration=lambda release, reference, coefficients, turn, settings, flag: needed(release, settings))
def expression(
    release: str, reference: Portrait, coefficients: dict, turn: Turn, settings: Settings, flag: str
) -> Result | None:
    """The reference with these ARKit coefficients and this turn of the head, or None as above."""

    def draw(reenactor, **more) -> Result:
        return reenactor.expression(coefficients, turn, settings, **more)

    return _one(release, "drive_coeff", reference, settings, flag, draw)


@gpu(duration=lambda release, reference, drivers, settings, flag: needed(release, settings, len(drivers)))
def row(
    release: str, reference: Portrait, drivers: list[Portrait], settings: Settings, flag: str
) -> list[Result] | None:
    """The reference with each driver's face, or None as above."""
    results = []
    for driver in drivers:
        result = _one(
            release,
            None,
            reference,
            settings,
            flag,
            lambda model, driver=driver, **more: model.image(driver, settings, **more),
            False,
        )
        if result is None:
            return None
        results.append(result)
    return results


def _one(
    release, code, reference, settings, flag, draw: Callable[..., Result], shown: bool = True
) -> Result | None:
    from hellomeme.reenactor import Stopped

    own, told = studio.STUDIO, gr.Progress()

    def step_done(step: int, steps: int) -> None:
        if shown:
            told((step, steps), desc="Drawing", unit="steps")

    with studio.told_to_the_visitor(), own.turn:
        # Said here, as only a gr.Error comes back whole from another process
        try:
            reenactor = own.drawing(release, code)
            ready = own.reference(release, reference, code)
            settings = settings.resolved(reenactor.release)
            started = time.perf_counter()
            result = draw(reenactor, reference=ready, progress=studio.stopper(flag, step_done))
        except Stopped:
            return None
        own.measured(release, settings.steps, settings.guidance, time.perf_counter() - started)
    return result


def try_out(reference: str, driver: str) -> None:
    """Draws one picture, so that the first visitor does not wait for what is done once, and the pace is
    known."""
    own = studio.STUDIO
    with contextlib.suppress(HelloMemeError, gr.Error), own.stoppable(None) as flag:
        faces = (
            own.portrait(own.release, path, name, None)
            for path, name in ((reference, "reference"), (driver, "driver"))
        )
        picture(own.release, *faces, Settings(steps=2), flag)


def predictions(release: str, frames: int, settings: Settings, clip: ClipSettings) -> int:
    """How many frames the network predicts for a clip, all steps and overlaps counted."""
    from hellomeme.sampling.windows import ClipPlan

    row = find(release)
    has_module = row.motion is not None and (
        "/" in row.motion or bool(row.root and (row.root / row.motion).is_dir())
    )
    return ClipPlan.of(frames, settings, clip, row, has_module).predictions()


def clip_needed(release: str, frames: int, settings: Settings, clip: ClipSettings) -> int:
    """Seconds of GPU time for a clip; HelloMemeError where Spaces would not give them. Settings are resolved
    ones."""
    time_needed = seconds(predictions(release, frames, settings, clip), settings.guidance, find(release).size)
    check(time_needed, "the number of frames or the steps")
    return time_needed


class ToldInFrames:
    """Progress of a clip as the visitor sees it: the phase, how far it is, and about how long it still
    takes."""

    def __init__(self):
        self.told = gr.Progress()
        # phase -> when it was first heard of, and how many frames it had
        self.began: dict[str, tuple[float, int]] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        began, before = self.began.setdefault(phase, (now, done))
        left = f", {(now - began) * (total - done) / (done - before):.0f} s left" if done > before else ""
        self.told((done, total), desc=phase.capitalize() + left, unit="frames")


def clip(
    release: str,
    reference: Portrait,
    driver: str,
    output: Path,
    settings: Settings,
    clip: ClipSettings,
    flag: str,
) -> Report | None:
    """Makes the clip `output`, or returns None if the file `flag` appeared meanwhile."""
    from hellomeme.reenactor import Stopped

    own, told = studio.STUDIO, ToldInFrames()
    with own.turn:
        reenactor = own.reenactor(release)
        if ON_SPACES:
            where = {"reference": reference, "draw": functools.partial(_lent, release, flag)}
        else:
            where = {"reference": own.reference(release, reference)}
        try:
            report = reenactor.video(driver, output, settings, clip, studio.stopper(flag, told), **where)
        except Stopped:
            return None
    if "drawing" in told.began:  # not where another process draws
        count = predictions(release, report.frames, report.settings, clip)
        own.measured(release, count, report.settings.guidance, time.perf_counter() - told.began["drawing"][0])
    return report


def _lent(
    release: str, flag: str, reference: Portrait, motion, settings, clip, progress
) -> Sequence[np.ndarray]:
    """The frames of a clip, drawn in another process while that has the GPU."""
    frames = _frames(release, reference, motion, settings, clip, flag)
    if frames is None:
        from hellomeme.reenactor import Stopped

        raise Stopped
    return frames


@gpu(
    duration=lambda release, reference, motion, settings, clip, flag: clip_needed(
        release, len(motion), settings, clip
    )
)
def _frames(release: str, reference: Portrait, motion, settings, clip, flag: str) -> list[np.ndarray] | None:
    from hellomeme.reenactor import Stopped

    own, progress = studio.STUDIO, studio.stopper(flag, ToldInFrames())
    with studio.told_to_the_visitor():
        try:
            reenactor, ready = own.drawing(release), own.reference(release, reference)
            return list(reenactor.frames(ready, motion, settings, clip, progress))
        except Stopped:
            return None
