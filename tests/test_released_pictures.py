"""A recorded picture of release v5c, which sees the reference with its own pose and expression.

The networks are tiny; a stand-in takes the place of the control net and its projection (`stand_ins`). It was
recorded in style "x1": a second model sees the reference.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from hellomeme.errors import HelloMemeError
from hellomeme.inputs import Conditions
from hellomeme.models.adapters import HM5bReferenceAdapter
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.load import find
from hellomeme.releases.parts import scheduler_of
from tests.stand_ins import StandInControl

FIXTURES = Path(__file__).parent / "fixtures"
BASE, V5C = FIXTURES / "e2e_v1_image", FIXTURES / "e2e_v5c_image"


def deviation(got, expected):
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def pipeline():
    def load(kind, folder):
        return kind.from_pretrained(folder).eval()

    official, checkpoint, row = BASE / "official_sd15", BASE / "checkpoint", find("v5c")
    pipeline = HelloMemePipeline(
        vae=load(AutoencoderKL, checkpoint / "vae"),
        text_encoder=load(CLIPTextModel, official / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(checkpoint / "tokenizer"),
        unet=load(UNet2DConditionModel, checkpoint / "unet"),
        scheduler=scheduler_of(row.image_sampler),
        hm_reference=load(HM5bReferenceAdapter, V5C / "hm5c_reference"),
        reference_unet=load(UNet2DConditionModel, official / "unet"),
        reference_vae=load(AutoencoderKL, official / "vae"),
        reference_control=row.reference_control,
    )
    pipeline.hm_control = StandInControl([V5C / "hm5_control_base", V5C / "hm5c_control_proj"])
    return pipeline


def conditions(recorded, who):
    """Of the "drive" or the "ref": the negative emotion code is zeros."""
    code = recorded[f"in.{who}.pd_fpg"]
    return Conditions(recorded[f"in.{who}.condition"], emotion=code, negative_emotion=torch.zeros_like(code))


def test_a_picture_of_v5c_is_reproduced_from_its_inputs(pipeline):
    facts, recorded = json.loads((V5C / "run.json").read_text()), load_file(V5C / "run.safetensors")
    draws = facts["random_draws"]
    assert [draw["seeded"] for draw in draws] == [True, True] + [False] * facts["steps"]
    generator = torch.Generator().manual_seed(facts["generator_seed"])
    picture = torch.from_numpy(np.array(Image.open(BASE / "ref_image.png").convert("RGB")))

    latents = pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, generator)
    assert deviation(latents, recorded["unet_ref.0.sample"][1:, :, 0]) < 1e-5
    prompts = facts["prompt"], facts["negative"]
    reference = pipeline.prepare_reference(latents, *prompts, conditions(recorded, "ref"))

    noise = torch.randn(draws[1]["shape"], generator=generator).unsqueeze(2)
    assert deviation(noise, recorded["unet.0.sample"][1:]) < 1e-6
    after = []
    torch.manual_seed(facts["torch_manual_seed"])  # without a generator the steps draw from the global one
    result = pipeline(
        reference,
        **vars(conditions(recorded, "drive")),
        prompt=prompts[0],
        negative_prompt=prompts[1],
        num_inference_steps=facts["steps"],
        guidance_scale=facts["guidance_scale"],
        noise=noise,
        callback_on_step_end=lambda pipe, i, t, tensors: after.append(tensors["latents"]),
        output_type="pt",
    )
    assert len(after) == facts["steps"]
    scale = pipeline.vae.config.scaling_factor
    figures = {
        **{f"step {i}": deviation(after[i][:, :, 0], recorded[f"step.{i}.latents"]) for i in (0, 3, 7)},
        "latents": deviation(result.latents[:, :, 0] / scale, recorded["latents_over_scale"]),
        "picture": deviation(result.frames[:, :, 0].permute(0, 2, 3, 1), recorded["images"]),
    }
    print({name: f"{figure:.1e}" for name, figure in figures.items()})
    assert figures.pop("picture") < 5e-5
    assert max(figures.values()) < 2e-5, figures


def test_the_reference_is_seen_with_its_own_pose_and_expression(pipeline):
    recorded = load_file(V5C / "run.safetensors")
    latents = recorded["unet_ref.0.sample"][1:, :, 0]
    own, another = (
        pipeline.prepare_reference(latents, conditions=conditions(recorded, who)).prepared["up_0"].row_keys
        for who in ("ref", "drive")
    )
    assert deviation(another, own) > 0.01
    with pytest.raises(HelloMemeError, match="pass its conditions"):
        pipeline.prepare_reference(latents)
