"""Many frames at a time: each alone, or together in overlapping windows. Latents exist only for the frames
in progress."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .image import Denoise, initial_latents, sample, take_step, with_timesteps

WINDOW = 12  # frames: what the released motion modules were trained on
BATCH = 4  # frames drawn at once where each stands alone

FrameDenoiser = Callable[[np.ndarray], Denoise]  # frame numbers -> what predicts those frames


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
    windows: Sequence[range],
    steps: int,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    step_noise: Sequence[Iterator[Tensor]] | None = None,
    keep: bool = False,
) -> Iterator[Tensor]:
    """Denoises frames in overlapping windows whose predictions are averaged at every step.

    The result is that of all windows at step 0, then all at step 1 and so on; but a window needs only its
    neighbours' last step, so the steps follow each other through the clip like waves, and frames behind the
    last wave are done. At a time, latents of about steps * (frames of a window - overlap) frames are held.

    starts: for each frame (clean latents or None, noise), each (1, C, 1, h, w). windows: the frames of each,
    ascending, from frame 0 on and without a gap. on_step: called after every step with the number of frames
    it predicted. step_noise: for each step, the noise (1, C, 1, h, w) that a stochastic scheduler adds to
    each frame in order; from `generator`, window by window, if None. keep: a window has one denoiser
    for all steps, which is held while it is in progress. Yields latents (1, C, T, h, w), frames in order.
    """
    behind, unshared = _windows_behind(windows), _unshared(windows)
    fresh = with_timesteps(scheduler, steps)
    initial = enumerate(initial_latents(fresh, noise, clean) for clean, noise in starts)
    latents: dict[int, Tensor] = {}  # frame -> (1, C, 1, h, w)
    predictions = _Predictions()
    running: dict[int, tuple] = {}  # window -> the scheduler of its unshared frames, and its denoiser if kept

    for front in range(len(windows) + behind * (len(fresh.timesteps) - 1)):
        for i, timestep in enumerate(fresh.timesteps):
            number = front - behind * i
            if not 0 <= number < len(windows):
                continue
            frames = np.array(windows[number])
            if i == 0:
                begun = windows[number - 1].stop if number else 0
                latents.update(itertools.islice(initial, windows[number].stop - begun))
                running[number] = with_timesteps(scheduler, steps), denoiser(frames) if keep else None
            now, kept = running[number]

            # 1. Predict the window, and add to what other windows predicted of its frames
            scaled = now.scale_model_input(_joined(latents, frames), timestep)
            predictions.add(frames, (kept or denoiser(frames))(scaled, timestep))

            # 2. One step for the frames that no later window shares
            own = np.array(unshared[number])
            noise = None if step_noise is None else torch.cat([next(step_noise[i]) for _ in own], 2)
            after = take_step(now, predictions.take(own), timestep, _joined(latents, own), generator, noise)
            latents.update(zip(own, after.split(1, 2), strict=True))
            if on_step is not None:
                on_step(len(frames))

            # 3. After the last step they are done
            if i == len(fresh.timesteps) - 1:
                yield after
                del running[number]
                for t in own:
                    del latents[t]


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
