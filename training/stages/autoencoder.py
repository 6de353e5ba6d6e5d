"""Stage 1: the autoencoder."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from hellomeme.models.autoencoder import PatchAutoencoder
from training.dataset import Frames
from training.loop import Stage
from training.pictures import attention_weights, psnr, to_images, to_tensor


class AutoencoderStage(Stage):
    """Weighted L1 of colours and of their gradients, decoded from noisy latents so that the code becomes
    smooth."""

    name = "autoencoder"

    def __init__(
        self, autoencoder: PatchAutoencoder, frames: Frames, validation: Frames, latent_noise: float = 0.1
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.frames, self.validation, self.latent_noise = frames, validation, latent_noise

    def start(self) -> None:
        """Begin at the principal components of the patches of the first frames."""
        self.autoencoder.start_from_patches(
            to_tensor(self.frames.images[:: max(1, len(self.frames) // 1000)])
        )

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        chosen = rng.integers(0, len(self.frames), batch)
        size = self.frames.images.shape[1]
        images = self.frames.images[chosen]
        weights = attention_weights(self.frames.landmarks[chosen], self.frames.found[chosen], size)
        return dict(pictures=to_tensor(images), weights=torch.from_numpy(weights)[:, None])

    def forward(self, batch: dict) -> torch.Tensor:
        pictures, weights = batch["pictures"], batch["weights"]
        latents = self.autoencoder.encode(pictures).latent_dist.mean
        strength = self.latent_noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
        noisy = latents + strength * torch.randn_like(latents) * latents.detach().std(
            dim=(0, 2, 3), keepdim=True
        )
        error = self.autoencoder.decode(noisy).sample - pictures
        edges = (error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()) / 2
        return (error.abs() * weights).mean() + edges

    def reconstructions(self, images: np.ndarray) -> np.ndarray:
        pictures = to_tensor(images).to(self.autoencoder.device)
        parts = [
            self.autoencoder.decode(self.autoencoder.encode(p).latent_dist.mean).sample
            for p in pictures.split(32)
        ]
        return to_images(torch.cat(parts))

    def validate(self) -> dict[str, float]:
        images = self.validation.images[:128]
        return dict(psnr=psnr(self.reconstructions(images), images).mean())

    def picture(self) -> Image.Image:
        images = self.validation.images[:12]
        return Image.fromarray(np.concatenate([np.hstack(images), np.hstack(self.reconstructions(images))]))


@torch.no_grad()
def encode_all(autoencoder: PatchAutoencoder, images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 to latents (N, C, H/8, W/8), float16, before scaling, where the autoencoder lies."""
    batches = (to_tensor(images[i : i + 64]).to(autoencoder.device) for i in range(0, len(images), 64))
    return torch.cat(
        [autoencoder.encode(pictures).latent_dist.mean.half().cpu() for pictures in batches]
    ).contiguous()


def scaling_factor(latents: torch.Tensor) -> float:
    """The factor that gives latents unit spread, as Stable Diffusion's 0.18215 does."""
    return round(1 / latents.float().std().item(), 5)
