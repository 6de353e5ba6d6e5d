"""Clips drawn in windows: the released run reproduced, and the windows themselves against their
definition."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler, UNetMotionModel
from PIL import Image
from safetensors.torch import load_file

from hellomeme.errors import HelloMemeError
from hellomeme.pipeline import Conditions
from hellomeme.releases.load import add_motion, find, load
from hellomeme.releases.table import Source, motion_module
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.image import Stopped, initial_latents, with_timesteps
from hellomeme.sampling.plan import FIRST_STEPS, ClipPlan
from hellomeme.sampling.windows import WINDOW, NoiseByFrame, sample_frames, sample_windows

FIXTURES = Path(__file__).parent / "fixtures"
# Both runs were made with the same networks
NETWORKS, CASE = FIXTURES / "e2e_v1_image", FIXTURES / "e2e_v1_video"
SD = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def deviation(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The networks of the recorded run, in style "x1": a second model sees the reference and makes the first
    pass."""
    official = tmp_path_factory.mktemp("official") / "sd15"
    shutil.copytree(NETWORKS / "official_sd15", official)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(NETWORKS / "checkpoint" / part, official / part)
    row = dataclasses.replace(
        find("v1"),
        root=NETWORKS / "hub",
        base=Source.of(NETWORKS / "checkpoint"),
        emotion_encoder=None,
        text_width=None,
        motion=(motion_module(Source.of(CASE / "hm_animatediff_frame12")),),
    )
    pipeline = load(row, device="cpu", reference_base=str(official))[0]
    assert add_motion(pipeline, row)
    return pipeline


@pytest.fixture(scope="module")
def run(pipeline):
    """(facts, recorded tensors, generator after the draw for the reference, frame numbers and network ->
    denoiser)."""
    facts, recorded = json.loads((CASE / "run.json").read_text()), load_file(CASE / "run.safetensors")
    generator = torch.Generator().manual_seed(facts["generator_seed"])
    picture = torch.from_numpy(np.array(Image.open(NETWORKS / "ref_image.png").convert("RGB")))
    latents = pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, generator)
    prompts = facts["prompt"], facts["negative"]
    reference, text = pipeline.prepare_reference(latents, *prompts), pipeline.encode_prompt(*prompts)

    def denoiser(frames, unet):
        frames = np.minimum(frames, facts["f"] - 1)
        shown = Conditions(
            recorded["in.drive.condition"][:, :, frames] / 127.5 - 1,
            emotion=recorded["in.drive.pd_fpg"][:, frames],
            negative_emotion=recorded["in.drive.neg_pd_fpg"],
        )
        maps = pipeline.control_maps(shown, facts["guidance_scale"])
        return pipeline.denoiser(reference, text, facts["guidance_scale"], lambda: maps, unet)

    return facts, recorded, generator, denoiser


def listening(denoiser, heard):
    """A denoiser that notes the latents it is given."""

    def at(frames):
        denoise = denoiser(frames)
        return lambda latents, timestep: heard.append(latents) or denoise(latents, timestep)

    return at


# The beginnings of both passes of a recorded clip of 14 frames, as far as single calls were recorded;
# `benchmarks/released_clip.py` draws it to its end and compares that.


@torch.no_grad()
def test_released_first_pass_is_reproduced(pipeline, run):
    """Two frames of the chain, and the noise under which the second pass begins from them."""
    facts, recorded, generator, denoiser = run
    scheduler, heard = pipeline.scheduler, []
    noise = torch.randn(1, 4, 1, 16, 16, generator=generator)
    at = listening(functools.partial(denoiser, unet=pipeline.reference_unet), heard)
    frames = torch.cat(list(sample_frames(at, scheduler, noise, 2, FIRST_STEPS, chained=True)), 2)
    for i in range(3):
        assert deviation(heard[i], recorded[f"unet_pre.{i}.sample"][1:]) < 2e-5
    assert len(heard) * facts["f"] == 2 * facts["calls"]["unet_pre"]
    padded = ClipPlan(facts["f"], facts["steps"], facts["guidance_scale"]).padded
    fresh = torch.cat(list(NoiseByFrame(generator, 4, padded, 16, 16)), 2)
    scheduler = with_timesteps(scheduler, facts["steps"])
    start = scheduler.scale_model_input(
        initial_latents(scheduler, fresh[:, :, :2], frames), scheduler.timesteps[0]
    )
    assert deviation(start, recorded["unet.0.sample"][1:, :, :2]) < 2e-5


