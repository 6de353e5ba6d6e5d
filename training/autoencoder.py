"""Stage 1: the autoencoder."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from hellomeme.models.autoencoder import PatchAutoencoder
from training.dataset import Frames
from training.loop import Stage

# MediaPipe landmarks around which a viewer looks first: the outer and inner eye corners, the mouth's corners
# and middle.
LOOKED_AT = {"eyes": (33, 133, 263, 362), "mouth": (61, 291, 13, 14)}


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(tensor: torch.Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] to (N, H, W, 3) uint8."""
    return ((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each of N pairs of uint8 pictures."""
    return np.array([peak_signal_noise_ratio(truth, picture) for picture, truth in zip(a, b, strict=True)])


def edge_strength(images: np.ndarray) -> float:
    """Mean absolute difference of horizontally neighbouring pixels of (N, H, W, 3) uint8 pictures."""
    return float(np.abs(np.diff(images.astype(np.int16), axis=2)).mean())


def attention_weights(landmarks: np.ndarray, found: np.ndarray, size: int, peak: float = 4.0) -> np.ndarray:
    """(N, size, size) weights with mean 1: up to `peak` times more on eyes and mouth than elsewhere."""
    grid = (np.arange(size) + 0.5) / size
    weights = np.ones((len(landmarks), size, size), np.float32)
    for points in (LOOKED_AT["eyes"][:2], LOOKED_AT["eyes"][2:], LOOKED_AT["mouth"]):
        centre = landmarks[:, points].mean(1)  # (N, 2)
        half = np.ptp(landmarks[:, points], axis=1).max(-1)[:, None, None] * 0.5 + 0.03
        dx = grid[None, None, :] - centre[:, 0, None, None]
        dy = grid[None, :, None] - centre[:, 1, None, None]
        weights += (peak - 1) * found[:, None, None] * np.exp(-(dx**2 + (1.4 * dy) ** 2) / half**2)
    return weights / weights.mean(axis=(1, 2), keepdims=True)


class AutoencoderStage(Stage):
    """Weighted L1 of colours and of their gradients, decoded from noisy latents so that the code becomes
    smooth."""

    name = "autoencoder"

    def __init__(
        self, autoencoder: PatchAutoencoder, frames: Frames, validation: Frames, latent_noise: float = 0.1
    ):
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
