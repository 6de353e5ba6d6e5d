"""Recorded clips of releases from v3 on, whose frames are drawn from key frames."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file
from stand_ins import RecordedRun

from hellomeme.releases.load import find
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.image import Stopped, guided, sample
from hellomeme.sampling.keyframes import EXTRA_NOISE, levels, sample_key_frames
from hellomeme.sampling.plan import ClipPlan
from hellomeme.sampling.windows import NoiseByFrame

FIXTURES = Path(__file__).parent / "fixtures"
BASE, V3, V5 = (FIXTURES / name for name in ("e2e_v1_image", "e2e_v3_video", "e2e_v5_video"))


def deviation(got, expected):
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def run():
    """A whole run of v3, with the base models of v1's. That of v5 is too large to lie here:
    `benchmarks/released_run.py` reproduces it from its folder."""
    return RecordedRun(BASE / "checkpoint", BASE / "official_sd15", V3, V3)


def test_a_clip_of_v3_is_reproduced_from_its_inputs(run, monkeypatch):
    heard, denoiser = {"unet": [], "unet_pre": []}, run.pipeline.denoiser

    def listening(*args, **more):
        denoise = denoiser(*args, **more)
        name = "unet" if more.get("motion") else "unet_pre"
        return lambda latents, timestep: heard[name].append(latents) or denoise(latents, timestep)

    monkeypatch.setattr(run.pipeline, "denoiser", listening)
    drawn = run.draw()
    for name, calls in heard.items():
        assert len(calls) == run.facts["calls"][name]
        for i in range(3):
            assert deviation(calls[i], run.tensors[f"{name}.{i}.sample"]) < 2e-5, (name, i)
    assert run.deviation(drawn) < 2e-5


def test_v5_draws_its_first_level_as_recorded():
    """From the recorded predictions of the networks: the noise, the steps and what they add at random."""
    facts, tensors = json.loads((V5 / "run.json").read_text()), load_file(V5 / "run.safetensors")
    generator = torch.Generator().manual_seed(facts["generator_seed"])
    for draw in facts["random_draws"][:2]:  # that of the reference, then that of the clip
        assert draw["seeded"]
    torch.randn(facts["random_draws"][0]["shape"], generator=generator)
    noise = NoiseByFrame(generator, 4, facts["f"] + EXTRA_NOISE, 16, 16)
    assert facts["random_draws"][1]["shape"] == [1, 4, noise.frames, 16, 16]
    calls = []

    class Enough(Exception):
        pass

    def denoiser(frames, pads):
        assert list(frames) == [0, 11, 13] == list(levels(facts["f"])[0]) and pads is None

        def predicted(latents, timestep):
            i = len(calls)
            if i == 3:
                raise Enough
            calls.append(latents[:1])
            return tensors[f"unet.{i}.out"]

        return guided(predicted, facts["guidance_scale"])

    scheduler = DPMSolverMultistepScheduler(**find("v5").clip_sampler.settings)
    added = torch.Generator().manual_seed(facts["torch_manual_seed"])
    with pytest.raises(Enough):
        list(sample_key_frames(denoiser, None, scheduler, noise, facts["f"], facts["steps"], generator=added))
    for i in range(3):
        assert deviation(calls[i], tensors[f"unet.{i}.sample"]) < 2e-6


def test_progress_memory_guidance_and_no_motion(run):
    pipeline, reference, text = run.pipeline, run.reference, run.text
    plan = ClipPlan(5, 1, 1.5, key_frames=True, window=3)  # two windows, three key frames
    shares, most = [], []

    def draw(on_progress=None, **changes):
        generator = torch.Generator().manual_seed(0)
        changed = dataclasses.replace(plan, **changes)
        return torch.cat(
            list(draw_clip(pipeline, reference, run.conditions, changed, text, generator, on_progress)), 2
        )

    drawn = draw(shares.append)
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) == 1 + 1 + 2

    def stop(share):
        most.append(share)
        raise Stopped

    with pytest.raises(Stopped):
        draw(stop)
    assert len(most) == 1
    assert deviation(draw(low_memory=True), drawn) < 1e-4
    unguided = draw(guidance=1.0)
    assert torch.isfinite(unguided).all() and deviation(unguided, drawn) > 1e-3

    # Alone, a frame is the picture of that moment
    alone = draw(together=False)
    noise = torch.randn(1, 4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = pipeline.control_maps(run.conditions(np.array([3])), 1.5)
    denoise = pipeline.denoiser(reference, text, 1.5, lambda: maps)
    picture = sample(denoise, pipeline.clip_scheduler, noise, 1)
    assert deviation(alone[:, :, 3:4], picture) < 1e-4 < deviation(alone, drawn)
