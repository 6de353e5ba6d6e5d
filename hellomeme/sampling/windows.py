"""Many frames at a time: each alone, or together in overlapping windows. Latents exist only for the frames
in progress."""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .image import Denoise, initial_latents, sample, take_step, with_timesteps
from .sharing import ALONE, Share

WINDOW = 12  # frames: what the released motion modules were trained on
BATCH = 4  # frames of 512 px drawn at once where each stands alone
LATENTS = 64 * 64  # of a frame of 512 px

FrameDenoiser = Callable[[np.ndarray], Denoise]  # frame numbers -> what predicts those frames


def frames_at_once(height: int, width: int) -> int:
    """How many frames with latents of this size are drawn at once where each stands alone: of smaller frames
    more, up to a window."""
    return max(BATCH, min(WINDOW, BATCH * LATENTS // (height * width)))


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
    share: Share = ALONE,
) -> Iterator[Tensor]:
    """Yields latents (1, C, T, h, w) of `size` frames at a time, all started from the same noise (1, C, 1, h,
    w); chained, each alone is started from the frame before it with that noise added. The other arguments are
    those of `sample_windows`."""
    before = None

    def drawn(numbers: np.ndarray, predict: Denoise | None = None) -> Tensor:
        def after_step(*_) -> None:
            if on_step is not None:
                on_step(len(numbers))

        same = noise.expand(-1, -1, len(numbers), -1, -1)
        return sample(predict or denoiser(numbers), scheduler, same, steps, generator, after_step, before)

    def passed(numbers: np.ndarray) -> None:
        """Takes from the generator what another process takes."""
        drawn(numbers, lambda latents, timestep: torch.zeros_like(latents))

    share, size = (share.in_order, 1) if chained else (share, size)
    batches = (np.arange(first, min(first + size, frames)) for first in range(0, frames, size))
    for latents in share.map(drawn, batches, passed):
        before = latents.to(noise.device) if chained else None
        yield latents.to(noise.device)


def sample_windows(
    denoiser: FrameDenoiser,
    scheduler: SchedulerMixin,
    starts: Iterator[tuple[Tensor | None, Tensor]],
    windows: Sequence[range],
    steps: int,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    step_noise: Sequence[Iterator[Tensor]] | None = None,
    share: Share = ALONE,
) -> Iterator[Tensor]:
    """Denoises frames in overlapping windows whose predictions are averaged at every step.

    The result is that of all windows at step 0, then all at step 1 and so on; but a window needs only its
    neighbours' last step, so the steps follow each other through the clip like waves, and frames behind the
    last wave are done. At a time, latents of about steps * (frames of a window - overlap) frames are held.

    denoiser: called once for a window; what it gives is held while the window is in progress.
    starts: for each frame (clean latents or None, noise), each (1, C, 1, h, w). windows: the frames of each,
    ascending, from frame 0 on and without a gap. on_step: called after every step with the number of frames
    it predicted. step_noise: for each step, the noise (1, C, 1, h, w) that a stochastic scheduler adds to
    each frame in order; from `generator`, window by window, if None. share: of several processes each
    predicts one window of a group; more frames are held then, and `generator` is drawn from in another order.
    Yields latents (1, C, T, h, w), frames in order.
    """
    at_once = share.size
    groups = [range(first, min(first + at_once, len(windows))) for first in range(0, len(windows), at_once)]
    behind = math.ceil(_windows_behind(windows) / at_once)
    timesteps = with_timesteps(scheduler, steps).timesteps
    wave = _Wave(denoiser, scheduler, starts, windows, steps, generator)

    for front in range(len(groups) + behind * (len(timesteps) - 1)):
        for i, timestep in enumerate(timesteps):
            if not 0 <= front - behind * i < len(groups):
                continue
            group = groups[front - behind * i]
            if i == 0:
                wave.begin(group)
            predict = functools.partial(wave.predict, timestep=timestep)
            for number, prediction in zip(group, list(share.map(predict, group)), strict=True):
                after = wave.step(number, prediction, timestep, step_noise and step_noise[i])
                if on_step is not None:
                    on_step(len(windows[number]))
                if i == len(timesteps) - 1:
                    wave.finish(number)
                    yield after


class _Wave:
    """The windows that are in progress. The arguments are those of `sample_windows`."""

    def __init__(
        self,
        denoiser: FrameDenoiser,
        scheduler: SchedulerMixin,
        starts: Iterator[tuple[Tensor | None, Tensor]],
        windows: Sequence[range],
        steps: int,
        generator: torch.Generator | None,
    ):
        self.denoiser, self.windows, self.generator = denoiser, windows, generator
        self.scheduler = functools.partial(with_timesteps, scheduler, steps)
        fresh = self.scheduler()
        self.initial = enumerate(initial_latents(fresh, noise, clean) for clean, noise in starts)
        self.unshared = _unshared(windows)
        self.latents: dict[int, Tensor] = {}  # frame -> (1, C, 1, h, w)
        self.predictions = _Predictions()
        self.schedulers: dict[int, SchedulerMixin] = {}  # window -> of its unshared frames
        self.denoisers: dict[int, Denoise] = {}  # window -> what predicts it in all steps

    def begin(self, group: range) -> None:
        """Windows at their first step."""
        begun = self.windows[group[0] - 1].stop if group[0] else 0
        self.latents.update(itertools.islice(self.initial, self.windows[group[-1]].stop - begun))
        self.schedulers |= {number: self.scheduler() for number in group}

    def predict(self, number: int, timestep: Tensor) -> Tensor:
        """What the network predicts of a window."""
        frames = np.array(self.windows[number])
        if number not in self.denoisers:
            self.denoisers[number] = self.denoiser(frames)
        scaled = self.schedulers[number].scale_model_input(_joined(self.latents, frames), timestep)
        return self.denoisers[number](scaled, timestep)

    def step(
        self, number: int, prediction: Tensor, timestep: Tensor, step_noise: Iterator[Tensor] | None
    ) -> Tensor:
        """Adds the prediction of a window to those of others, and returns the latents, after one step, of the
        frames that no later window shares."""
        frames, own = (np.array(part[number]) for part in (self.windows, self.unshared))
        latents = _joined(self.latents, own)
        self.predictions.add(frames, prediction.to(latents.device))
        noise = None if step_noise is None else torch.cat([next(step_noise) for _ in own], 2)
        mean, scheduler = self.predictions.take(own), self.schedulers[number]
        after = take_step(scheduler, mean, timestep, latents, self.generator, noise)
        self.latents.update(zip(own, after.split(1, 2), strict=True))
        return after

    def finish(self, number: int) -> None:
        """Forgets a window, and the frames that no later one shares."""
        del self.schedulers[number]
        self.denoisers.pop(number, None)
        for t in self.unshared[number]:
            del self.latents[t]


def _joined(latents: dict[int, Tensor], frames: np.ndarray) -> Tensor:
    """The latents of these frames, (1, C, T, h, w)."""
    return torch.cat([latents[t] for t in frames], 2)


def _unshared(windows: Sequence[range]) -> list[range]:
    """The frames of each window that no later one shares."""
    ends = [*(window.start for window in windows[1:]), windows[-1].stop]
    return [range(window.start, end) for window, end in zip(windows, ends, strict=True)]


def _windows_behind(windows: Sequence[range]) -> int:
    """By how many windows a step must follow the step before it: the most that begin inside another one."""
    first = [window.start for window in windows]
    return max(bisect.bisect_left(first, window.stop) - 1 - i for i, window in enumerate(windows))


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


class NoiseByFrame(Iterable[Tensor]):
    """The frames (1, C, 1, h, w) of `torch.randn(1, C, T, h, w)`: the same numbers, one frame at a time.

    The whole clip's noise is drawn from `generator` at once, channel after channel; a copy of the generator
    at the beginning of each channel draws it again, as often as it is needed. height * width must be a
    multiple of 16, as torch draws in blocks of that many.
    """

    def __init__(
        self,
        generator: torch.Generator,
        channels: int,
        frames: int,
        height: int,
        width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.frames, self.size, self.place = frames, (height, width), (device, dtype)
        self.states: list[Tensor] = []  # of the generator, by channel
        for _ in range(channels):
            self.states.append(generator.get_state())
            for _ in range(frames):
                torch.randn(height, width, generator=generator)

    def __iter__(self) -> Iterator[Tensor]:
        streams = [torch.Generator().set_state(state) for state in self.states]
        for _ in range(self.frames):
            channels_of_frame = [torch.randn(self.size, generator=stream) for stream in streams]
            yield torch.stack(channels_of_frame)[None, :, None].to(*self.place)
