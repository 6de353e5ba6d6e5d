"""The few-step presets: LoRA, schedulers, steps and guidance, for pictures and clips, on and off again."""

import dataclasses

import numpy as np
import photos
import pytest
import torch
from hub import serve
from styled import use_hub, write_lora, write_release

from hellomeme.errors import HelloMemeError
from hellomeme.models.lora_layers import adapters
from hellomeme.reenactor import Reenactor
from hellomeme.releases.few_steps import NAMES, PRESETS
from hellomeme.releases.load import find
from hellomeme.releases.parts import scheduler_of
from hellomeme.releases.styles import Style, split_repository
from hellomeme.sampling.image import with_timesteps
from hellomeme.settings import ClipSettings, Settings


def test_the_rows():
    assert NAMES == ("off", "tcd", "lcm", "hyper-4", "hyper-8")
    for preset in PRESETS:
        resolved = Settings(few_steps=preset.name).resolved(find("v1"))
        assert (resolved.steps, resolved.guidance) == (preset.steps, preset.guidance)
        assert 4 <= preset.steps <= 8 and preset.source
        chosen = Settings(few_steps=preset.name, steps=6, guidance=1.2).resolved(find("v1"))
        assert (chosen.steps, chosen.guidance) == (6, 1.2)
    assert Settings().resolved(find("v1")).steps == 25


@pytest.mark.parametrize(
    "name, timesteps",
    [
        ("tcd", [999, 759, 499, 259]),
        ("lcm", [999, 759, 499, 259]),
        ("hyper-4", [999, 749, 499, 249]),
        ("hyper-8", [999, 874, 749, 624, 499, 374, 249, 124]),
    ],
)
def test_the_schedulers_visit_the_timesteps_they_were_distilled_for(name, timesteps):
    preset = next(preset for preset in PRESETS if preset.name == name)
    scheduler = with_timesteps(scheduler_of(preset.sampler), preset.steps)
    assert scheduler.timesteps.tolist() == timesteps
    # On Stable Diffusion's own schedule
    assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.00466, abs=1e-5)
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]


@pytest.fixture(scope="module")
def reenactor(tmp_path_factory):
    row = write_release(tmp_path_factory.mktemp("release"))
    reenactor = Reenactor.from_release(row, device="cpu")
    reenactor.set_reference(photos.toon(3))
    return reenactor


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the hub with the LoRA of every preset."""
    repositories = {}
    for seed, preset in enumerate(PRESETS):
        repository, name = split_repository(preset.lora)
        folder = repositories.setdefault(repository, tmp_path / repository)
        write_lora(folder / (name or "pytorch_lora_weights.safetensors"), seed, text=False)
    with serve(repositories) as (endpoint, asked):
        use_hub(monkeypatch, endpoint, tmp_path / "cache")
        yield asked


def test_pictures_and_clips_follow_the_setting(reenactor, hub, tmp_path):
    def draw(few_steps, **settings):
        result = reenactor.expression({"jawOpen": 0.8}, settings=Settings(few_steps=few_steps, **settings))
        return np.asarray(result.picture).astype(int), result

    unet, schedulers = (
        reenactor.pipeline.unet,
        (reenactor.pipeline.scheduler, reenactor.pipeline.clip_scheduler),
    )
    plain, _ = draw("off")
    pictures = {}
    for preset in PRESETS:
        pictures[preset.name], result = draw(preset.name, seed=2)
        assert type(reenactor.pipeline.scheduler).__name__ == preset.sampler.scheduler
        assert (result.settings.steps, result.settings.few_steps) == (preset.steps, preset.name)
        assert result.stamp.settings.few_steps == preset.name and result.style == Style()
        assert len(adapters(unet)) == 1 and reenactor.pipeline.unet is unet
        again, _ = draw(preset.name, seed=2)  # the noise between the steps is that of the seed, too
        assert (again == pictures[preset.name]).all()
    different = {picture.tobytes() for picture in pictures.values()}
    assert len(different) == len(PRESETS)
    assert not any("12steps" in path or "1step-" in path for path in hub)

    motion = reenactor.reference.motion.at([0, 0])
    steps = []
    report = reenactor.video(
        dataclasses.replace(motion, rate=12),
        tmp_path / "clip.mp4",
        Settings(few_steps="tcd"),
        ClipSettings(),
        lambda phase, done, total: steps.append(phase),
    )
    assert report.frames == 2 and report.settings.steps == 4 and "drawing" in steps

    again, _ = draw("off")
    assert (again == plain).all() and not adapters(unet)
    assert (reenactor.pipeline.scheduler, reenactor.pipeline.clip_scheduler) == schedulers


def test_together_with_a_style(reenactor, hub, tmp_path):
    style = Style(loras=(write_lora(tmp_path / "style.safetensors", 9),))
    reenactor.set_style(style)
    reenactor.expression(settings=Settings(few_steps="hyper-4"))
    assert len(adapters(reenactor.pipeline.unet)) == 2
    reenactor.expression(settings=Settings(steps=1))
    assert len(adapters(reenactor.pipeline.unet)) == 1 and reenactor.style == style
    reenactor.set_style(Style())


def test_the_demo_draws_in_one_step_already():
    with pytest.raises(HelloMemeError) as error:
        Settings(few_steps="tcd").resolved(find("demo"))
    assert str(error.value) == (
        "The few-step preset tcd is made for Stable Diffusion 1.5, on which demo is not built: "
        "leave few steps off, it draws in one step already."
    )
    with pytest.raises(HelloMemeError, match="Few steps must be one of off, tcd"):
        Settings(few_steps="turbo")


def test_a_preset_that_cannot_be_had_changes_nothing(reenactor, monkeypatch):
    scheduler = reenactor.pipeline.scheduler
    with pytest.raises(HelloMemeError, match="h1t/TCD-SD15-LoRA is not on this computer"):
        reenactor.expression(settings=Settings(few_steps="tcd"))
    assert reenactor.pipeline.scheduler is scheduler and not adapters(reenactor.pipeline.unet)
    assert torch.is_tensor(reenactor.reference.latents)
