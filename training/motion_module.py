"""Stage 4: with base and adapters frozen, the motion module (AnimateDiff's), on clips."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import MotionAdapter, UNetMotionModel
from PIL import Image
from torch import nn

from hellomeme.networks import HMDenoisingNet
from training.adapters import PURE_NOISE, AdapterStage
from training.dataset import Frames
from training.loop import Stage

WINDOW = 12  # frames, as in the paper


def make_motion_adapter(channels: tuple[int, ...], layers: int, heads: int) -> MotionAdapter:
    """A motion module for a UNet of these widths that begins without any effect."""
    motion = MotionAdapter(
        block_out_channels=tuple(channels),
        motion_layers_per_block=layers,
        motion_num_attention_heads=heads,
        motion_norm_num_groups=16,
        motion_max_seq_length=32,
        use_motion_mid_block=False,
    )
    for name, module in motion.named_modules():
        if name.endswith("proj_out"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return motion


class MotionStage(Stage):
    """The denoising loss of a window of frames that share one noise level, each with noise of its own."""

    name = "motion"

    def __init__(
        self,
        adapters: AdapterStage,
        motion: MotionAdapter,
        clips: Frames,
        latents: torch.Tensor,
        validation: Frames,
        validation_latents: torch.Tensor,
        clip_frames: int,
    ):
        super().__init__()
        self.adapters = adapters.requires_grad_(False)
        unet = UNetMotionModel.from_unet2d(adapters.denoising_net.unet, motion, load_weights=True)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_("motion_modules" in name)
        self.denoising_net = HMDenoisingNet(unet, adapters.adapter)
        self.clips, self.latents = clips, latents
        self.validation, self.validation_latents = validation, validation_latents
        self.clip_frames = clip_frames
        self.usable = self._whole(clips)

    def _whole(self, clips: Frames) -> np.ndarray:
        """First frames of the clips in which a face was found throughout."""
        found = clips.found.reshape(-1, self.clip_frames).all(axis=1)
        return np.flatnonzero(found) * self.clip_frames

    def _window(self, clips: Frames, latents: torch.Tensor, references: np.ndarray, windows: np.ndarray) -> dict:
        """references (B,) and windows (B, T) of frame indexes to a batch."""
        return dict(
            reference=latents[references].float(),
            latents=latents[windows].float().transpose(1, 2),  # (B, C, T, h, w)
            **AdapterStage.conditions(clips, windows),
        )

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        firsts = rng.choice(self.usable, batch)
        starts = firsts + rng.integers(0, self.clip_frames - WINDOW + 1, batch)
        references = firsts + rng.integers(0, self.clip_frames, batch)
        timesteps = rng.integers(0, 1000, batch)
        timesteps[rng.random(batch) < PURE_NOISE] = 999
        windows = starts[:, None] + np.arange(WINDOW)
        return self._window(self.clips, self.latents, references, windows) | dict(timesteps=torch.from_numpy(timesteps))

    def forward(self, batch: dict) -> torch.Tensor:
        noise = torch.randn_like(batch["latents"])
        return self._loss(self.denoising_net, batch, noise)

    def _loss(self, net: HMDenoisingNet, batch: dict, noise: torch.Tensor) -> torch.Tensor:
        scheduler, latents, timesteps = self.adapters.scheduler, batch["latents"], batch["timesteps"]
        with torch.no_grad():
            prepared = self.adapters.prepare(batch["reference"])
            control = self.adapters.control(batch["poses"], batch["coefficients"])
        text = self.adapters.empty_text.expand(len(latents), -1, -1)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        predicted = net(noisy, timesteps, text, prepared, control)
        return nn.functional.mse_loss(predicted, scheduler.get_velocity(latents, noise, timesteps))

    def validate(self) -> dict[str, float]:
        """The loss on validation clips, without and with the motion module."""
        firsts = self._whole(self.validation)[:6]
        windows = firsts[:, None] + np.arange(WINDOW)
        batch = self._window(self.validation, self.validation_latents, firsts, windows)
        figures = {"alone": 0.0, "together": 0.0}
        for level in (300, 600, 999):
            batch["timesteps"] = torch.full((len(firsts),), level)
            noise = torch.randn(batch["latents"].shape, generator=torch.Generator().manual_seed(level))
            moved = {k: v.to(self.adapters.empty_text.device) for k, v in batch.items()}
            for name, net in (("alone", self.adapters.denoising_net), ("together", self.denoising_net)):
                figures[name] += self._loss(net, moved, noise.to(moved["latents"].device)).item() / 3
        return figures

    def picture(self) -> Image.Image:
        """A validation clip: the truth. (What the module does shows over time: see `benchmarks/flicker.py`.)"""
        first = self._whole(self.validation)[0]
        return Image.fromarray(np.hstack(self.validation.images[first : first + WINDOW]))
