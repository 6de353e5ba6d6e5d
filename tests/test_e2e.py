"""A whole run of the released implementation at tiny widths, reproduced from its inputs
(release v1, emotion code).

The fixture holds the weights in the released layout, the inputs, and what the released code made of them. It
was recorded in style "x1": a second model sees the reference. Deviations are relative to the largest value.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from hellomeme.releases.load import find, load
from hellomeme.releases.table import Source

CASE = Path(__file__).parent / "fixtures" / "e2e_v1_image"


def deviation(got, expected):
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def run():
    return json.loads((CASE / "run.json").read_text()), load_file(CASE / "run.safetensors")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    official = tmp_path_factory.mktemp("official") / "sd15"
    shutil.copytree(CASE / "official_sd15", official)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(CASE / "checkpoint" / part, official / part)
    row = dataclasses.replace(
        find("v1"),
        root=CASE / "hub",
        base=Source.of(CASE / "checkpoint"),
        emotion_encoder=None,
        text_width=None,
    )
    return load(row, device="cpu", reference_base=str(official))[0]


def test_released_run_is_reproduced_from_its_inputs(pipeline, run):
    facts, recorded = run
    picture = torch.from_numpy(np.array(Image.open(CASE / "ref_image.png").convert("RGB")))
    generator = torch.Generator().manual_seed(facts["generator_seed"])

    latents = pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, generator)
    assert deviation(latents, recorded["unet_ref.0.sample"][1:, :, 0]) < 1e-5
    text = pipeline.encode_prompt(facts["prompt"], facts["negative"])
    assert deviation(text, recorded["unet.prompt_embeds"]) < 1e-5

    after = []
    result = pipeline(
        pipeline.prepare_reference(latents, facts["prompt"], facts["negative"]),
        recorded["in.drive.condition"],
        emotion=recorded["in.drive.pd_fpg"],
        negative_emotion=recorded["in.drive.neg_pd_fpg"],
        prompt=facts["prompt"],
        negative_prompt=facts["negative"],
        num_inference_steps=facts["steps"],
        guidance_scale=facts["guidance_scale"],
        generator=generator,
        callback_on_step_end=lambda pipe, i, t, tensors: after.append(tensors["latents"]),
        output_type="pt",
    )
    assert len(after) == facts["steps"]
    for i in (0, 12, 24):
        assert deviation(after[i][:, :, 0], recorded[f"step.{i}.latents"]) < 2e-5
    scale = pipeline.vae.config.scaling_factor
    assert deviation(result.latents[:, :, 0] / scale, recorded["latents_over_scale"]) < 2e-5
    assert deviation(result.frames[:, :, 0].permute(0, 2, 3, 1), recorded["images"]) < 5e-5


def test_the_second_model_sees_the_reference(pipeline, run):
    """What style x1 is about: with the drawing model in its place the reference reads differently."""
    facts, recorded = run
    latents = recorded["unet_ref.0.sample"][1:, :, 0]
    own = pipeline.prepare_reference(latents, facts["prompt"]).prepared["up_3"].row_keys
    second, pipeline.reference_unet = pipeline.reference_unet, None
    try:
        other = pipeline.prepare_reference(latents, facts["prompt"]).prepared["up_3"].row_keys
    finally:
        pipeline.reference_unet = second
    assert deviation(other, own) > 0.01
