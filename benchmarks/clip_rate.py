"""Frames a second of a clip whose frames are drawn alone, against one frame after the other:
`python benchmarks/clip_rate.py [--divide 2] [--side 256] [--steps 10] [--dtype bfloat16]`.

The networks are those of release v1 with random weights, their widths divided by `--divide`. The baseline
draws one frame at a time: at each step it moves the reference's feature maps to the device, makes their keys
and values, and runs the control net. The ways take turns, so that what else the machine does falls on all of
them: the median of the ratios counts, and their range stands beside it. Seconds are CPU time of all threads,
or wall clock on a GPU.

Not timed: analysis, the autoencoder, reading and writing.
"""

import argparse
import dataclasses
import statistics

import numpy as np
import torch
from common import machine, seconds
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel

from hellomeme.inputs import Conditions, Reference
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.control import HMControlNet
from hellomeme.models.unet import HMReferenceNet
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.load import choose_device
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.image import sample
from hellomeme.sampling.plan import ClipPlan

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--divide", type=int, default=2, help="the widths of Stable Diffusion 1.5 by this")
parser.add_argument("--side", type=int, default=256, help="of the picture, in px")
parser.add_argument("--frames", type=int, default=4)
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--dtype", default="float32")
parser.add_argument("--device")
options = parser.parse_args()

GUIDANCE = 2.0
device, dtype = choose_device(options.device), getattr(torch, options.dtype)


def pipeline() -> HelloMemePipeline:
    torch.manual_seed(0)
    widths = tuple(width // options.divide for width in (320, 640, 1280, 1280))
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=widths,
        cross_attention_dim=768 // options.divide,
        norm_num_groups=32 // options.divide,
    )
    control = HMControlNet(
        cross_attention_dim=320 // options.divide, block_out_channels=(128 // options.divide, *widths[:3])
    )
    nets = unet, HMReferenceAdapter(block_out_channels=widths), control
    unet, adapter, control = (net.eval().to(device, dtype) for net in nets)
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    return HelloMemePipeline(None, None, None, unet, scheduler, adapter, control)


pipe = pipeline()
latents = torch.randn(1, 4, options.side // 8, options.side // 8).to(device, dtype)
text = torch.randn(2, 77, pipe.unet.config.cross_attention_dim).to(device, dtype)
pose = torch.rand(1, 3, options.frames, options.side, options.side) * 2 - 1
expression = torch.rand(1, options.frames, 51)
with torch.inference_mode():
    features = HMReferenceNet(pipe.unet)(torch.cat([torch.zeros_like(latents), latents]), text)
    prepared = Reference(latents, pipe.hm_reference.prepare(features))
    features = {place: x.cpu() for place, x in features.items()}


def shown(frames: np.ndarray) -> Conditions:
    return Conditions(pose[:, :, frames].to(dtype), expression[:, frames].to(dtype))


def one_by_one() -> torch.Tensor:
    """Frame by frame."""
    noise = torch.randn(1, 4, 1, *latents.shape[-2:], generator=torch.Generator().manual_seed(0))

    def predict(frame: int, noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        moved = {place: x.to(device) for place, x in features.items()}
        reference = Reference(latents, pipe.hm_reference.prepare(moved))
        maps = pipe.control_maps(shown(np.array([frame])), GUIDANCE)
        return pipe.denoiser(reference, text, GUIDANCE, lambda: maps)(noisy, timestep)

    def picture(frame: int) -> torch.Tensor:
        return sample(lambda *at: predict(frame, *at), pipe.scheduler, noise.to(device, dtype), options.steps)

    return torch.cat([picture(frame) for frame in range(options.frames)], 2)


def together(**changes) -> torch.Tensor:
    """As `Reenactor.video` draws them."""
    plan = dataclasses.replace(ClipPlan(options.frames, options.steps, GUIDANCE, together=False), **changes)
    generator = torch.Generator().manual_seed(0)
    return torch.cat(list(draw_clip(pipe, prepared, shown, plan, text, generator)), 2)


BASELINE = "one frame after the other"
ways = {
    BASELINE: one_by_one,
    "a clip": together,
    "deep features at every 3rd step": lambda: together(reuse=3),
    "every 5th step, guidance for 40 %": lambda: together(reuse=5, guidance_end=0.4),
}
with torch.inference_mode():
    first, second = one_by_one(), together()
difference = (first - second).abs().max() / first.abs().max()
rounds = [{name: seconds(draw, device) for name, draw in ways.items()} for _ in range(options.rounds)]

print(
    f"{machine()}; {options.dtype}, widths of SD1.5 / {options.divide}, {options.side} px, "
    f"{options.frames} frames, {options.steps} steps, {options.rounds} rounds"
)
print(f"a clip differs from {BASELINE} by {difference:.1e} of the largest value")
for name in ways:
    ratios = [one[BASELINE] / one[name] for one in rounds]
    rate = options.frames / statistics.median(one[name] for one in rounds)
    spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"{name:<36}{rate:8.4f} frames a second, {statistics.median(ratios):5.2f} times {spread}")
