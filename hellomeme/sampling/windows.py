"""From noise to a clip of any length, a few frames at a time.

Two ways, as released: each frame alone; or twice, first one frame after the other, then together, by the UNet
with motion modules, in overlapping windows of 12 frames. Latents exist only for the frames in progress.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from ..pipeline import Conditions, HelloMemePipeline, Reference
from .image import Denoise, initial_latents, sample, take_step, with_timesteps

if TYPE_CHECKING:
    from ..releases.table import Release
    from ..settings import ClipSettings, Settings

WINDOW = 12  # frames: what the released motion modules were trained on
FIRST_STEPS = 10  # at most so many in the first pass
BATCH = 4  # frames drawn at once where each stands alone

FrameDenoiser = Callable[[np.ndarray], Denoise]  # frame numbers -> what predicts those frames
OnProgress = Callable[[float], None]


@dataclass(frozen=True)
class ClipPlan:
    """How to draw a clip of `frames` frames.

    steps, guidance: as for a picture. together: with the motion module, in windows that share `overlap`
    frames; without, each frame is drawn alone.
    first_pass: start those from the frames drawn alone, with new noise, instead of from the same noise for
    all.
    fast: in the first pass start each frame from noise, in batches, instead of from the frame before.
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

    @classmethod
    def of(
        cls, frames: int, settings: Settings, clip: ClipSettings, release: Release, together: bool
    ) -> ClipPlan:
        """The plan of a clip with these settings, which are resolved ones. together: whether the release has
        a motion module; the settings may switch it off."""
        together, first_pass = clip.motion and together, release.clip_sampler.first_pass
        return cls(frames, settings.steps, settings.guidance, together, first_pass, clip.overlap, clip.fast)

    @property
    def windows(self) -> int:
        """The number of windows. As in the released code, the last one extends past the last frame."""
        return max(1, (self.frames - self.overlap) // (self.window - self.overlap) + 1)

    @property
    def padded(self) -> int:
        """Frames of all windows, those beyond the end of the clip included."""
        return self.windows * (self.window - self.overlap) + self.overlap

    @property
    def first_steps(self) -> int:
        """Steps of the first pass, 0 without one."""
        return min(FIRST_STEPS, self.steps) if self.together and self.first_pass else 0

    def predictions(self, calls: Callable[[int], int] = int) -> int:
        """How many frames the network predicts in all, every step and overlap counted.

        calls: steps -> calls of the network, for schedulers of higher order.
        """
        if not self.together:
            return self.frames * calls(self.steps)
        first = self.frames * calls(self.first_steps) if self.first_steps else 0
        return first + self.windows * self.window * calls(self.steps)

    def with_low_memory(self, started: bool) -> ClipPlan:
        """The same clip in smaller portions: in windows of half as many frames, too, unless it is `started`.

        The frames that follow must fit those that are there, and with other windows the noise is another.
        """
        if started:
            return replace(self, low_memory=True)
        return replace(self, low_memory=True, window=WINDOW // 2, overlap=min(self.overlap, WINDOW // 4))


@torch.no_grad()
def draw_clip(
    pipeline: HelloMemePipeline,
    reference: Reference,
    conditions: Callable[[np.ndarray], Conditions],
    plan: ClipPlan,
    text: Tensor,
    generator: torch.Generator,
    on_progress: OnProgress | None = None,
) -> Iterator[Tensor]:
    """Yields scaled latents (1, C, T, h, w) of all frames in order, some at a time.

    conditions: frame numbers -> what those frames are to show. text: from `HelloMemePipeline.encode_prompt`.
    generator: draws, in the released order, the noise of one frame and then, with a first pass, that of the
    padded clip. on_progress: called after every step with the share of the work that is done, 0 to 1; an
    exception it raises ends the clip.
    """
    unet, scheduler = pipeline.unet, pipeline.clip_scheduler or pipeline.scheduler
    _, channels, height, width = reference.latents.shape

    def denoiser(frames: np.ndarray, unet) -> Denoise:
        shown = conditions(np.minimum(frames, plan.frames - 1))
        return pipeline.denoiser(reference, text, plan.guidance, shown, unet, plan.low_memory)

    total = plan.predictions(lambda steps: len(with_timesteps(scheduler, steps).timesteps))
    count = _progress_counter(total, on_progress)
    size = 1 if plan.low_memory else BATCH
    noise = torch.randn(1, channels, 1, height, width, generator=generator).to(unet.device, unet.dtype)
    if not plan.together:
        alone = functools.partial(denoiser, unet=unet)
        yield from sample_frames(
            alone, scheduler, noise, plan.frames, plan.steps, False, generator, count, size
        )
        return

    if plan.first_pass:
        fresh_noise = noise_by_frame(generator, channels, plan.padded, height, width)
        # The released style x1 draws the first pass with the UNet that sees the reference
        first = functools.partial(denoiser, unet=pipeline.reference_unet or unet)
        clean = sample_frames(
            first, scheduler, noise, plan.frames, plan.first_steps, not plan.fast, generator, count, size
        )
        pairs = zip(_padded(clean, plan.padded), fresh_noise, strict=True)
        pairs = ((start, fresh.to(noise)) for start, fresh in pairs)
    else:
        pairs = ((None, noise) for _ in range(plan.padded))

    moving = functools.partial(denoiser, unet=pipeline.motion_unet())
    left = plan.frames
    for latents in sample_windows(moving, scheduler, pairs, plan, generator, count):
        yield latents[:, :, :left]
        left -= latents.shape[2]
        if left <= 0:
            return


def sample_frames(
    denoiser: FrameDenoiser,
    scheduler: SchedulerMixin,
    noise: Tensor,
    frames: int,
    steps: int,
    chained: bool,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    size: int = BATCH,
) -> Iterator[Tensor]:
    """Yields latents (1, C, 1, h, w) of each frame, all started from the same noise of that shape, `size` in
    a batch; chained, each is started from the frame before it with that noise added. The other arguments are
    those of `sample_windows`."""
    before, size = None, 1 if chained else size
    for first in range(0, frames, size):
        numbers = np.arange(first, min(first + size, frames))

        def after_step(*_, count: int = len(numbers)) -> None:
            if on_step is not None:
                on_step(count)

        same = noise.expand(-1, -1, len(numbers), -1, -1)
        latents = sample(denoiser(numbers), scheduler, same, steps, generator, after_step, before)
        before = latents if chained else None
        yield from latents.split(1, dim=2)


def sample_windows(
    denoiser: FrameDenoiser,
    scheduler: SchedulerMixin,
    starts: Iterator[tuple[Tensor | None, Tensor]],
    plan: ClipPlan,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """Denoises `plan.padded` frames in windows whose predictions are averaged at every step.

    The result is that of all windows at step 0, then all at step 1 and so on; but a window needs only its
    neighbours' last step, so the steps follow each other through the clip like waves, and frames behind the
    last wave are done. At a time, latents of about steps * (window - overlap) frames are held.

    starts: for each frame (clean latents or None, noise), each (1, C, 1, h, w). on_step: called after every
    step with the number of frames it predicted. Yields latents (1, C, T, h, w) of consecutive frames.
    """
    stride, last = plan.window - plan.overlap, plan.windows - 1
    behind = math.ceil(plan.window / stride) - 1  # windows by which a step must follow the step before it
    timesteps = with_timesteps(scheduler, plan.steps).timesteps
    started = 0  # frames
    latents: dict[int, Tensor] = {}  # frame -> (1, C, 1, h, w)
    predictions = _Predictions()
    # window -> the scheduler of the frames that no later window shares
    schedulers: dict[int, SchedulerMixin] = {}

    for front in range(plan.windows + behind * (len(timesteps) - 1)):
        for i, timestep in enumerate(timesteps):
            window = front - behind * i
            if not 0 <= window <= last:
                continue
            frames = np.arange(window * stride, window * stride + plan.window)
            if i == 0:
                schedulers[window] = with_timesteps(scheduler, plan.steps)
                for new in range(started, frames[-1] + 1):
                    clean, noise = next(starts)
                    latents[new] = initial_latents(schedulers[window], noise, clean)
                started = int(frames[-1]) + 1
            now = schedulers[window]

            # 1. Predict the window, and add to what other windows predicted of its frames
            scaled = now.scale_model_input(torch.cat([latents[t] for t in frames], 2), timestep)
            predictions.add(frames, denoiser(frames)(scaled, timestep))

            # 2. One step for the frames that no later window shares
            own = frames[:stride] if window < last else frames
            before = torch.cat([latents[t] for t in own], 2)
            after = take_step(now, predictions.take(own), timestep, before, generator)
            latents.update(zip(own, after.split(1, 2), strict=True))
            if on_step is not None:
                on_step(plan.window)

            # 3. After the last step they are done
            if i == len(timesteps) - 1:
                yield after
                del schedulers[window]
                for t in own:
                    del latents[t]


class _Predictions:
    """What overlapping windows predict of the frames they share: the mean counts."""

    def __init__(self):
        self.totals: dict[int, list] = {}  # frame -> [sum of predictions, how many]

    def add(self, frames: np.ndarray, prediction: Tensor) -> None:
        """prediction: (1, C, T, h, w), of these T frames."""
        for t, one in zip(frames, prediction.split(1, 2), strict=True):
            total = self.totals.setdefault(t, [0, 0])
            total[:] = total[0] + one, total[1] + 1

    def take(self, frames: np.ndarray) -> Tensor:
        """The mean (1, C, T, h, w) of what was predicted of these frames, which is then forgotten."""
        totals = [self.totals.pop(t) for t in frames]
        return torch.cat([total / count for total, count in totals], 2)


def noise_by_frame(
    generator: torch.Generator, channels: int, frames: int, height: int, width: int
) -> Iterator[Tensor]:
    """The frames (1, C, 1, h, w) of `torch.randn(1, C, T, h, w)`: the same numbers, one frame at a time.

    The whole clip's noise is drawn from `generator` at once, channel after channel; a copy of the generator
    at the beginning of each channel draws it again when it is needed. height * width must be a multiple of
    16, as torch draws in blocks of that many.
    """
    streams = []
    for _ in range(channels):
        streams.append(torch.Generator().set_state(generator.get_state()))
        for _ in range(frames):
            torch.randn(height, width, generator=generator)

    def draw() -> Iterator[Tensor]:
        for _ in range(frames):
            channels_of_frame = [torch.randn(height, width, generator=stream) for stream in streams]
            yield torch.stack(channels_of_frame)[None, :, None]

    return draw()


def _padded(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The frames, then the last but one again up to `count`: what the released code starts padding from."""
    earlier = latest = None
    for frame in frames:
        earlier, latest = latest, frame
        yield frame
        count -= 1
    for _ in range(count):
        yield latest if earlier is None else earlier


def _progress_counter(total: int, on_progress: OnProgress | None) -> Callable[[int], None]:
    """A function that counts predicted frames and reports the share of `total` that is done."""
    done = 0

    def count(frames: int) -> None:
        nonlocal done
        done += frames
        if on_progress is not None:
            on_progress(min(done / total, 1.0))

    return count
