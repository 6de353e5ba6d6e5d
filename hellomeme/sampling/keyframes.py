"""A clip from its key frames: how releases v3 to v5b draw frames together.

Windows of 12 frames share their first and last frame with their neighbours. These key frames are drawn
before the others, as a clip of their own, which has key frames again where it is longer than a window:

    level 0:  0                                  ... the first and last frame, and at most 10 between them
    level 1:  0         11         22         33 ... the key frames of the next level
    level 2:  0 1 .. 10 11 12 .. 21 22 23 ..  33 ... all frames

A window then sees, beside its own frames, how its first and last one have come out: its pads.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import torch
from diffusers import SchedulerMixin
from torch import Tensor

from .image import Denoise, takes_noise, with_timesteps
from .sharing import ALONE, Share
from .windows import WINDOW, NoiseByFrame, sample_windows

EXTRA_NOISE = 13  # frames of noise that the released code draws beyond those of the clip

Pad = TypeVar("Pad")
# The numbers of a window's frames and the pads of the first and last -> what predicts those frames
PaddedDenoiser = Callable[[np.ndarray, tuple[Pad, Pad] | None], Denoise]


def windows_of(frames: int, window: int = WINDOW) -> list[range]:
    """The windows of so many frames, each from the last frame of the one before it. The last may be shorter,
    but has at least two frames, unless there is only one."""
    return [range(first, min(first + window, frames)) for first in range(0, max(frames - 1, 1), window - 1)]


def levels(frames: int, window: int = WINDOW) -> list[np.ndarray]:
    """The frame numbers of each level, from the fewest, which fit into one window, to all of the clip."""
    level = np.arange(frames)
    found = [level]
    while len(level) > window:
        ends = [0, *(one[-1] for one in windows_of(len(level), window))]
        level = level[ends]
        found.append(level)
    return found[::-1]


def predicted_frames(frames: int, window: int = WINDOW) -> int:
    """How many frames are predicted in a step of every level, those that windows share counted twice."""
    return sum(len(one) for level in levels(frames, window) for one in windows_of(len(level), window))


def sample_key_frames(
    denoiser: PaddedDenoiser,
    pad: Callable[[Tensor], Pad],
    scheduler: SchedulerMixin,
    noise: Iterable[Tensor],
    frames: int,
    steps: int,
    window: int = WINDOW,
    ends: Mapping[int, Tensor] | None = None,
    generator: torch.Generator | None = None,
    on_step: Callable[[int], None] | None = None,
    share: Share = ALONE,
) -> Iterator[Tensor]:
    """Yields latents (1, C, T, h, w) of consecutive frames of a clip, drawn level by level.

    pad: finished latents (1, C, 1, h, w) of a frame -> what `denoiser` takes as its pad; called when a window
    needs it.
    noise: of each frame, (1, C, 1, h, w). Every level takes it from the beginning: the key frames begin from
    the noise of the first frames, not from that of their own.
    ends: finished latents of the first and the last frame (v3, v4). Level 0 has them as pads, and pads once
    made stay, though the level draws these frames again. Without `ends` (v5, v5b) level 0 has no pads, and
    each level has the frames of the level before it.
    generator: for a stochastic scheduler; drawn from level by level and step by step. on_step: called after
    every step with the number of frames it predicted. share: as in `sample_windows`.
    """
    finished = dict(ends or {})  # frame -> the latents of its pad
    for level in levels(frames, window):
        drawn = _sample_level(
            denoiser, pad, scheduler, noise, level, finished, steps, window, generator, on_step, share
        )
        if len(level) == frames:
            yield from drawn
            return
        latents = dict(zip(level, torch.cat(list(drawn), 2).split(1, 2), strict=True))
        finished = latents if ends is None else {**latents, **finished}


def _sample_level(
    denoiser: PaddedDenoiser,
    pad: Callable[[Tensor], Pad],
    scheduler: SchedulerMixin,
    noise: Iterable[Tensor],
    level: np.ndarray,
    finished: Mapping[int, Tensor],
    steps: int,
    window: int,
    generator: torch.Generator | None,
    on_step: Callable[[int], None] | None,
    share: Share,
) -> Iterator[Tensor]:
    """The frames with the numbers `level`, whose key frames are in `finished`, unless that is empty."""
    calls = len(with_timesteps(scheduler, steps).timesteps)

    # A window shares its last frame with the next one
    @functools.lru_cache(maxsize=2)
    def pad_of(frame: int) -> Pad:
        return pad(finished[frame])

    def in_window(positions: np.ndarray) -> Denoise:
        numbers = level[positions]
        pads = (pad_of(numbers[0]), pad_of(numbers[-1])) if finished else None
        return denoiser(numbers, pads)

    starts = ((None, one) for one in itertools.islice(noise, len(level)))
    step_noise = None
    if generator is not None and takes_noise(scheduler):
        _, channels, _, height, width = next(iter(noise)).shape
        step_noise = [
            iter(NoiseByFrame(generator, channels, len(level), height, width)) for _ in range(calls)
        ]
    windows = windows_of(len(level), window)
    return sample_windows(in_window, scheduler, starts, windows, steps, generator, on_step, step_noise, share)
