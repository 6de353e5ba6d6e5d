"""What the samplers call at every step: HMControlNet once, then HMDenoisingNet with guidance (Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import Tensor

from .errors import HelloMemeError
from .inputs import Conditions, Reference, with_negative
from .models.control import ControlNet
from .models.control_base import ControlNetBase
from .models.deep_features import DeepFeatures
from .models.knitted_motion import KnittedMotion
from .models.motion_module import with_motion
from .models.number_type import number_type
from .models.unet import HMDenoisingNet
from .sampling.image import Denoise, guided

ALL = slice(None)
POSITIVE = slice(-1, None)  # of the batch [negative, positive], or of the positive alone


class Denoising:
    """The part of `HelloMemePipeline` that predicts; its networks are those of the pipeline."""

    @property
    def controls(self) -> list[ControlNet | ControlNetBase]:
        """The control nets that are loaded."""
        return [net for net in (self.hm_control, self.hm_control2, self.hm_control_up) if net is not None]

    @property
    def expression_types(self) -> set[str]:
        """The expressions its control nets take: "drive_coeff", "pd_fpg" or both."""
        return {kind for net in self.controls for kind in net.expression_types}

    def denoiser(
        self,
        reference: Reference,
        text: Tensor,
        guidance_scale: float,
        conditions: Conditions,
        unet: UNet2DConditionModel | UNetMotionModel | None = None,
        low_memory: bool = False,
        motion: KnittedMotion | None = None,
        pads: Mapping[str, Tensor] | None = None,
        reuse: int = 1,
        last_guided: float | None = None,
    ) -> Denoise:
        """The guided prediction for T frames, as a function of latents (1, C, T, h, w) and a timestep.

        text: both halves, from `encode_prompt`. unet: the one that draws, if it is not `self.unet` itself.
        motion: takes part in it. pads: what it sees of the finished first and last frame, see `pad_features`,
        place -> (2, C, 2, h, w). reuse: deep features are computed at every so many calls. last_guided: below
        this timestep there is no guidance. The other arguments are those of a call.
        """
        unet = unet or self.unet
        dtype, device = number_type(unet), reference.latents.device
        use_guidance = guidance_scale > 1
        # The rows of the batch [negative, positive] that are predicted together
        parts = [slice(0, 1), slice(1, 2)] if use_guidance and low_memory else [ALL]
        control = self._control_maps(conditions, use_guidance, parts, device)
        net = HMDenoisingNet(unet, self.hm_reference)
        used = ALL if use_guidance else POSITIVE
        prepared, text = Reference(reference.latents, reference.part(used)), text[used]
        pads = pads and {place: x[used] for place, x in pads.items()}
        deep = [DeepFeatures(reuse) if reuse > 1 else None for _ in parts]

        def predict(latents: Tensor, timestep: Tensor, rows: slice, kept: DeepFeatures | None) -> Tensor:
            return net(
                latents.to(dtype),
                timestep,
                text[rows],
                reference=prepared.part(rows),
                control={key: control_map[rows] for key, control_map in control.items()},
                motion=motion and motion.modules_at(pads and {at: x[rows] for at, x in pads.items()}),
                deep=kept,
            )

        def by_parts(latents: Tensor, timestep: Tensor) -> Tensor:
            done = zip(parts, deep, strict=True)
            return torch.cat([predict(latents[rows], timestep, rows, kept) for rows, kept in done])

        with_guidance = guided(by_parts, guidance_scale)

        def denoise(latents: Tensor, timestep: Tensor) -> Tensor:
            if last_guided is not None and timestep < last_guided:
                return predict(latents, timestep, POSITIVE, deep[-1])
            return with_guidance(latents, timestep)

        return denoise

    def motion_unet(self) -> UNet2DConditionModel | UNetMotionModel:
        """The UNet that draws, with AnimateDiff's motion modules in it where there are any."""
        return self.unet if self.motion_adapter is None else with_motion(self.unet, self.motion_adapter)

    def _control_maps(
        self, conditions: Conditions, use_guidance: bool, parts: list[slice], device: torch.device
    ) -> dict[str, Tensor]:
        """Key -> (2 or 1, C, T, h, w): the sum of the maps of all control nets whose expression is given,
        made for the `parts` of the batch one after the other."""
        total: dict[str, Tensor] = {}
        given = [(net, conditions.first_inputs(net.expression_types)) for net in self.controls]
        given = [(net, inputs) for net, inputs in given if inputs is not None]
        if not given:
            needed = " or ".join(sorted(self.expression_types)) or "a control net"
            raise HelloMemeError(f"The pipeline was given no expression: pass {needed}.")
        for net, inputs in given:
            batch = {
                name: with_negative(x.to(device), negative, use_guidance)
                for name, (x, negative) in inputs.items()
            }
            maps = [net(**{name: x[rows] for name, x in batch.items()}) for rows in parts]
            if self.hm_control_proj is not None:
                maps = [self.hm_control_proj(part) for part in maps]
            for key in list(maps[0]):
                value = torch.cat([part.pop(key) for part in maps])
                total[key] = total[key] + value if key in total else value
        return total
