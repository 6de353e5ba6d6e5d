"""The pictures and clips that the page draws before the first visitor does, to know how fast it is."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.few_steps import OFF
from hellomeme.releases.files import lacking, needed
from hellomeme.releases.load import find
from hellomeme.settings import ClipSettings, Settings

from . import state
from .drawing import clip_plan, draw_image, make_clip
from .own_cores import draws_here

FEW_STEPS, MORE_STEPS = 2, 4  # of the clips: at most so many, then so many more
WARM_UP = 30.0  # s: the most that each of the clips may take, on a busy computer


def draw_first_images(reference: str, driver: str) -> None:
    """Draws two pictures before the first visitor does, unless that would take GPU time: initialisation is
    then done, and the pace known."""
    page, settings = state.STATE, Settings(steps=2)
    if not draws_here(page.release, settings):
        return
    with contextlib.suppress(HelloMemeError, gr.Error), page.run(None) as flag:
        paths = {"reference": reference, "driver": driver}
        portraits = [page.portrait(page.release, path, name, None) for name, path in paths.items()]
        for _ in range(2):
            page.pace.pop(page.release, None)  # the first one is slow
            draw_image(page.release, *portraits, settings, flag, page.style)


def draw_first_clips(reference: str, driver: str) -> None:
    """Draws half a second of a clip with few steps and then with more, so that the first visitor gets an
    estimate. Nothing where that would take long, or download anything."""
    from hellomeme.video import select_frames

    page, clip = state.STATE, ClipSettings(end=0.5)
    row, pace = find(page.release), page.pace.get(page.release)
    if pace is None or lacking(needed(row, clips=True)):
        return
    fewest = min(row.steps, FEW_STEPS)
    with contextlib.suppress(HelloMemeError, gr.Error), page.run(None) as flag:
        frames = select_frames(driver, clip).count
        portrait = page.portrait(page.release, reference, "reference", None)
        for steps in (fewest, fewest + MORE_STEPS):
            settings = Settings(steps=steps).resolved(row)
            passes = clip_plan(page.release, frames, settings, clip).passes
            expected = page.clip_paces.drawing((page.release, OFF), frames, passes) or pace * passes
            if expected > WARM_UP or not draws_here(page.release, settings):
                return
            with tempfile.TemporaryDirectory(prefix="hellomeme-") as folder:
                output = Path(folder, "clip.mp4")
                make_clip(page.release, portrait, driver, output, settings, clip, flag, page.style)
