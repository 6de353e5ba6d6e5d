"""Releases at their real size without their weights, for the benchmarks of memory."""

import torch
from common import ROOT  # noqa: F401  (makes the package importable)
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from hellomeme.inputs import Conditions, Reference
from hellomeme.models.unet import HMReferenceNet
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.networks import network_class


def pipeline_of(row) -> HelloMemePipeline:
    """The networks of a release on Stable Diffusion 1.5, on the device and in the type that are set."""
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    text = CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    controls = {net.slot: network_class(net)() for net in row.controls if net.expression_type == "pd_fpg"}
    motion = {
        net.slot: MotionAdapter(use_motion_mid_block=False)
        if net.slot == "motion_adapter"
        else network_class(net)()
        for net in row.motion
    }
    pipeline = HelloMemePipeline(
        AutoencoderKL(3, 3, down, up, (128, 256, 512, 512), 2),
        CLIPTextModel(text),
        None,
        UNet2DConditionModel(sample_size=64, cross_attention_dim=768),
        None,
        network_class(row.reference)(),
        **controls,
        **motion,
    )
    pipeline.release = row
    return pipeline


def denoiser(pipeline: HelloMemePipeline, frames: int, unet: torch.nn.Module | None, low_memory: bool):
    """What predicts so many frames. unet: the one with motion modules, for frames that are drawn together."""
    latents, text = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    features = HMReferenceNet(pipeline.unet)(latents, text)
    reference = Reference(latents[:1], pipeline.hm_reference.prepare(features))
    side = pipeline.release.condition_size
    shown = Conditions(
        torch.randn(1, 3, frames, side, side),
        emotion=torch.randn(1, frames, 548),
        negative_emotion=torch.randn(1, 1, 548),
    )
    maps = pipeline.control_maps(shown, 1.5, low_memory, device=latents.device)
    motion = None if unet is None else pipeline.hm_motion
    pads = None if motion is None else (features, features)
    return pipeline.denoiser(reference, text, 1.5, lambda: maps, unet, low_memory, motion, pads)
