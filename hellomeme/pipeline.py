"""HelloMemePipeline: Figure 1 over tensors. Faces, crops and files are handled in `reenactor.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from .denoising import Denoising
from .errors import HelloMemeError
from .inputs import Conditions, Reference
from .io.image import to_pictures
from .models import old_names  # noqa: F401  (from_pretrained finds our networks by the modules it imports)
from .models.adapters import ReferenceAdapter
from .models.control import ControlNet
from .models.control_base import ControlNetBase, ControlProj
from .models.knitted_motion import KnittedMotion
from .models.lora_layers import without_loras
from .models.number_type import number_type
from .models.unet import HMReferenceNet
from .placement import Placed
from .prompts import encode
from .releases.saved import SavedRelease
from .sampling.image import OnStep, last_guided, sample

DECODED_AT_ONCE = 48 * 48  # latents: less than those of a frame of 512 px


@dataclass
class HelloMemeOutput(BaseOutput):
    """frames: (1, 3, T, H, W) in [0, 1] ("pt"), T PIL pictures ("pil") or None ("latent").
    latents: (1, C, T, h, w), scaled."""

    frames: Tensor | list | None
    latents: Tensor


class HelloMemePipeline(Denoising, Placed, SavedRelease, DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """A reference picture takes over the pose and expression of a driver (Figure 1).

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: the parts of a Stable Diffusion 1.5 model, unchanged.
            Any scheduler of diffusers may be put in place of `scheduler`.
        hm_reference: the network that makes keys and values of the reference for the places of the UNet.
        hm_control, hm_control2, hm_control_up: control nets of any class; those whose expression is given
            take part and their maps add up.
        hm_control_proj: makes the control maps out of those of the control nets, in releases from v4 on.
        reference_unet, reference_text_encoder, reference_vae: what sees the reference picture, where that is
            another model than the one that draws; None means the same one.
        motion_adapter: AnimateDiff's motion modules for `unet`, with which the frames of a clip are drawn
            together.
        hm_motion: motion modules of later releases, instead of those or beside them.
        clip_scheduler: for clips, where that is another one than for pictures.
        reference_control: whether the reference is seen together with control maps of its own pose and
            expression (v5c).
    """

    _optional_components = [
        "hm_control",
        "hm_control2",
        "hm_control_up",
        "hm_control_proj",
        "reference_unet",
        "reference_text_encoder",
        "reference_vae",
        "motion_adapter",
        "hm_motion",
        "clip_scheduler",
    ]

    def __init__(
        self,
        vae,
        text_encoder,
        tokenizer,
        unet,
        scheduler,
        hm_reference: ReferenceAdapter,
        hm_control: ControlNet | ControlNetBase | None = None,
        hm_control2: ControlNet | None = None,
        hm_control_up: ControlNet | None = None,
        hm_control_proj: ControlProj | None = None,
        reference_unet=None,
        reference_text_encoder=None,
        reference_vae=None,
        motion_adapter=None,
        hm_motion: KnittedMotion | None = None,
        clip_scheduler=None,
        reference_control: bool = False,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            hm_reference=hm_reference,
            hm_control=hm_control,
            hm_control2=hm_control2,
            hm_control_up=hm_control_up,
            hm_control_proj=hm_control_proj,
            reference_unet=reference_unet,
            reference_text_encoder=reference_text_encoder,
            reference_vae=reference_vae,
            motion_adapter=motion_adapter,
            hm_motion=hm_motion,
            clip_scheduler=clip_scheduler,
        )
        self.register_to_config(reference_control=reference_control)

    @property
    def has_motion(self) -> bool:
        """Whether it can draw the frames of a clip together."""
        return self.motion_adapter is not None or self.hm_motion is not None

    # The reference, once

    @torch.no_grad()
    def encode(self, picture: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Picture (1, 3, H, W) in [-1, 1] -> scaled latents (1, C, H/8, W/8).

        A draw from the encoder's Gaussian with a `generator`, as the released pipelines do; its mean without.
        """
        vae = self.reference_vae or self.vae
        self.bring(vae)
        posterior = vae.encode(picture.to(vae.device, vae.dtype)).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return latents * vae.config.scaling_factor

    @torch.no_grad()
    def prepare_reference(
        self,
        latents: Tensor,
        prompt: str = "",
        negative_prompt: str = "",
        conditions: Conditions | None = None,
    ) -> Reference:
        """All that depends on the reference only: the maps of HMReferenceNet, and their keys and values.

        latents: (1, C, h, w) from `encode`. The negative half of the batch sees empty latents.
        conditions: the reference's own pose and expression, where there is `reference_control`.
        Raises HelloMemeError without those there.
        """
        if self.config.reference_control and conditions is None:
            raise HelloMemeError(
                "This release sees the reference with its own pose and expression: pass its conditions."
            )
        unet = self.reference_unet or self.unet
        # A second model sees the reference without LoRA, though it draws a first pass with them
        plain = () if self.reference_unet is None else (unet, self.text_encoder)
        latents = latents.to(self.running_device, unet.dtype)
        control = conditions and self.control_maps(conditions, 2.0, device=latents.device).batch()
        batch = torch.cat([torch.zeros_like(latents), latents])
        with without_loras(*plain):
            text = self.encode_prompt(prompt, negative_prompt, self.reference_text_encoder)
            self.bring(unet, self.hm_reference)
            features = HMReferenceNet(unet)(batch, text, control)
        return Reference(latents, self.hm_reference.prepare(features))

    @torch.no_grad()
    def pad_features(self, latents: Tensor, text: Tensor) -> dict[str, Tensor]:
        """What motion networks see of a finished frame: latents (1, C, h, w) -> place -> (2, C, h, w).

        As for the reference, the negative half of the batch sees empty latents. text: both halves, from
        `encode_prompt`.
        """
        unet = self.reference_unet or self.unet
        self.bring(unet)
        latents = latents.to(self.running_device, unet.dtype)
        with without_loras(*filter(None, [self.reference_unet])):
            return HMReferenceNet(unet)(torch.cat([torch.zeros_like(latents), latents]), text)

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "", text_encoder=None) -> Tensor:
        """Text states (2, N, D), [negative, positive]; N is the tokenizer's length (77 for SD1.5)."""
        encoder = text_encoder or self.text_encoder
        self.bring(encoder)
        return encode(self.tokenizer, encoder, [negative_prompt, prompt], self.embeddings)

    # The driver, many times

    @torch.no_grad()
    def __call__(
        self,
        reference: Reference,
        condition: Tensor,
        drive_coeff: Tensor | None = None,
        face_parts: Tensor | None = None,
        emotion: Tensor | None = None,
        negative_emotion: Tensor | None = None,
        prompt: str = "",
        negative_prompt: str = "",
        num_inference_steps: int = 25,
        guidance_scale: float = 1.5,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        callback_on_step_end: Callable | None = None,
        output_type: str = "pil",
        low_memory: bool = False,
        reuse: int = 1,
        guidance_end: float = 1.0,
    ) -> HelloMemeOutput:
        """Draw the reference with the poses and expressions of T frames; a picture is a clip of one frame.

        Args:
            reference: from `prepare_reference`.
            condition, drive_coeff, face_parts, emotion, negative_emotion: the fields of `Conditions`.
            guidance_scale: negative + scale * (positive - negative); no guidance at 1 or less.
            generator: makes the result reproducible; used for the noise and by stochastic schedulers.
            noise: (1, C, T, h, w), standard normal, instead of a draw.
            callback_on_step_end: called as `f(pipeline, step, timestep, {"latents": latents})`; a dict it
                returns may hold other latents to continue with; an exception it raises ends the run.
            output_type: "pil", "pt" or "latent".
            low_memory: predict the two halves of guidance one after the other, with half the memory.
            reuse: compute deep features at every so many steps, and reuse them at the others.
            guidance_end: share of the steps, 0 to 1, after which there is no guidance.

        Raises:
            HelloMemeError: an expression that the control nets need is missing.
        """
        # 1. Text and control maps
        text = self.encode_prompt(prompt, negative_prompt)
        conditions = Conditions(condition, drive_coeff, face_parts, emotion, negative_emotion)
        ends = last_guided(self.scheduler, num_inference_steps, guidance_end)
        device = reference.latents.device
        control = self.control_maps(conditions, guidance_scale, low_memory, device=device)
        denoise = self.denoiser(
            reference, text, guidance_scale, lambda: control, None, low_memory, reuse=reuse, last_guided=ends
        )

        # 2. Noise and denoising
        if noise is None:
            noise = self._noise(reference, condition.shape[2], generator)
        noise = noise.to(reference.latents.device, number_type(self.unet))
        on_step = self._on_step(callback_on_step_end)
        latents = sample(denoise, self.scheduler, noise, num_inference_steps, generator, on_step)

        # 3. Decoding
        if output_type == "latent":
            return HelloMemeOutput(frames=None, latents=latents)
        frames = self.decode(latents)
        return HelloMemeOutput(frames=frames if output_type == "pt" else to_pictures(frames), latents=latents)

    def _noise(self, reference: Reference, frames: int, generator: torch.Generator | None) -> Tensor:
        """A draw for `frames`. As in the released pipelines it follows the draw for the reference latents, if
        the caller has advanced the generator past that one (`ReferencePortrait.generator`).
        """
        batch, channels, height, width = reference.latents.shape
        device = generator.device if generator else "cpu"
        return torch.randn((batch, channels, frames, height, width), generator=generator, device=device)

    def _on_step(self, callback: Callable | None) -> OnStep | None:
        """A callback as diffusers' pipelines take it, as one that the samplers take."""
        if callback is None:
            return None

        def on_step(i: int, timestep: Tensor, latents: Tensor) -> Tensor | None:
            return (callback(self, i, timestep, {"latents": latents}) or {}).get("latents")

        return on_step

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (1, C, T, h, w) -> pictures (1, 3, T, H, W) in [0, 1].

        A few frames at a time where they are small, and otherwise one by one, to save memory.
        """
        self.bring(self.vae)
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.device, number_type(self.vae))
        parts = latents[0].transpose(0, 1).split(decoded_at_once(latents))  # (T, C, h, w)
        frames = torch.cat([self.vae.decode(part).sample for part in parts])  # (T, 3, H, W)
        return (frames.transpose(0, 1)[None].float() / 2 + 0.5).clamp(0, 1)


def decoded_at_once(latents: Tensor) -> int:
    """How many frames with latents (.., h, w) are decoded at once: of small frames several."""
    return max(1, DECODED_AT_ONCE // latents.shape[-2:].numel())
