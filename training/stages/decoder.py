"""The autoencoder's decoder, trained further on latents that the model has drawn.

In self-reenactment what one step draws of a frame and the frame itself are aligned, so that the decoder can
learn to make clean pictures of drawn latents. The encoder is frozen: latents made before stay valid. A small
patch discriminator keeps the decoder from answering doubt with blur.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.func import functional_call

from hellomeme.models.autoencoder import PatchAutoencoder
from training.dataset import Frames
from training.driving import SOURCES
from training.loop import Stage
from training.pictures import attention_weights, edge_strength, psnr, to_images, to_tensor
from training.stages.adapters import AdapterStage, network_inputs

ADVERSARIAL = 0.04  # weight of the discriminator's opinion
FACE_WEIGHT = 4.0  # of eyes and mouth in the loss
REFERENCES = 8  # in a batch of drawings
VALIDATED = 64  # drawings


class PatchDiscriminator(nn.Module):
    """Pictures (B, 3, H, W) -> how true each patch of them looks, (B, 1, h, w): above 0 for true."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96)) -> None:
        super().__init__()
        layers, channels = [], 3
        for width in widths:
            layers += [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layers(pictures)

    def opinion(self, pictures: torch.Tensor) -> torch.Tensor:
        """The same, with gradients for the pictures only."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        return functional_call(self, frozen, (pictures,))


@torch.no_grad()
def drawn_latents(adapters: AdapterStage, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What one step draws, (B * R, C, h, w) float16, of what `network_inputs` returned."""
    device = adapters.empty_text.device
    clean = adapters.one_step({name: tensor.to(device) for name, tensor in inputs.items()})
    return clean.transpose(1, 2).flatten(0, 1).half().cpu()


def drawings(adapters: AdapterStage, count: int, seed: int = 0) -> tuple[np.ndarray, torch.Tensor]:
    """Indexes (N,) of at least `count` frames of training, and what one step draws of them, see
    `drawn_latents`."""
    rng = np.random.default_rng(seed)
    indexes, latents = [], []
    for _ in range(-(-count // (REFERENCES * adapters.targets))):
        references, targets = adapters.choose(rng, REFERENCES)
        sources = rng.choice(SOURCES, targets.shape)
        inputs = network_inputs(adapters.driven, adapters.latents, references, targets, sources, rng)
        latents.append(drawn_latents(adapters, inputs))
        indexes.append(targets.ravel())
    return np.concatenate(indexes), torch.cat(latents)


class DecoderStage(Stage):
    """Weighted L1 of colours and of their gradients, the discriminator's opinion, and its own hinge loss."""

    name = "decoder"

    def __init__(
        self,
        autoencoder: PatchAutoencoder,
        latents: torch.Tensor,
        frames: Frames,
        validation_latents: torch.Tensor,
        validation: Frames,
    ) -> None:
        """latents: (N, C, h, w), scaled, as they were drawn of frames; the same for validation."""
        super().__init__()
        self.autoencoder = autoencoder.requires_grad_(False)
        for part in (autoencoder.patch_decoder, autoencoder.decoder):
            part.requires_grad_(True)
        self.discriminator = PatchDiscriminator()
        self.latents, self.frames = latents, frames
        self.validation_latents, self.validation = validation_latents, validation

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        chosen = rng.integers(0, len(self.latents), batch)
        images, f = self.frames.images[chosen], self.frames
        weights = attention_weights(f.landmarks[chosen], f.found[chosen], images.shape[1], FACE_WEIGHT)
        pictures, weights = to_tensor(images), torch.from_numpy(weights)[:, None]
        return dict(latents=self.latents[chosen].float(), pictures=pictures, weights=weights)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1]."""
        return self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample

    def forward(self, batch: dict) -> torch.Tensor:
        drawn, truth = self.decode(batch["latents"]).float(), batch["pictures"]
        error = drawn - truth
        edges = (error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()) / 2
        doubt = -self.discriminator.opinion(drawn).mean()
        judged = F.relu(1 - self.discriminator(truth)) + F.relu(1 + self.discriminator(drawn.detach()))
        return (error.abs() * batch["weights"]).mean() + edges + ADVERSARIAL * doubt + judged.mean()

    def pictures(self, count: int) -> np.ndarray:
        """The first drawings of validation frames, decoded: (N, H, W, 3) uint8."""
        latents = self.validation_latents[:count].float().to(self.autoencoder.device)
        return np.concatenate([to_images(self.decode(part)) for part in latents.split(32)])

    def validate(self) -> dict[str, float]:
        """PSNR, and how strong the edges are as a share of the truth's."""
        drawn, truth = self.pictures(VALIDATED), self.validation.images[:VALIDATED]
        return dict(psnr=psnr(drawn, truth).mean(), edges=edge_strength(drawn) / edge_strength(truth))

    def picture(self) -> Image.Image:
        return Image.fromarray(
            np.vstack([np.hstack(self.pictures(12)), np.hstack(self.validation.images[:12])])
        )
