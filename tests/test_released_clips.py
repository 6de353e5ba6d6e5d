"""Recorded clips of releases from v3 on, whose frames are drawn from key frames.

The networks are tiny; a stand-in takes the place of the control net (`stand_ins`).
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from hellomeme.inputs import Conditions
from hellomeme.models.adapters import HM3ReferenceAdapter
from hellomeme.models.knitted_motion import HM3MotionAdapter
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.table import EULER
from hellomeme.sampling.clip import ClipPlan, draw_clip
from hellomeme.sampling.image import Stopped, guided, sample
from hellomeme.sampling.keyframes import EXTRA_NOISE, levels, sample_key_frames
from hellomeme.sampling.windows import NoiseByFrame
from tests.stand_ins import StandInControl

FIXTURES = Path(__file__).parent / "fixtures"
BASE, V3, V5 = (FIXTURES / name for name in ("e2e_v1_image", "e2e_v3_video", "e2e_v5_video"))


def recorded(case):
    return json.loads((case / "run.json").read_text()), load_file(case / "run.safetensors")


def deviation(got, expected):
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def pipeline():
    """Style "x1": a second model sees the reference, and draws the first and the last frame."""

    def load(kind, folder):
        return kind.from_pretrained(folder).eval()

    official, checkpoint = BASE / "official_sd15", BASE / "checkpoint"
    pipeline = HelloMemePipeline(
        vae=load(AutoencoderKL, checkpoint / "vae"),
        text_encoder=load(CLIPTextModel, official / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint / "tokenizer"),
        unet=load(UNet2DConditionModel, checkpoint / "unet"),
        scheduler=EulerDiscreteScheduler(**EULER),
        hm_reference=load(HM3ReferenceAdapter, V3 / "hm3_reference"),
        reference_unet=load(UNet2DConditionModel, official / "unet"),
        reference_vae=load(AutoencoderKL, official / "vae"),
        motion_adapter=load(MotionAdapter, V3 / "hm3_animatediff"),
        hm_motion=load(HM3MotionAdapter, V3 / "hm3_motion"),
    )
    pipeline.hm_control2 = StandInControl(V3 / "hm3_control_mix")
    return pipeline


@pytest.fixture(scope="module")
def given(pipeline):
    """(reference, text, conditions, generator after the draw for the reference) of the recorded run."""
    facts, tensors = recorded(V3)
    generator = torch.Generator().manual_seed(facts["generator_seed"])
    picture = torch.from_numpy(np.array(Image.open(BASE / "ref_image.png").convert("RGB")))
    latents = pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, generator)
    prompts = facts["prompt"], facts["negative"]

    def conditions(frames):
        emotion = tensors["in.drive.pd_fpg"][:, frames]
        return Conditions(
            tensors["in.drive.condition"][:, :, frames],
            emotion=emotion,
            negative_emotion=torch.zeros_like(emotion[:, :1]),
        )

    return (
        pipeline.prepare_reference(latents, *prompts),
        pipeline.encode_prompt(*prompts),
        conditions,
        generator,
    )


def test_a_clip_of_v3_is_reproduced_from_its_inputs(pipeline, given, monkeypatch):
    facts, tensors = recorded(V3)
    reference, text, conditions, generator = given
    heard, denoiser = {"unet": [], "unet_pre": []}, pipeline.denoiser

    def listening(*args, **more):
        denoise = denoiser(*args, **more)
        name = "unet" if more.get("motion") else "unet_pre"
        return lambda latents, timestep: heard[name].append(latents) or denoise(latents, timestep)

    monkeypatch.setattr(pipeline, "denoiser", listening)
    plan = ClipPlan(facts["f"], facts["steps"], facts["guidance_scale"], key_frames=True)
    drawn = torch.cat(list(draw_clip(pipeline, reference, conditions, plan, text, generator)), 2)
    for name, calls in heard.items():
        assert len(calls) == facts["calls"][name]
        for i in range(3):
            assert deviation(calls[i], tensors[f"{name}.{i}.sample"]) < 2e-5, (name, i)
    scale = pipeline.vae.config.scaling_factor
    assert deviation(drawn / scale, tensors["latents_over_scale"]) < 2e-5


def test_v5_draws_its_first_level_as_recorded():
    """From the recorded predictions of the networks: the noise, the steps and what they add at random."""
    facts, tensors = recorded(V5)
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

    scheduler = DPMSolverMultistepScheduler(**EULER, algorithm_type="sde-dpmsolver++")
    added = torch.Generator().manual_seed(facts["torch_manual_seed"])
    with pytest.raises(Enough):
        list(sample_key_frames(denoiser, None, scheduler, noise, facts["f"], facts["steps"], generator=added))
    for i in range(3):
        assert deviation(calls[i], tensors[f"unet.{i}.sample"]) < 2e-6


def test_progress_memory_guidance_and_no_motion(pipeline, given):
    reference, text, conditions, _ = given
    plan = ClipPlan(5, 1, 1.5, key_frames=True, window=3)  # two windows, three key frames
    shares, most = [], []

    def draw(on_progress=None, **changes):
        generator = torch.Generator().manual_seed(0)
        changed = dataclasses.replace(plan, **changes)
        return torch.cat(
            list(draw_clip(pipeline, reference, conditions, changed, text, generator, on_progress)), 2
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
    alone, noise = (
        draw(together=False),
        torch.randn(1, 4, 1, 16, 16, generator=torch.Generator().manual_seed(0)),
    )
    denoise = pipeline.denoiser(reference, text, 1.5, conditions(np.array([3])))
    picture = sample(denoise, pipeline.scheduler, noise, 1)
    assert deviation(alone[:, :, 3:4], picture) < 1e-4 < deviation(alone, drawn)
