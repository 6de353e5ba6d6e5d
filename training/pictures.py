"""Pictures as arrays and tensors, and measures of them."""

from __future__ import annotations

import numpy as np
import torch
from skimage.metrics import peak_signal_noise_ratio

# MediaPipe's landmarks of the regions that matter most: the outer and inner corners of the eyes, the corners
# and the middle of the mouth.
REGIONS = {"eyes": (33, 133, 263, 362), "mouth": (61, 291, 13, 14)}


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
    for points in (REGIONS["eyes"][:2], REGIONS["eyes"][2:], REGIONS["mouth"]):
        centre = landmarks[:, points].mean(1)  # (N, 2)
        half = np.ptp(landmarks[:, points], axis=1).max(-1)[:, None, None] * 0.5 + 0.03
        dx = grid[None, None, :] - centre[:, 0, None, None]
        dy = grid[None, :, None] - centre[:, 1, None, None]
        weights += (peak - 1) * found[:, None, None] * np.exp(-(dx**2 + (1.4 * dy) ** 2) / half**2)
    return weights / weights.mean(axis=(1, 2), keepdims=True)
