"""From noise to a clip of any length, a few frames at a time.

Two ways, as released: each frame alone; or twice, first one frame after the other, then together, by the UNet
with motion modules, in overlapping windows of 12 frames. Latents exist only for the frames being worked on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..pipeline import HelloMemePipeline, Reference
from .image import noised, ready, sample, step

if TYPE_CHECKING:
    from ..releases.table import Release
    from ..settings import ClipSettings, Settings

WINDOW = 12  # frames: what the released motion modules were trained on
FIRST_STEPS = 10  # at most so many in the first pass
BATCH = 4  # frames drawn at once where each stands alone

Tell = Callable[[np.ndarray], dict[str, Tensor]]
OnWork = Callable[[float], None]


@dataclass(frozen=True)
class ClipPlan:
    """How to draw a clip of `frames` frames.

    steps, guidance: as for a picture. together: with the motion modules, in windows that share `overlap`
    frames.
    first_pass: begin those from the frames drawn alone, under new noise, instead of from the same noise for
    all.
    fast: in the first pass begin each frame from noise, in batches, instead of from the frame before.
    window: how many frames are drawn together. sparing: never more than one where each stands alone, and the
    halves of guidance one after the other, with less memory.
    """

    frames: int
    steps: int
    guidance: float
    together: bool = True
    first_pass: bool = True
    overlap: int = 4
    fast: bool = False
    window: int = WINDOW
    sparing: bool = False

    @classmethod
    def of(
        cls, frames: int, settings: Settings, clip: ClipSettings, release: Release, together: bool
    ) -> ClipPlan:
        """The plan of a clip with these settings, which are resolved ones. together: whether the release has
        motion modules; the settings may switch them off."""
        together, first_pass = clip.motion and together, release.clip_sampler.first_pass
        return cls(frames, settings.steps, settings.guidance, together, first_pass, clip.overlap, clip.fast)

    @property
    def windows(self) -> int:
        """As many as reach beyond the last frame: the released code always adds at least one frame."""
        return max(1, (self.frames - self.overlap) // (self.window - self.overlap) + 1)

    @property
    def padded(self) -> int:
        return self.windows * (self.window - self.overlap) + self.overlap

    def predictions(self, timesteps: Callable[[int], int] = int) -> int:
        """How many frames the UNet predicts in all, over all steps: what a clip costs.

        timesteps: how many a scheduler has for a number of steps; as many, unless given.
        """
        if not self.together:
            return self.frames * timesteps(self.steps)
        first = timesteps(min(FIRST_STEPS, self.steps)) if self.first_pass else 0
        return self.frames * first + self.windows * self.window * timesteps(self.steps)

    def in_less_memory(self, begun: bool) -> ClipPlan:
        """The same clip in smaller portions: in windows of half as many frames, too, unless it is `begun`.
        What comes after must fit to the frames that are there, and the noise is another where windows are."""
        if begun:
            return replace(self, sparing=True)
        return replace(self, sparing=True, window=WINDOW // 2, overlap=min(self.overlap, WINDOW // 4))


@torch.no_grad()
def draw_clip(
    pipeline: HelloMemePipeline,
    reference: Reference,
    tell: Tell,
    plan: ClipPlan,
    text: Tensor,
    generator: torch.Generator,
    on_work: OnWork | None = None,
) -> Iterator[Tensor]:
    """Yields scaled latents (1, C, T, h, w) of all frames in order, some at a time.

    tell: frame numbers -> the conditions of those frames, as arguments of `HelloMemePipeline.denoiser`.
    text: from `HelloMemePipeline.encode_prompt`. generator: draws, in the released order, the noise of one
    frame and then, with a first pass, that of the padded clip. on_work: told after every step which share of
    the work is done; an exception it raises ends the clip.
    """
    unet, scheduler = pipeline.unet, pipeline.clip_scheduler or pipeline.scheduler
    _, channels, height, width = reference.latents.shape

    def at(frames: np.ndarray, unet):
        told = tell(np.minimum(frames, plan.frames - 1))
        return pipeline.denoiser(reference, text, plan.guidance, unet=unet, sparing=plan.sparing, **told)

    predictions = plan.predictions(lambda steps: len(ready(scheduler, steps).timesteps))
    worked = _shares(predictions, on_work)
    size = 1 if plan.sparing else BATCH
    noise = torch.randn(1, channels, 1, height, width, generator=generator).to(unet.device, unet.dtype)
    if not plan.together:
        one = functools.partial(at, unet=unet)
        yield from frames_alone(
            one, scheduler, noise, plan.frames, plan.steps, False, generator, worked, size
        )
        return

    if plan.first_pass:
        fresh_noise = noise_frames(generator, channels, plan.padded, height, width)
        seeing = pipeline.reference_unet or unet  # the released style x1 draws the first pass with this one
        first = functools.partial(at, unet=seeing)
        steps = min(FIRST_STEPS, plan.steps)
        clean = frames_alone(
            first, scheduler, noise, plan.frames, steps, not plan.fast, generator, worked, size
        )
        pairs = zip(_continued(clean, plan.padded), fresh_noise, strict=True)
        pairs = ((one, other.to(noise)) for one, other in pairs)
    else:
        pairs = ((None, noise) for _ in range(plan.padded))

    moving = functools.partial(at, unet=pipeline.motion_unet())
    segments = in_windows(moving, scheduler, pairs, plan, generator, worked)
    left = plan.frames
    for latents in segments:
        yield latents[:, :, :left]
        left -= latents.shape[2]
        if left <= 0:
            return


def frames_alone(
    denoiser: Callable,
    scheduler,
    noise: Tensor,
    frames: int,
    steps: int,
    chained: bool,
    generator=None,
    on_step: Callable[[int], None] | None = None,
    size: int = BATCH,
) -> Iterator[Tensor]:
    """Yields latents (1, C, 1, h, w) of each frame, all begun from the same noise of that shape, `size` in a
    batch; chained, each is begun from the frame before it under that noise. The other arguments are those of
    `in_windows`."""
    before, size = None, 1 if chained else size
    for first in range(0, frames, size):
        numbers = np.arange(first, min(first + size, frames))
        count = len(numbers)

        def stepped(*_, count=count) -> None:
            if on_step is not None:
                on_step(count)

        same = noise.expand(-1, -1, len(numbers), -1, -1)
        latents = sample(denoiser(numbers), scheduler, same, steps, generator, stepped, before)
        before = latents if chained else None
        yield from latents.split(1, dim=2)


def in_windows(
    denoiser: Callable,
    scheduler,
    starts: Iterator,
    plan: ClipPlan,
    generator=None,
    on_step: Callable[[int], None] | None = None,
) -> Iterator[Tensor]:
    """Denoises `plan.padded` frames in windows whose predictions are averaged at every step.

    The result is that of all windows at step 0, then all at step 1 and so on; but a window needs only its
    neighbours' last step, so the steps follow each other through the clip like waves, and frames behind the
    last wave are done. At a time, latents of about steps * (window - overlap) frames are held.

    denoiser: frame numbers -> what predicts those frames. starts: for each frame (clean latents or None,
    noise), each (1, C, 1, h, w). on_step: told after every step how many frames it predicted. Yields latents
    (1, C, T, h, w) of consecutive frames.
    """
    stride, last = plan.window - plan.overlap, plan.windows - 1
    behind = math.ceil(plan.window / stride) - 1  # windows by which a step must follow the step before it
    timesteps = ready(scheduler, plan.steps).timesteps
    begun = 0  # frames
    latents: dict[int, Tensor] = {}  # frame -> (1, C, 1, h, w)
    predictions = _Predictions()
    schedulers: dict[int, object] = {}  # window -> the scheduler of the frames that no later window shares

    for front in range(plan.windows + behind * (len(timesteps) - 1)):
        for i, timestep in enumerate(timesteps):
            window = front - behind * i
            if not 0 <= window <= last:
                continue
            frames = np.arange(window * stride, window * stride + plan.window)
            if i == 0:
                schedulers[window] = ready(scheduler, plan.steps)
                for new in range(begun, frames[-1] + 1):
                    clean, noise = next(starts)
                    latents[new] = noised(schedulers[window], noise, clean)
                begun = int(frames[-1]) + 1
            now = schedulers[window]

            # 1. Predict the window, and add to what other windows said of its frames
            scaled = now.scale_model_input(torch.cat([latents[t] for t in frames], 2), timestep)
            predictions.add(frames, denoiser(frames)(scaled, timestep))

            # 2. One step for the frames that no later window shares
            own = frames[:stride] if window < last else frames
            before = torch.cat([latents[t] for t in own], 2)
            after = step(now, predictions.take(own), timestep, before, generator)
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


def noise_frames(
    generator: torch.Generator, channels: int, frames: int, height: int, width: int
) -> Iterator[Tensor]:
    """The frames (1, C, 1, h, w) of `torch.randn(1, C, T, h, w)` one by one: the same numbers, never all at
    once.

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
            yield torch.stack([torch.randn(height, width, generator=stream) for stream in streams])[
                None, :, None
            ]

    return draw()


def _continued(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The frames, and after them the last but one again and again: what the released code begins padding
    from."""
    earlier = latest = None
    for frame in frames:
        earlier, latest = latest, frame
        yield frame
        count -= 1
    for _ in range(count):
        yield latest if earlier is None else earlier


def _shares(total: int, on_work: OnWork | None) -> Callable[[int], None]:
    """A function that counts predicted frames and tells `on_work` which share of `total` is done."""
    done = 0

    def worked(frames: int) -> None:
        nonlocal done
        done += frames
        if on_work is not None:
            on_work(min(done / total, 1.0))

    return worked
