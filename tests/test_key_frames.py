"""Clips drawn from key frames (releases v3 to v5b): the plan for every length, the algorithm against its
definition, and its memory."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

from hellomeme.releases.load import find
from hellomeme.sampling.image import with_timesteps
from hellomeme.sampling.keyframes import levels, predicted_frames, sample_key_frames, windows_of
from hellomeme.sampling.plan import ClipPlan
from hellomeme.sampling.sharing import ALONE
from hellomeme.sampling.windows import NoiseByFrame
from hellomeme.settings import ClipSettings, Settings

SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = 2, 4, 4  # channels, height, width
KINDS = {
    "v3": EulerDiscreteScheduler(**SD),
    "v5": DPMSolverMultistepScheduler(**SD, algorithm_type="sde-dpmsolver++"),
}


class Crash(Exception):
    pass


def released_windows(frames):
    """The windows of a level in the released code, as lists; it crashes at a last one of a single frame."""
    if frames <= 12:
        return [list(range(frames))]
    windows = [list(range(first, min(first + 12, frames))) for first in range(0, frames, 11)]
    if len(windows[-1]) == 1:
        raise Crash
    return windows


def released_levels(frames):
    """The windows of each level, deepest first."""
    windows = released_windows(frames)
    if frames <= 12:
        return [windows]
    return [*released_levels(len({end for one in windows for end in (one[0], one[-1])})), windows]


def test_the_plan_of_every_length():
    crashed = set()
    for frames in range(1, 701):
        try:
            expected = released_levels(frames)
            assert [list(map(list, windows_of(len(level)))) for level in levels(frames)] == expected
            assert predicted_frames(frames) == sum(map(len, itertools.chain(*expected)))
        except Crash:
            crashed.add(frames)
        for window in (12, 6):
            found = levels(frames, window)
            assert len(found[0]) <= window and list(found[-1]) == list(range(frames))
            for level, below in itertools.zip_longest(found, [[], *found[:-1]]):
                windows = windows_of(len(level), window)
                assert all(1 < len(one) <= window for one in windows) or frames == 1
                assert [one.start for one in windows] == [0, *(one.stop - 1 for one in windows[:-1])]
                assert windows[-1].stop == len(level)
                if len(below):
                    assert list(below) == sorted({level[one[end]] for one in windows for end in (0, -1)})
    # the lengths at which the released code is known to crash
    bands = [range(first, first + 10) for first in (233, 354, 475, 596)]
    assert crashed == {n for n in range(23, 701) if n % 11 == 1} | set(itertools.chain(*bands))


def predict(frames, pads):
    """A made-up model whose prediction depends on all frames of its window, their numbers and the pads."""
    place = torch.from_numpy(np.sin(frames))[None, None, :, None, None]
    seen = 0 if pads is None else (pads[0] - 2 * pads[1]) / 10
    return lambda latents, timestep: latents * 0.3 + latents.mean(2, keepdim=True) + place + seen


def as_released(kind, frames, noise, steps, generator, pads=None):
    """The definition: key frames first, then at every step all windows, averaged where they overlap."""
    pads, first_pass = {} if pads is None else pads, kind == "v3"
    if len(frames) <= 12:
        windows = [list(range(len(frames)))]
        ends = frames[[0, -1]]
        if first_pass:
            same = noise[:, :, [0, 0]]
            latents = denoised(kind, [[0]], ends[:1], same[:, :, :1], steps, generator, {})
            other = denoised(kind, [[0]], ends[1:], same[:, :, :1], steps, generator, {})
            pads |= {ends[0]: latents, ends[1]: other}
    else:
        windows = [list(range(i, min(i + 12, len(frames)))) for i in range(0, len(frames) - 1, 11)]
        ends = frames[sorted({end for one in windows for end in (one[0], one[-1])})]
        latents = as_released(kind, ends, noise, steps, generator, pads)
        drawn = dict(zip(ends, latents.split(1, 2), strict=True))
        pads |= {at: x for at, x in drawn.items() if not (first_pass and at in pads)}
    return denoised(kind, windows, frames, noise[:, :, : len(frames)], steps, generator, pads)


def denoised(kind, windows, frames, noise, steps, generator, pads):
    scheduler = with_timesteps(KINDS[kind], steps)
    latents = noise * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scaled, total = scheduler.scale_model_input(latents, timestep), torch.zeros_like(latents)
        for one in windows:
            own = (pads[frames[one[0]]], pads[frames[one[-1]]]) if pads else None
            total[:, :, one] += predict(frames[one], own)(scaled[:, :, one], timestep)
        count = np.bincount(np.concatenate(windows))
        mean = total / torch.from_numpy(count)[:, None, None]
        latents = scheduler.step(mean, timestep, latents, generator=generator).prev_sample
    return latents


def draw(kind, frames, steps=3, pad=lambda latents: latents, share=ALONE):
    generator = torch.Generator().manual_seed(frames)
    noise = NoiseByFrame(generator, SHAPE[0], frames + 13, *SHAPE[1:], dtype=torch.float64)
    ends = None
    if kind == "v3":
        start = next(iter(noise))
        ends = {
            at: denoised(kind, [[0]], np.array([at]), start, steps, generator, {}) for at in (0, frames - 1)
        }
    return sample_key_frames(
        predict, pad, KINDS[kind], noise, frames, steps, ends=ends, generator=generator, share=share
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 2, 12, 13, 14, 23, 34, 150, 233])
def test_the_latents_are_those_of_the_definition(kind, frames):
    """Nested key frames, averaged overlaps, pads that stay (v3) or not (v5), the order of draws."""
    generator = torch.Generator().manual_seed(frames)
    noise = torch.randn(1, SHAPE[0], frames + 13, *SHAPE[1:], generator=generator).double()
    expected = as_released(kind, np.arange(frames), noise, 3, generator)
    torch.testing.assert_close(torch.cat(list(draw(kind, frames)), 2), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pads_are_made_once_a_level_and_frames_are_given_out_early(kind):
    made = []
    drawn = draw(kind, 400, pad=lambda latents: made.append(1) or latents)
    counts = [next(drawn).shape[2]]
    *lower, keys = (len(level) for level in levels(400)[:-1])
    made_below = sum(lower) + (2 if kind == "v3" else 0)
    # with 3 steps the first window is done when 3 have begun, which have 4 key frames
    assert len(made) == made_below + 4
    counts += [latents.shape[2] for latents in drawn]
    assert sum(counts) == 400 and max(counts) <= 12 and len(made) == made_below + keys


def test_the_number_of_predictions():
    plan = ClipPlan(40, 5, 1.5, first_pass=True, key_frames=True)
    assert plan.predictions() == 5 * (2 + 5 + 12 + 12 + 12 + 7)
    assert ClipPlan(40, 5, 1.5, first_pass=False, key_frames=True).predictions() == plan.predictions() - 10
    assert ClipPlan(40, 5, 1.5, overlap=8, fast=True, key_frames=True).predictions() == plan.predictions()
    for name, ends in {"v3": 2, "v4": 2, "v5": 0, "v5b": 0}.items():  # frames of the first pass
        row, clip = find(name), ClipSettings(overlap=8, fast=True)
        count = ClipPlan.of(40, Settings(steps=5).resolved(row), clip, row, together=True).predictions()
        assert count == 5 * (ends + 48)
    less = plan.with_low_memory(started=False)
    assert less.window == 6 and less.predictions() == 5 * (2 + 3 + 6 + 4 + 7 * 6 + 5)
    assert plan.with_low_memory(started=True).window == 12
    assert plan.passes == 2 * plan.predictions() == 2 * dataclasses.replace(plan, guidance=1.0).passes
    # Of five steps the first two are guided; of these one, and later another one, computes deep features
    less = dataclasses.replace(plan, first_pass=False, guidance_end=0.4, reuse=3)
    assert less.passes == pytest.approx((plan.predictions() / 5 - 2) * (2 * 1.1 + 1.2))
