"""HelloMemePipeline: Figure 1 over tensors. Faces, crops and files are the business of `reenactor.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from .errors import HelloMemeError
from .io.image import to_pictures
from .models import old_names  # noqa: F401  (from_pretrained finds our networks by the modules it imports)
from .models.adapters import HMReferenceAdapter
from .models.control import ControlNet
from .models.motion_module import with_motion
from .models.unet import HMDenoisingNet, HMReferenceNet
from .sampling.image import Denoise, OnStep, guided, sample

BLACK = -1.0  # the condition picture of the negative half


@dataclass(frozen=True)
class Reference:
    """A reference picture ready to be driven any number of times.

    latents: (1, C, h, w), scaled. prepared: place -> KeysValues of batch 2, [negative, positive].
    Both belong to the weights they were made with: load LoRA first, then set the reference.
    """

    latents: Tensor
    prepared: dict

    def part(self, rows: slice) -> dict:
        """What the denoiser takes for these rows of the batch [negative, positive]."""
        return {place: type(kv)(*(tensor[rows] for tensor in kv)) for place, kv in self.prepared.items()}


@dataclass
class HelloMemeOutput(BaseOutput):
    """frames: (1, 3, T, H, W) in [0, 1] ("pt"), T PIL pictures ("pil") or None ("latent").
    latents: (1, C, T, h, w), scaled."""

    frames: Tensor | list | None
    latents: Tensor


class HelloMemePipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):
    """A reference picture takes over the pose and expression of a driver (Figure 1).

    Args:
        vae, text_encoder, tokenizer, unet, scheduler: the parts of a Stable Diffusion 1.5 model, unchanged.
            Any scheduler of diffusers may be put in place of `scheduler`.
        hm_reference: keys and values of the reference at the places of the UNet.
        hm_control, hm_control2, hm_control_up: control nets of any class; those whose code is given take part
            and their maps add up.
        reference_unet, reference_text_encoder, reference_vae: what sees the reference picture, where that is
            another model than the one that draws; None means the same one.
        motion_adapter: motion modules for `unet`, with which the frames of a clip are drawn together.
        clip_scheduler: for clips, where that is another one than for pictures.
    """

    _optional_components = [
        "hm_control",
        "hm_control2",
        "hm_control_up",
        "reference_unet",
        "reference_text_encoder",
        "reference_vae",
        "motion_adapter",
        "clip_scheduler",
    ]

    def __init__(
        self,
        vae,
        text_encoder,
        tokenizer,
        unet,
        scheduler,
        hm_reference: HMReferenceAdapter,
        hm_control: ControlNet | None = None,
        hm_control2: ControlNet | None = None,
        hm_control_up: ControlNet | None = None,
        reference_unet=None,
        reference_text_encoder=None,
        reference_vae=None,
        motion_adapter=None,
        clip_scheduler=None,
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
            reference_unet=reference_unet,
            reference_text_encoder=reference_text_encoder,
            reference_vae=reference_vae,
            motion_adapter=motion_adapter,
            clip_scheduler=clip_scheduler,
        )

    @property
    def controls(self) -> list[ControlNet]:
        return [net for net in (self.hm_control, self.hm_control2, self.hm_control_up) if net is not None]

    @property
    def expression_types(self) -> set[str]:
        """The expressions its control nets take: "drive_coeff", "pd_fpg" or both."""
        return {net.expression_type for net in self.controls}

    # The reference, once

    @torch.no_grad()
    def encode(self, picture: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Picture (1, 3, H, W) in [-1, 1] -> scaled latents (1, C, H/8, W/8).

        A draw from the encoder's Gaussian with a `generator`, as the released pipelines do; its mean without.
        """
        vae = self.reference_vae or self.vae
        posterior = vae.encode(picture.to(vae.device, vae.dtype)).latent_dist
        latents = posterior.mode() if generator is None else posterior.sample(generator)
        return latents * vae.config.scaling_factor

    @torch.no_grad()
    def prepare_reference(self, latents: Tensor, prompt: str = "", negative_prompt: str = "") -> Reference:
        """All that depends on the reference only: the maps of HMReferenceNet, and their keys and values.

        latents: (1, C, h, w) from `encode`. The negative half of the batch sees empty latents.
        """
        unet = self.reference_unet or self.unet
        text = self.encode_prompt(prompt, negative_prompt, self.reference_text_encoder)
        latents = latents.to(unet.device, unet.dtype)
        features = HMReferenceNet(unet)(torch.cat([torch.zeros_like(latents), latents]), text)
        return Reference(latents, self.hm_reference.prepare(features))

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "", text_encoder=None) -> Tensor:
        """Text states (2, N, D), [negative, positive]; N is the tokenizer's length (77 for Stable
        Diffusion)."""
        encoder = text_encoder or self.text_encoder
        length = min(self.tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = self.tokenizer(
            [negative_prompt, prompt],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        return encoder(tokens.input_ids.to(encoder.device))[0]

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
        sparing: bool = False,
    ) -> HelloMemeOutput:
        """Draw the reference with the poses and expressions of T frames; a picture is a clip of one frame.

        Args:
            reference: from `prepare_reference`.
            condition: (1, 3, T, H, W) in [-1, 1], the pose pictures.
            drive_coeff: (1, T, 51) in [0, 1], ARKit coefficients, for control nets of that code.
            face_parts: (1, T, 3, 1024), embeddings of eyes and mouth, with `drive_coeff`; zeros if not given.
            emotion: (1, T, 548) from FanEncoder, for control nets of code "pd_fpg".
            negative_emotion: (1, 1 or T, 548), the code of an all -1 picture; needed with `emotion` under
                guidance.
            guidance_scale: negative + scale * (positive - negative); no guidance at 1 or less.
            generator: makes the result reproducible; used for the noise and by stochastic schedulers.
            noise: (1, C, T, h, w), standard normal, instead of a draw.
            callback_on_step_end: called as `f(pipeline, step, timestep, {"latents": latents})`; a dict it
                returns may hold other latents to go on with; an exception it raises ends the run.
            output_type: "pil", "pt" or "latent".
            sparing: predict the two halves of guidance one after the other, with half the memory.

        Raises:
            HelloMemeError: an expression code that the control nets need is missing.
        """
        # 1. Text, and what the two halves of the batch are told about pose and expression
        text = self.encode_prompt(prompt, negative_prompt)
        expression = {"drive_coeff": drive_coeff, "face_parts": face_parts}
        expression |= {"emotion": emotion, "negative_emotion": negative_emotion}
        denoise = self.denoiser(
            reference, text, guidance_scale, condition=condition, **expression, sparing=sparing
        )

        # 2. Noise, and denoising
        if noise is None:
            noise = self._noise(reference, condition.shape[2], generator)
        noise = noise.to(self.unet.device, self.unet.dtype)
        on_step = self._on_step(callback_on_step_end)
        latents = sample(denoise, self.scheduler, noise, num_inference_steps, generator, on_step)

        # 3. Decoding
        if output_type == "latent":
            return HelloMemeOutput(frames=None, latents=latents)
        frames = self.decode(latents)
        return HelloMemeOutput(frames=frames if output_type == "pt" else to_pictures(frames), latents=latents)

    def _noise(self, reference: Reference, frames: int, generator: torch.Generator | None) -> Tensor:
        """Drawn after the draw for the reference, from the same generator, as the released pipelines do."""
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

    def denoiser(
        self,
        reference: Reference,
        text: Tensor,
        guidance_scale: float,
        *,
        condition: Tensor,
        drive_coeff: Tensor | None = None,
        face_parts: Tensor | None = None,
        emotion: Tensor | None = None,
        negative_emotion: Tensor | None = None,
        unet=None,
        sparing: bool = False,
    ) -> Denoise:
        """What the sampler asks for T frames: latents (1, C, T, h, w) and a timestep -> the guided
        prediction.

        text: both halves, from `encode_prompt`. unet: the one that draws, if it is not `self.unet` itself.
        The other arguments are those of a call.
        """
        unet = unet or self.unet
        dtype = unet.dtype
        use_guidance = guidance_scale > 1
        expression = (drive_coeff, face_parts, emotion, negative_emotion)
        parts = _parts(use_guidance, sparing)
        control = self._control_maps(condition.to(unet.device), *expression, use_guidance, parts)
        net = HMDenoisingNet(unet, self.hm_reference)
        both = slice(None) if use_guidance else slice(1, None)
        prepared, text = Reference(reference.latents, reference.part(both)), text[both]

        def denoise(latents: Tensor, timestep: Tensor) -> Tensor:
            return torch.cat(
                [
                    net(
                        latents[rows].to(dtype),
                        timestep,
                        text[rows],
                        reference=prepared.part(rows),
                        control=_rows(control, rows),
                    )
                    for rows in parts
                ]
            )

        return guided(denoise, guidance_scale)

    def motion_unet(self):
        """The UNet that draws, with the motion modules in it; `motion_adapter` must be there."""
        return with_motion(self.unet, self.motion_adapter)

    def _control_maps(
        self,
        condition,
        drive_coeff,
        face_parts,
        emotion,
        negative_emotion,
        use_guidance,
        parts=(slice(None),),
    ) -> dict[str, Tensor]:
        """Key -> (2 or 1, C, T, h, w): the sum of the maps of all control nets whose code is given, made for
        the `parts` of the batch one after the other."""
        given = {"drive_coeff": drive_coeff, "pd_fpg": emotion}
        nets = [net for net in self.controls if given[net.expression_type] is not None]
        if not nets:
            needed = " or ".join(sorted(self.expression_types)) or "a control net"
            raise HelloMemeError(f"The pipeline was told nothing about the expression: give it {needed}.")

        def halves(positive: Tensor, negative: Tensor | float) -> Tensor:
            positive = positive.to(condition.device)
            if not use_guidance:
                return positive
            if not isinstance(negative, Tensor):
                negative = torch.tensor(negative)
            return torch.cat([negative.to(positive).expand_as(positive), positive])

        total: dict[str, Tensor] = {}
        poses = halves(condition, BLACK)
        for net in nets:
            if net.expression_type == "pd_fpg":
                if use_guidance and negative_emotion is None:
                    raise HelloMemeError(
                        "Guidance over an emotion code needs negative_emotion: give a black one's."
                    )
                told = [poses, halves(emotion, negative_emotion)]
            else:
                told = [
                    poses,
                    halves(drive_coeff, 0.0),
                    *([] if face_parts is None else [halves(face_parts, 0.0)]),
                ]
            maps = [net(*(tensor[rows] for tensor in told)) for rows in parts]
            for key in list(maps[0]):
                value = torch.cat([part.pop(key) for part in maps])
                total[key] = total[key] + value if key in total else value
        return total

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (1, C, T, h, w) -> pictures (1, 3, T, H, W) in [0, 1], frame by frame to spare
        memory."""
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)
        frames = [self.vae.decode(latents[:, :, t]).sample for t in range(latents.shape[2])]
        return (torch.stack(frames, dim=2).float() / 2 + 0.5).clamp(0, 1)


def _parts(use_guidance: bool, sparing: bool) -> list[slice]:
    """The rows of the batch that are predicted together: all, or the halves of guidance each alone."""
    return [slice(0, 1), slice(1, 2)] if use_guidance and sparing else [slice(None)]


def _rows(maps: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {key: tensor[rows] for key, tensor in maps.items()}
