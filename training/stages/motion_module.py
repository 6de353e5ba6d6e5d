"""Stage 4: with base and adapters frozen, the motion module (AnimateDiff's), on clips.

It is trained as the demo model draws clips: all frames of a window begin with the same pure noise, of which
one step makes latents.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import MotionAdapter, UNetMotionModel
from PIL import Image
from torch import nn

from hellomeme.models.unet import HMDenoisingNet
from hellomeme.sampling.windows import WINDOW
from training.dataset import Frames
from training.driving import COMMANDED, OWN, DrivenFrames
from training.loop import Stage
from training.pictures import to_images
from training.stages.adapters import PURE, AdapterStage, network_inputs

STEADINESS = 4.0


def make_motion_adapter(
    channels: tuple[int, ...], layers: int, heads: int, transformer_layers: tuple[int, ...]
) -> MotionAdapter:
    """A motion module for a UNet of these widths that begins without any effect.

    transformer_layers: how many layers of attention across frames at each resolution, the finest first. Where
    there are none, diffusers keeps the group norm over all frames and two linear maps.
    """
    motion = MotionAdapter(
        block_out_channels=tuple(channels),
        motion_layers_per_block=layers,
        motion_transformer_layers_per_block=tuple(transformer_layers),
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


def flicker(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between neighbouring frames of (output - truth), both (B, C, T, h, w)."""
    return (output - truth).diff(dim=2).square().mean()


class MotionStage(Stage):
    """The error of the frames of a window, and of what changes from one to the next, as one step draws
    them."""

    name = "motion"
    targets = WINDOW

    def __init__(
        self,
        adapters: AdapterStage,
        motion: MotionAdapter,
        clips: Frames,
        latents: torch.Tensor,
        validation: Frames,
        validation_latents: torch.Tensor,
        clip_frames: int,
    ) -> None:
        super().__init__()
        self.adapters = adapters.requires_grad_(False)
        unet = UNetMotionModel.from_unet2d(adapters.denoising_net.unet, motion, load_weights=True)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_("motion_modules" in name)
        self.denoising_net = HMDenoisingNet(unet, adapters.adapter)
        self.clips, self.latents = clips, latents
        self.validation, self.validation_latents = validation, validation_latents
        basis, size = adapters.driven.basis, adapters.driven.size
        self.driven, self.driven_validation = (DrivenFrames(f, basis, size) for f in (clips, validation))
        self.clip_frames = clip_frames
        self.usable = self._whole(clips)

    def _whole(self, clips: Frames) -> np.ndarray:
        """First frames of the clips in which a face was found throughout."""
        found = clips.found.reshape(-1, self.clip_frames).all(axis=1)
        return np.flatnonzero(found) * self.clip_frames

    def _window(
        self,
        driven: DrivenFrames,
        latents: torch.Tensor,
        references: np.ndarray,
        windows: np.ndarray,
        rng: np.random.Generator | None = None,
    ) -> dict:
        """references (B,) and windows (B, T) of frame indexes to a batch.

        With `rng`, a window's coefficients are either those detected or those commanded; without, those
        detected.
        """
        sources = None if rng is None else rng.choice((OWN, COMMANDED), (len(windows), 1))
        if sources is not None:
            sources = np.broadcast_to(sources, windows.shape)
        inputs = network_inputs(driven, latents, references, windows, sources)
        return inputs | dict(latents=latents[windows].float().transpose(1, 2))  # (B, C, T, h, w)

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        firsts = rng.choice(self.usable, batch)
        # Up to half a window reaches beyond the end, where the last frame stands, as in the last window of
        # any clip.
        starts = rng.integers(0, self.clip_frames - WINDOW // 2 + 1, batch)
        frames = np.minimum(starts[:, None] + np.arange(WINDOW), self.clip_frames - 1)
        backwards = rng.random(batch) < 0.5  # as good a clip
        windows = firsts[:, None] + np.where(backwards[:, None], frames[:, ::-1], frames)
        references = firsts + rng.integers(0, self.clip_frames, batch)
        return self._window(self.driven, self.latents, references, windows, rng)

    def forward(self, batch: dict) -> torch.Tensor:
        truth, clean = batch["latents"], self._clean(self.denoising_net, batch)
        return (clean - truth).square().mean() + STEADINESS * flicker(clean, truth)

    def _clean(self, net: HMDenoisingNet, batch: dict, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Clean latents (B, C, T, h, w) as one step draws them.

        noise: (B, C, h, w), of all frames; drawn if not given.
        """
        truth = batch["latents"]
        with torch.no_grad():
            prepared, control = self.adapters.conditioned(batch)
        text = self.adapters.empty_text.expand(len(truth), -1, -1)
        noise = torch.randn_like(truth[:, :, 0]) if noise is None else noise
        noise = noise[:, :, None].expand_as(truth)
        return -net(noise, PURE, text, prepared, control).float()  # see `AdapterStage.one_step`

    def _drawn(self, clips: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Latents of the first windows of validation clips: the truth, and "alone" and "together" as they are
        drawn."""
        device = self.adapters.empty_text.device
        firsts = self._whole(self.validation)[:clips]
        windows = firsts[:, None] + np.arange(WINDOW)
        batch = self._window(self.driven_validation, self.validation_latents, firsts, windows)
        batch = {k: v.to(device) for k, v in batch.items()}
        truth = batch["latents"]
        noise = torch.randn(truth[:, :, 0].shape, generator=torch.Generator().manual_seed(0)).to(device)
        nets = {"alone": self.adapters.denoising_net, "together": self.denoising_net}
        return truth, {name: self._clean(net, batch, noise) for name, net in nets.items()}

    def validate(self) -> dict[str, float]:
        """Error and flicker of the latents of validation clips, without and with the motion module.

        still: the flicker of a picture that does not move.
        """
        truth, drawn = self._drawn(8)
        figures = {"still": flicker(torch.zeros_like(truth), truth).item()}
        for name, clean in drawn.items():
            figures |= {
                f"error_{name}": (clean - truth).square().mean().item(),
                f"flicker_{name}": flicker(clean, truth).item(),
            }
        return figures

    def picture(self) -> Image.Image:
        """Rows of a validation clip: the truth, drawn without the motion module, and with it."""
        truth, drawn = self._drawn(1)
        autoencoder = self.adapters.autoencoder
        rows = []
        for latents in (truth, *drawn.values()):
            decoded = autoencoder.decode(
                latents[0].transpose(0, 1) / autoencoder.config.scaling_factor
            ).sample
            rows.append(np.hstack(to_images(decoded)))
        return Image.fromarray(np.vstack(rows))
