"""How a clip is to be drawn, and how much work that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .keyframes import predicted_frames
from .windows import BATCH, WINDOW

if TYPE_CHECKING:
    from ..releases.table import Release
    from ..settings import ClipSettings, Settings

FIRST_STEPS = 10  # at most so many in the first pass
REUSED = 0.1  # the time of a prediction with reused features, of one without, see benchmarks/step_cost.py


@dataclass(frozen=True)
class ClipPlan:
    """How to draw a clip of `frames` frames.

    steps, guidance: as for a picture. together: with motion networks, in windows that share `overlap` frames;
    without, each frame is drawn alone.
    first_pass: start those from the frames drawn alone, with new noise, instead of from the same noise for
    all.
    key_frames: instead, in windows that share their end frames, which are drawn before the others. overlap
    and fast then have no effect, and the first pass draws the first and the last frame.
    fast: in the first pass start each frame from noise, in batches, instead of from the frame before.
    reuse, guidance_end: as for a picture.
    window: how many frames are drawn together. low_memory: never more than one frame at once where each
    stands alone, and the halves of guidance one after the other.
    """

    frames: int
    steps: int
    guidance: float
    together: bool = True
    first_pass: bool = True
    overlap: int = 4
    fast: bool = False
    window: int = WINDOW
    low_memory: bool = False
    key_frames: bool = False
    reuse: int = 1
    guidance_end: float = 1.0

    @classmethod
    def of(
        cls, frames: int, settings: Settings, clip: ClipSettings, release: Release, together: bool
    ) -> ClipPlan:
        """The plan of a clip with these settings, which are resolved ones. together: whether the release has
        motion networks; the settings may switch them off."""
        way = release.clip_sampler
        return cls(
            frames,
            settings.steps,
            settings.guidance,
            clip.motion and together,
            way.first_pass,
            clip.overlap,
            clip.fast,
            key_frames=way.key_frames,
            reuse=settings.reuse,
            guidance_end=settings.guidance_end,
        )

    @property
    def windows(self) -> list[range]:
        """The frames of each window, without key frames. As in the released code, the last one extends past
        the last frame."""
        stride = self.window - self.overlap
        count = max(1, (self.frames - self.overlap) // stride + 1)
        return [range(first, first + self.window) for first in range(0, count * stride, stride)]

    @property
    def padded(self) -> int:
        """Frames of those windows, those beyond the end of the clip included."""
        return self.windows[-1].stop

    @property
    def ends(self) -> np.ndarray:
        """The first and the last frame, one number for a clip of one frame."""
        return np.unique([0, self.frames - 1])

    @property
    def at_once(self) -> int:
        """Frames of 512 px that the network predicts at a time, each half of guidance counted."""
        halves = 2 if self.guidance > 1 and not self.low_memory else 1
        alone = 1 if self.low_memory else min(BATCH, self.frames)
        return halves * (self.window if self.together else alone)

    @property
    def first_steps(self) -> int:
        """Steps of the first pass."""
        return self.steps if self.key_frames else min(FIRST_STEPS, self.steps)

    @property
    def passes(self) -> float:
        """How often the network runs for a frame in all: a guided step counts twice, one that reuses deep
        features as the part of the time that it takes."""

        def cost(steps: int) -> float:
            guided = round(self.guidance_end * steps) if self.guidance > 1 else 0
            return sum((2 if i < guided else 1) * (REUSED if i % self.reuse else 1) for i in range(steps))

        return self.predictions(cost)

    def predictions(self, calls: Callable[[int], float] = int) -> float:
        """How many frames the network predicts in all, every step and overlap counted.

        calls: steps -> calls of the network, for schedulers of higher order, or another cost of the steps.
        """
        if not self.together:
            return self.frames * calls(self.steps)
        if self.key_frames:
            alone, together = len(self.ends), predicted_frames(self.frames, self.window)
        else:
            alone, together = self.frames, sum(map(len, self.windows))
        first = alone * calls(self.first_steps) if self.first_pass else 0
        return first + together * calls(self.steps)

    def in_portions(self, smallness: int) -> ClipPlan:
        """The same clip as it is (0), with the halves of guidance one after the other (1), or in smaller
        windows, too (2)."""
        return self if smallness == 0 else self.with_low_memory(started=smallness == 1)

    def with_low_memory(self, started: bool) -> ClipPlan:
        """The same clip in smaller portions: in windows of half as many frames, too, unless it is `started`.

        The frames that follow must fit those that are there, and with other windows the noise is another.
        """
        if started:
            return replace(self, low_memory=True)
        return replace(self, low_memory=True, window=WINDOW // 2, overlap=min(self.overlap, WINDOW // 4))