@torch.no_grad()
def test_released_second_pass_is_reproduced(pipeline, run):
    facts, recorded, _, denoiser = run
    plan = ClipPlan(facts["f"], facts["steps"], facts["guidance_scale"])
    begun = torch.cat([recorded["unet.0.sample"][1:], recorded["unet.1.sample"][1:, :, plan.overlap :]], 2)
    assert begun.shape[2] == plan.padded == recorded["latents_over_scale"].shape[2]
    sigma, heard = pipeline.scheduler.init_noise_sigma, []
    # undo the scaling of the model's input: what is left is the noise that the sampler would begin from
    starts = ((None, one) for one in (begun * (sigma**2 + 1) ** 0.5 / sigma).split(1, 2))
    at = listening(functools.partial(denoiser, unet=pipeline.motion_unet()), heard)

    def enough(frames):
        if len(heard) == 3:
            raise Stopped

    with pytest.raises(Stopped):
        next(sample_windows(at, pipeline.scheduler, starts, plan.windows, plan.steps, on_step=enough))
    for i in range(3):  # the third follows from what both windows made of the first step
        assert deviation(heard[i], recorded[f"unet.{i}.sample"][1:]) < 2e-5


def test_the_motion_unet_is_made_of_the_parts_themselves(pipeline):
    ours, copied = pipeline.motion_unet(), UNetMotionModel.from_unet2d(pipeline.unet, pipeline.motion_adapter)
    state, expected = ours.state_dict(), copied.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in expected)
    known = {id(p) for net in (pipeline.unet, pipeline.motion_adapter) for p in net.parameters()}
    assert all(id(parameter) in known for parameter in ours.parameters())


def test_a_motion_module_of_another_shape_is_refused(pipeline, model_folder):
    other, _, row = load(str(model_folder), device="cpu")
    assert not add_motion(other, row)  # the folder holds none
    row = dataclasses.replace(row, motion=(motion_module(Source.of(CASE / "hm_animatediff_frame12")),))
    with pytest.raises(HelloMemeError, match="The motion module does not fit the base model"):
        add_motion(other, row)
    assert other.motion_adapter is None


@pytest.mark.parametrize(
    "frames, padded", [(1, 12), (3, 12), (4, 12), (11, 12), (12, 20), (14, 20), (19, 20), (20, 28)]
)
def test_padding_is_the_released_one(frames, padded):
    assert ClipPlan(frames, 25, 1.5).padded == padded
    if frames > 3:  # fewer crash there
        assert padded == frames + 8 - (frames - 4) % 8


def predict(frames):
    """A made-up model whose prediction depends on all frames of its window and on their numbers."""
    place = torch.from_numpy(np.sin(frames))[None, None, :, None, None]
    return lambda latents, timestep: latents * 0.3 + latents.mean(2, keepdim=True) + place + timestep / 1000


