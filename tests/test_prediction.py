"""Base models that predict v, with and without a schedule that ends in noise alone: told and sampled."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler
from safetensors.torch import load_file, save_file
from single_file import write_single_file
from styled import write_lora, write_release
from test_releases import CASE, refusal, v1

from hellomeme.errors import HelloMemeError
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.few_steps import PRESETS
from hellomeme.releases.load import find, load
from hellomeme.releases.parts import scheduler_of
from hellomeme.releases.prediction import CHOICES, Prediction
from hellomeme.releases.styles import Style
from hellomeme.sampling.image import sample
from hellomeme.styling import Styling

SCHEDULER = "scheduler/scheduler_config.json"
V, ZERO = CHOICES["v_prediction"], CHOICES["v_prediction_zero_snr"]


def of(pipeline):
    """What its schedulers take the base model for."""
    found = {
        Prediction.of_config(scheduler.config, "")
        for scheduler in (pipeline.scheduler, pipeline.clip_scheduler)
        if scheduler is not None
    }
    assert len(found) == 1
    return found.pop()


def folder_of(path, **config):
    folder = Path(shutil.copytree(CASE / "checkpoint", path))
    file = folder / SCHEDULER
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    return load_file(write_single_file(CASE / "checkpoint", path))


def later(name):
    """The samplers of a later row, with the networks of the tiny v1."""
    row = find(name)
    return v1(image_sampler=row.image_sampler, clip_sampler=row.clip_sampler)


@pytest.mark.parametrize("row", ["v1", "v3", "v5"])
@pytest.mark.parametrize("zero", [False, True])
def test_a_folder_says_what_its_model_predicts(tmp_path, row, zero):
    more = {"rescale_betas_zero_snr": True} if zero else {}
    folder = folder_of(tmp_path / "model", prediction_type="v_prediction", **more)
    pipeline = load(later(row), base=str(folder), device="cpu")[0]
    assert of(pipeline) == (ZERO if zero else V)
    assert type(pipeline.scheduler).__name__ == find(row).image_sampler.scheduler


def test_a_saved_pipeline_keeps_it(tmp_path):
    folder = folder_of(tmp_path / "model", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    load(v1(), base=str(folder), device="cpu")[0].save_pretrained(tmp_path / "saved")
    assert of(HelloMemePipeline.from_pretrained(tmp_path / "saved")) == ZERO
    row = dataclasses.replace(find(str(tmp_path / "saved")), text_width=None)
    assert of(load(row, device="cpu")[0]) == ZERO


@pytest.mark.parametrize(
    "keys, metadata, config, expected",
    [
        ((), None, None, Prediction()),
        (("v_pred",), None, None, V),
        (("v_pred", "ztsnr"), None, None, ZERO),
        ((), {"modelspec.prediction_type": "v"}, None, V),
        ((), {"modelspec.prediction_type": "epsilon"}, None, Prediction()),
        ((), None, 'model:\n  params:\n    parameterization: "v"\n', V),
        ((), None, "model:\n  params:\n    parameterization: eps\n", Prediction()),
    ],
)
def test_a_single_file_says_what_its_model_predicts(whole, tmp_path, keys, metadata, config, expected):
    path = tmp_path / "model.safetensors"
    save_file({**whole, **{key: torch.zeros(0) for key in keys}}, path, metadata)
    if config is not None:
        path.with_suffix(".yaml").write_text(config)
    assert of(load(v1(), base=str(path), device="cpu")[0]) == expected


def test_where_nothing_says_so_the_option_does(whole, tmp_path):
    save_file(whole, tmp_path / "model.safetensors")
    options = {"base": str(tmp_path / "model.safetensors"), "prediction_type": "v_prediction_zero_snr"}
    assert of(load(v1(), device="cpu", **options)[0]) == ZERO
    folder = str(folder_of(tmp_path / "v", prediction_type="v_prediction"))
    assert of(load(v1(), folder, "cpu", prediction_type="epsilon")[0]) == Prediction()
    assert "There is no prediction type x: choose from epsilon, v_prediction, v_p" in refusal(
        v1(), prediction_type="x"
    )
    style = Style(prediction_type="v_prediction")
    assert Style.from_facts(style.facts) == style.shown == style and "prediction_type" not in Style().facts
    folder = folder_of(tmp_path / "model", prediction_type="sample")
    assert refusal(v1(), base=str(folder)) == (
        f"{folder} predicts sample, which is not sampled here: choose a model that predicts epsilon or v."
    )
    with pytest.raises(HelloMemeError, match=r"^PNDMScheduler cannot sample .* \(it has no rescale_betas"):
        ZERO.scheduler(PNDMScheduler())


SAMPLERS = {
    f"{row} {kind}": getattr(find(row), f"{kind}_sampler")
    for row in ("v1", "v3")
    for kind in ("image", "clip")
}
SAMPLERS |= {preset.name: preset.sampler for preset in PRESETS}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction", CHOICES)
def test_every_sampler_finds_the_picture_that_a_perfect_model_has_in_mind(name, prediction):
    """A model that knows the picture predicts its noise, or its v, exactly."""
    clean, noise = torch.randn(2, 1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def error(taken_for, knows_noise):
        """Largest error of the result of a scheduler for another prediction, or for this one."""
        scheduler = scheduler_of(SAMPLERS[name], None, CHOICES[taken_for])
        own = scheduler_of(SAMPLERS[name], None, CHOICES[prediction])

        def perfect(latents, timestep):
            signal = own.alphas_cumprod[timestep.long()].sqrt()
            remaining = (1 - signal**2).sqrt()
            found = noise if knows_noise else (latents - signal * clean) / remaining
            return found if prediction == "epsilon" else signal * found - remaining * clean

        numbers = torch.Generator().manual_seed(1)
        drawn = sample(perfect, scheduler, noise, 8, numbers, start=clean if knows_noise else None)
        return (drawn - clean).abs().max()

    assert error(prediction, knows_noise=False) < 0.15  # schedules may end in a little noise
    if SAMPLERS[name].scheduler in ("EulerDiscreteScheduler", "DDIMScheduler"):  # which add no noise
        assert error(prediction, knows_noise=True) < 0.15
        assert error("v_prediction" if prediction == "epsilon" else "epsilon", knows_noise=True) > 0.5


def test_other_base_models_bring_their_prediction_along(tmp_path, monkeypatch):
    row = write_release(tmp_path)
    pipeline = load(row, device="cpu")[0]
    styling = Styling(pipeline, row)
    before = pipeline.scheduler
    lora = write_lora(tmp_path / "tcd.safetensors", 1, text=False)
    monkeypatch.setattr("hellomeme.releases.loras.find_lora", lambda source, progress=None: lora)
    folder = str(folder_of(tmp_path / "v", prediction_type="v_prediction"))
    styling.apply(Style(folder), "off")
    assert of(pipeline) == V and type(pipeline.scheduler) is type(before)
    styling.apply(Style(folder), "tcd")
    assert of(pipeline) == V and type(pipeline.scheduler).__name__ == "TCDScheduler"
    styling.apply(Style(folder, prediction_type="v_prediction_zero_snr"), "tcd")
    assert of(pipeline) == ZERO and type(pipeline.scheduler).__name__ == "TCDScheduler"
    styling.apply(Style(), "off")
    assert of(pipeline) == Prediction() and type(pipeline.scheduler) is type(before)
