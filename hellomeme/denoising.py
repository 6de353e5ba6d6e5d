"""What the samplers call at every step: HMControlNet once, then HMDenoisingNet with guidance (Figure 1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import Tensor

from .control_maps import ControlMaps, Maps
from .errors import HelloMemeError
from .inputs import Conditions, Reference, frames_axis, negative_inputs
from .models.control import ControlNet
from .models.control_base import ControlNetBase
from .models.deep_features import DeepFeatures
from .models.knitted_motion import KnittedMotion
from .models.motion_module import with_motion
from .models.number_type import number_type
from .models.unet import HMDenoisingNet
from .sampling.image import Denoise, guided

ALL = slice(None)
Pads = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]  # of the first and last frame, see `pad_features`
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
        control: Callable[[], ControlMaps],
        unet: UNet2DConditionModel | UNetMotionModel | None = None,
        low_memory: bool = False,
        motion: KnittedMotion | None = None,
        pads: Pads | None = None,
        reuse: int = 1,
        last_guided: float | None = None,
    ) -> Denoise:
        """The guided prediction for T frames, as a function of latents (1, C, T, h, w) and a timestep.

        text: both halves, from `encode_prompt`. control: gives what `control_maps` makes of the frames, at
        every call. unet: the one that draws, if it is not `self.unet` itself.
        motion: takes part in it. pads: what it sees of finished frames. reuse: deep features are computed at
        every so many calls. last_guided: below this timestep there is no guidance. The other arguments are
        those of a call.
        """
        unet = unet or self.unet
        dtype = number_type(unet)
        use_guidance = guidance_scale > 1
        # The rows of the batch [negative, positive] that are predicted together
        parts = [slice(0, 1), slice(1, 2)] if use_guidance and low_memory else [ALL]
        net = HMDenoisingNet(unet, self.hm_reference)
        own = (self.unet, self.motion_adapter) if isinstance(unet, UNetMotionModel) else (unet,)
        used = ALL if use_guidance else POSITIVE
        prepared, text = Reference(reference.latents, reference.part(used)), text[used]
        deep = [DeepFeatures(reuse) if reuse > 1 else None for _ in parts]

        def predict(latents: Tensor, timestep: Tensor, rows: list[slice], deep: list) -> Tensor:
            maps = control() if any(kept is None or kept.is_due for kept in deep) else None
            self.bring(*own, self.hm_reference, motion)
            predictions = [
                net(
                    latents[part].to(dtype),
                    timestep,
                    text[part],
                    reference=prepared.part(part),
                    control=maps and maps.batch(part),
                    motion=motion and motion.modules_at(_both(pads, used, part)),
                    deep=kept,
                )
                for part, kept in zip(rows, deep, strict=True)
            ]
            return torch.cat(predictions)

        with_guidance = guided(lambda *at: predict(*at, parts, deep), guidance_scale)

        def denoise(latents: Tensor, timestep: Tensor) -> Tensor:
            if last_guided is not None and timestep < last_guided:
                return predict(latents, timestep, [POSITIVE], deep[-1:])
            return with_guidance(latents, timestep)

        return denoise

    def motion_unet(self) -> UNet2DConditionModel | UNetMotionModel:
        """The UNet that draws, with AnimateDiff's motion modules in it where there are any."""
        return self.unet if self.motion_adapter is None else with_motion(self.unet, self.motion_adapter)

    @torch.no_grad()
    def control_maps(
        self,
        conditions: Conditions,
        guidance_scale: float,
        low_memory: bool = False,
        negative: Maps | None = None,
        device: torch.device | None = None,
    ) -> ControlMaps:
        """The sum of the maps of all control nets whose expression is given.

        negative: that half, if it is known. device: where the networks compute, if the conditions are not
        there. The other arguments are those of a call.
        """
        given = [(net, conditions.first_inputs(net.expression_types)) for net in self.controls]
        given = [(net, inputs) for net, inputs in given if inputs is not None]
        if not given:
            needed = " or ".join(sorted(self.expression_types)) or "a control net"
            raise HelloMemeError(f"The pipeline was given no expression: pass {needed}.")
        self.bring(*(net for net, _ in given), self.hm_control_proj)
        total: list[Maps] = [{}, {}]  # the positive half, and the negative one where it is made, too
        for net, inputs in given:
            halves = [{name: positive for name, (positive, _) in inputs.items()}]
            if guidance_scale > 1 and negative is None:
                halves.append(negative_inputs(inputs))
            for half, maps in zip(total, self._maps_of(net, halves, low_memory, device), strict=False):
                for key, x in maps.items():
                    half[key] = half[key] + x if key in half else x
        return ControlMaps(total[0], negative if guidance_scale <= 1 else negative or total[1])

    def _maps_of(
        self,
        net: ControlNet | ControlNetBase,
        halves: list[dict[str, Tensor]],
        low_memory: bool,
        device: torch.device | None,
    ) -> Iterator[Maps]:
        """Yields the maps of one control net for each half, made in one go as frames of one clip, or one
        after the other with `low_memory`."""
        for together in [[half] for half in halves] if low_memory else [halves[::-1]]:
            inputs = {
                name: torch.cat([half[name].to(device) for half in together], frames_axis(name))
                for name in together[0]
            }
            maps = net(**inputs)
            if self.hm_control_proj is not None:
                maps = self.hm_control_proj(maps)
            counts = [half["condition"].shape[2] for half in together]
            parts = {key: x.split(counts, dim=2) for key, x in maps.items()}
            for i in reversed(range(len(together))):
                yield {key: x[i] for key, x in parts.items()}


def _both(pads: Pads | None, used: slice, part: slice) -> Mapping[str, Tensor] | None:
    """The pads as `KnittedMotion.modules_at` takes them, of the rows `part` of those that are `used`."""
    if pads is None:
        return None
    first, last = pads
    return {place: torch.stack([x, last[place]], dim=2)[used][part] for place, x in first.items()}
