"""The demo model's autoencoder: small enough to train on a CPU, with the interface of Stable Diffusion's."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

PATCH = 8  # pixels to a latent, each way: Stable Diffusion's factor


class _TimelessResnet(nn.Module):
    """The layers of diffusers' residual block, without a timestep, so that it stands in a `Sequential`."""

    def __init__(self, channels: int):
        super().__init__()
        self.block = ResnetBlock2D(in_channels=channels, out_channels=channels, temb_channels=None, groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = self.block
        hidden = block.conv1(block.nonlinearity(block.norm1(x)))
        return x + block.conv2(block.nonlinearity(block.norm2(hidden)))


def _resnets(channels: int, count: int) -> list[nn.Module]:
    return [_TimelessResnet(channels) for _ in range(count)]


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """An autoencoder that is a linear code of 8 x 8 patches plus a learnt correction on either side.

    A linear code (principal components) is a good autoencoder from the first step on; what a few CPU
    hours can add is the correction, so both networks start as exactly that code (`start_from_patches`)
    and are trained from there. No layer works at full resolution, which is what makes it cheap.

    Interface as `diffusers.AutoencoderKL`: `encode(x).latent_dist`, `decode(z).sample`,
    `config.scaling_factor`, `config.latent_channels`. Pictures are (B, 3, H, W) in [-1, 1] with H and W
    multiples of 8, latents (B, latent_channels, H/8, W/8).
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 8,
        encoder_channels: tuple[int, int] = (48, 96),
        decoder_channels: tuple[int, int, int] = (128, 72, 40),
        layers_per_block: int = 2,
        posterior_std: float = 0.02,
        scaling_factor: float = 1.0,
        sample_size: int = 128,
    ):
        super().__init__()
        fine, coarse = encoder_channels
        self.patch_encoder = nn.Conv2d(in_channels, latent_channels, PATCH, stride=PATCH)
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),  # (B, 48, H/4, W/4)
            nn.Conv2d(in_channels * 16, fine, 3, padding=1),
            *_resnets(fine, layers_per_block),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),  # (B, C, H/8, W/8)
            *_resnets(coarse, layers_per_block),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
            nn.Conv2d(coarse, latent_channels, 3, padding=1),
        )
        low, mid, high = decoder_channels
        self.patch_decoder = nn.ConvTranspose2d(latent_channels, in_channels, PATCH, stride=PATCH)
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, low, 3, padding=1),
            *_resnets(low, layers_per_block),
            nn.Upsample(scale_factor=2.0),
            nn.Conv2d(low, mid, 3, padding=1),  # (B, C, H/4, W/4)
            *_resnets(mid, layers_per_block),
            nn.Upsample(scale_factor=2.0),
            nn.Conv2d(mid, high, 3, padding=1),  # (B, C, H/2, W/2)
            *_resnets(high, layers_per_block),
            nn.GroupNorm(8, high),
            nn.SiLU(),
            nn.Conv2d(high, in_channels * 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, x: torch.Tensor, return_dict: bool = True):
        """(B, 3, H, W) in [-1, 1] to a Gaussian over unscaled latents (B, latent_channels, H/8, W/8)."""
        mean = self.patch_encoder(x) + self.encoder(x)
        logvar = torch.full_like(mean, 2 * math.log(self.config.posterior_std))
        posterior = DiagonalGaussianDistribution(torch.cat([mean, logvar], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: torch.Tensor, return_dict: bool = True, generator=None):
        """Latents (B, latent_channels, h, w), already divided by `scaling_factor`, to pictures
        (B, 3, 8h, 8w)."""
        sample = self.patch_decoder(z) + self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    @torch.no_grad()
    def start_from_patches(self, pictures: torch.Tensor) -> None:
        """Set both linear parts to the principal components of the patches of (N, 3, H, W) pictures.

        The components are scaled by the square root of their spread: unscaled, the mean colour would drown
        everything else in the denoising loss; whitened, noise-like components would count as much as it.
        The learnt corrections start at zero.
        """
        patches = F.pixel_unshuffle(pictures, PATCH).permute(0, 2, 3, 1).flatten(0, 2).double()  # (n, 3*64)
        mean = patches.mean(0)
        centred = patches - mean
        variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        latents = self.config.latent_channels
        axes = axes.flip(1)[:, :latents].T  # (latents, 3*64)
        spread = variance.flip(0)[:latents].sqrt().sqrt()[:, None]
        kernel = (axes / spread).view(latents, -1, PATCH, PATCH)
        self.patch_encoder.weight.copy_(kernel)
        self.patch_encoder.bias.copy_(-(axes / spread) @ mean)
        self.patch_decoder.weight.copy_((axes * spread).view_as(kernel))
        # The transposed convolution adds one bias per channel; the rest of the mean patch is left to the
        # correction.
        self.patch_decoder.bias.copy_(mean.view(-1, PATCH * PATCH).mean(1))
        for last in (self.encoder[-1], self.decoder[-2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
