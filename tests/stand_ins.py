"""Recorded clips of releases from v3 on, at tiny widths, and what stands in for their control nets, since the
released classes do not allow such widths."""

import functools
import json
import pkgutil
from pathlib import Path

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from hellomeme.inputs import Conditions
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.load import find
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.plan import ClipPlan

SIDES = {"down3": (8, 4, 2, 2), "up3": (2, 4, 8, 16)}
WEIGHTS = "diffusion_pytorch_model.safetensors"


class StandInControl(nn.Module):
    """For each key, a convolution of the averaged condition plus a projection of the emotion code, times the
    scale of the net that follows in releases which have two."""

    expression_types = ("pd_fpg",)
    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, folders: list[Path]):
        super().__init__()
        first, *second = (load_file(folder / WEIGHTS) for folder in folders)
        self.weights, self.scale = first, second[0]["scale"] if second else 1.0

    def forward(self, condition: torch.Tensor, emo_embedding: torch.Tensor) -> dict[str, torch.Tensor]:
        frames, pictures = condition.shape[2], condition.transpose(1, 2).flatten(0, 1)

        def maps(key: str, side: int) -> torch.Tensor:
            w, small = self.weights, F.adaptive_avg_pool2d(pictures, side)
            x = F.conv2d(small, w[f"conv.{key}.weight"], w[f"conv.{key}.bias"])
            code = F.linear(emo_embedding.flatten(0, 1), w[f"lin.{key}.weight"], w[f"lin.{key}.bias"])
            return self.scale * (x + code[:, :, None, None]).unflatten(0, (-1, frames)).transpose(1, 2)

        keys = {f"{name}_{i}": side for name, sides in SIDES.items() for i, side in enumerate(sides)}
        return {key: maps(key, side) for key, side in keys.items()}


class RecordedRun:
    """A clip recorded in style "x1": a second model sees the reference, and draws the first and last frame.

    checkpoint, official: the base models. hub: the networks of the release. case: the run.
    """

    def __init__(self, checkpoint: Path, official: Path, hub: Path, case: Path):
        self.facts = json.loads((case / "run.json").read_text())
        self.tensors = load_file(case / "run.safetensors")
        self.row = find(self.facts["version"])
        self.pipeline = self._pipeline(checkpoint, official, hub)
        self.generator = torch.Generator().manual_seed(self.facts["generator_seed"])
        with Image.open(checkpoint.parent / "ref_image.png") as image:
            picture = torch.from_numpy(np.array(image.convert("RGB")))
        latents = self.pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, self.generator)
        prompts = self.facts["prompt"], self.facts["negative"]
        self.reference = self.pipeline.prepare_reference(latents, *prompts)
        self.text = self.pipeline.encode_prompt(*prompts)

    def _pipeline(self, checkpoint: Path, official: Path, hub: Path) -> HelloMemePipeline:
        def load(kind: type, folder: Path) -> nn.Module:
            return kind.from_pretrained(folder).eval()

        def scheduler(sampler) -> diffusers.SchedulerMixin:
            return getattr(diffusers, sampler.scheduler)(**sampler.settings)

        nets = (self.row.reference, *self.row.motion)
        pipeline = HelloMemePipeline(
            vae=load(AutoencoderKL, checkpoint / "vae"),
            text_encoder=load(CLIPTextModel, official / "text_encoder"),
            tokenizer=CLIPTokenizer.from_pretrained(checkpoint / "tokenizer"),
            unet=load(UNet2DConditionModel, checkpoint / "unet"),
            scheduler=scheduler(self.row.image_sampler),
            clip_scheduler=scheduler(self.row.clip_sampler),
            reference_unet=load(UNet2DConditionModel, official / "unet"),
            reference_vae=load(AutoencoderKL, official / "vae"),
            **{net.slot: load(pkgutil.resolve_name(net.class_path), hub / net.source.folder) for net in nets},
        )
        pipeline.hm_control2 = StandInControl(sorted(hub.glob("*control*")))
        return pipeline

    def conditions(self, frames: np.ndarray) -> Conditions:
        emotion = self.tensors["in.drive.pd_fpg"][:, frames]
        negative = torch.zeros_like(emotion[:, :1])
        condition = self.tensors["in.drive.condition"][:, :, frames]
        return Conditions(condition, emotion=emotion, negative_emotion=negative)

    @property
    def plan(self) -> ClipPlan:
        way = self.row.clip_sampler
        make = functools.partial(ClipPlan, first_pass=way.first_pass, key_frames=way.key_frames)
        return make(self.facts["f"], self.facts["steps"], self.facts["guidance_scale"])

    def draw(self) -> torch.Tensor:
        """The latents of the clip. A stochastic scheduler took its noise from another generator."""
        added = torch.Generator().manual_seed(self.facts["torch_manual_seed"])
        arguments = self.reference, self.conditions, self.plan, self.text, self.generator
        return torch.cat(list(draw_clip(self.pipeline, *arguments, step_generator=added)), 2)

    def deviation(self, latents: torch.Tensor) -> float:
        """Of the latents from the recorded ones, relative to the largest."""
        expected = self.tensors["latents_over_scale"] * self.pipeline.vae.config.scaling_factor
        return ((latents - expected).abs().max() / expected.abs().max()).item()