def all_at_once(scheduler, starts, plan):
    """The definition: at every step all windows of the clip, averaged where they overlap."""
    scheduler = with_timesteps(scheduler, plan.steps)
    noise = torch.cat([noise for _, noise in starts], 2)
    latents = scheduler.add_noise(
        torch.cat([clean for clean, _ in starts], 2), noise, scheduler.timesteps[:1]
    )
    for timestep in scheduler.timesteps:
        scaled, total = scheduler.scale_model_input(latents, timestep), torch.zeros_like(latents)
        count = torch.zeros(plan.padded).double()
        for first in range(0, plan.padded - plan.overlap, WINDOW - plan.overlap):
            frames = np.arange(first, first + WINDOW)
            total[:, :, frames] += predict(frames)(scaled[:, :, frames], timestep)
            count[frames] += 1
        latents = scheduler.step(total / count[:, None, None], timestep, latents).prev_sample
    return latents


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("overlap", [0, 3, 4, 6, 7, 8])
def test_waves_of_steps_give_what_all_windows_at_once_give(scheduler, overlap):
    plan = ClipPlan(41, 5, 1.0, overlap=overlap)
    values = torch.randn(2, plan.padded, 1, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    starts = list(zip(*values, strict=True))
    got = torch.cat(list(sample_windows(predict, scheduler(**SD), iter(starts), plan.windows, plan.steps)), 2)
    torch.testing.assert_close(got, all_at_once(scheduler(**SD), starts, plan), rtol=1e-9, atol=1e-9)


def test_no_more_frames_are_held_than_the_steps_need():
    plan, asked = ClipPlan(400, 5, 1.0), 0

    def starts():
        nonlocal asked
        for number in range(1, plan.padded + 1):
            asked = number
            yield torch.zeros(1, 1, 1, 2, 2), torch.ones(1, 1, 1, 2, 2)

    done, held = 0, []
    for latents in sample_windows(predict, EulerDiscreteScheduler(**SD), starts(), plan.windows, plan.steps):
        done += latents.shape[2]
        held.append(asked - done)
    assert done == plan.padded and max(held) <= plan.steps * (WINDOW - plan.overlap) + plan.overlap


def test_the_noise_of_a_clip_frame_by_frame_is_that_of_one_draw():
    generator, other = (torch.Generator().manual_seed(3) for _ in range(2))
    torch.randn(1, 4, generator=generator), torch.randn(1, 4, generator=other)
    expected = torch.randn(1, 4, 20, 16, 16, generator=generator)
    assert torch.equal(torch.cat(list(NoiseByFrame(other, 4, 20, 16, 16)), 2), expected)
    assert torch.equal(torch.randn(5, generator=other), torch.randn(5, generator=generator))


def test_every_part_of_the_plan_counts(pipeline, monkeypatch):
    reference = pipeline.prepare_reference(torch.ones(1, 4, 16, 16) / 2)
    text = pipeline.encode_prompt("")
    poses = torch.rand(1, 3, 13, 128, 128, generator=torch.Generator().manual_seed(2))

    def conditions(frames):
        emotion = torch.linspace(-1, 1, 548).expand(1, len(frames), -1)
        return Conditions(poses[:, :, frames], emotion=emotion)

    def draw(shares=None, **changes):
        plan = dataclasses.replace(ClipPlan(13, 1, 1.0), **changes)
        generator, on_progress = torch.Generator().manual_seed(0), None if shares is None else shares.append
        latents = torch.cat(
            list(draw_clip(pipeline, reference, conditions, plan, text, generator, on_progress)), 2
        )
        assert latents.shape == (1, 4, 13, 16, 16)
        return latents

    shares = []
    first = draw(shares)
    assert shares == sorted(shares) and shares[-1] == 1
    for change in ({"overlap": 6}, {"fast": True}, {"first_pass": False}, {"together": False}):
        assert deviation(draw(**change), first) > 1e-3, change

    with monkeypatch.context() as patch:  # a schedule that ends in noise alone: no first pass shines through
        scheduler = pipeline.scheduler
        for zero_snr, is_same in ((True, True), (False, False)):
            settings = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": zero_snr}
            patch.setattr(pipeline, "scheduler", type(scheduler).from_config(scheduler.config, **settings))
            assert torch.equal(draw(), draw(first_pass=False)) == is_same

    # Alone, a frame is the picture of that moment, from the noise that all frames share.
    alone = draw(together=False)
    noise = torch.randn(1, 4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    more = {"num_inference_steps": 1, "guidance_scale": 1.0, "noise": noise, "output_type": "latent"}
    picture = pipeline(reference, **vars(conditions([6])), **more).latents
    torch.testing.assert_close(alone[:, :, 6:7], picture, atol=1e-3, rtol=1e-4)
