"""Stage 2: the base, a little text-to-image model of Stable Diffusion 1.5's shape."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from hellomeme.models.autoencoder import PatchAutoencoder
from training.loop import Stage
from training.pictures import to_images


def make_unet(
    channels: tuple[int, ...],
    layers: int,
    text_width: int,
    latent_channels: int,
    size: int,
    heads: tuple[int, ...] | int = 4,
) -> UNet2DConditionModel:
    """A UNet with the blocks of Stable Diffusion 1.5 and the given widths."""
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        cross_attention_dim=text_width,
        attention_head_dim=heads,  # diffusers calls the number of heads so
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, brought to pure noise at its end so that few steps suffice."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Captions to (N, MAX_LENGTH) token ids."""
    return tokenizer(
        captions,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids


class BaseStage(Stage):
    """Denoising of captioned frames (v-prediction), with the caption dropped at times for classifier-free
    guidance."""

    name = "base"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        autoencoder: PatchAutoencoder,
        latents: torch.Tensor,
        captions: list[str],
        validation_latents: torch.Tensor,
        validation_captions: list[str],
        identities: np.ndarray,
        dropped_captions: float = 0.25,
    ) -> None:
        """identities: (N,) who is in which frame; all are drawn equally often, however many frames they
        have."""
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder
        self.autoencoder = autoencoder.requires_grad_(False)
        self.scheduler, self.tokenizer = make_scheduler(), tokenizer
        self.latents, self.tokens = latents, tokenize(tokenizer, captions)
        self.validation_latents, self.validation_tokens = (
            validation_latents,
            tokenize(tokenizer, validation_captions),
        )
        _, which, counts = np.unique(identities, return_inverse=True, return_counts=True)
        self.frame_weights = 1 / (len(counts) * counts[which])
        self.empty, self.dropped_captions = tokenize(tokenizer, [""]), dropped_captions

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        chosen = rng.choice(len(self.latents), batch, p=self.frame_weights)
        tokens = self.tokens[chosen].clone()
        tokens[torch.from_numpy(rng.random(batch) < self.dropped_captions)] = self.empty
        timesteps = torch.from_numpy(rng.integers(0, 1000, batch))
        return dict(latents=self.latents[chosen].float(), tokens=tokens, timesteps=timesteps)

    def forward(self, batch: dict) -> torch.Tensor:
        latents, timesteps = batch["latents"], batch["timesteps"]
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        text = batch["text"] if "text" in batch else self.text_encoder(batch["tokens"]).last_hidden_state
        predicted = self.unet(noisy.to(text.dtype), timesteps, encoder_hidden_states=text).sample
        return F.mse_loss(predicted.float(), self.scheduler.get_velocity(latents, noise, timesteps))

    def validate(self) -> dict[str, float]:
        torch.manual_seed(0)
        losses, latents, tokens = [], self.validation_latents[:64].float(), self.validation_tokens[:64]
        for level in (100, 400, 700, 950):
            batch = dict(latents=latents, tokens=tokens, timesteps=torch.full((len(latents),), level))
            losses.append(self.forward({k: v.to(self.unet.device) for k, v in batch.items()}).item())
        return dict(validation=np.mean(losses), low_noise=losses[0], high_noise=losses[-1])

    def sample(
        self, tokens: torch.Tensor, steps: int = 20, guidance: float = 3.0, seed: int = 0
    ) -> np.ndarray:
        """(N, MAX_LENGTH) token ids to (N, H, W, 3) uint8 pictures."""
        scheduler, device = make_scheduler(), self.unet.device
        scheduler.set_timesteps(steps)
        ids = torch.cat([self.empty.expand_as(tokens), tokens]).to(device)
        text = self.text_encoder(ids).last_hidden_state
        generator = torch.Generator().manual_seed(seed)
        sample = torch.randn((len(tokens), *self.latents.shape[1:]), generator=generator).to(device)
        for timestep in scheduler.timesteps:
            negative, positive = self.unet(
                torch.cat([sample, sample]), timestep.to(device), encoder_hidden_states=text
            ).sample.chunk(2)
            sample = scheduler.step(negative + guidance * (positive - negative), timestep, sample).prev_sample
        return to_images(self.autoencoder.decode(sample / self.autoencoder.config.scaling_factor).sample)

    def picture(self) -> Image.Image:
        return Image.fromarray(np.hstack(self.sample(self.validation_tokens[:48:6])))
