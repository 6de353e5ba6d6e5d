"""Figure 1: HMReferenceNet and HMDenoisingNet, over a stock UNet that stays as it is.

The places of the UNet are numbered `down_0..3`, `mid`, `up_0..3`. A place is the output of a down block or of
the mid block, and the input of an up block. Every release of the method fills that one grid in its own way.
Shapes: `B` batch, `T` frames, `C h w` a map, `N D` text tokens.
"""

import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from ..errors import HelloMemeError
from .adapters import HMReferenceAdapter
from .attention import KeysValues

CONTROL_KEYS = {"down": ("down_{}", "down2_{}"), "up": ("up_v2_{}", "up2_v2_{}")}  # added in this order


def walk(unet, sample, timestep, text, adapter=None, reference=None, control=None, stop_at_features=False):
    """One pass over the grid of places, with the UNet's own blocks.

    At each place, in this order: keep the feature map, add the control maps, knit in the reference. On the
    down side the skip connection sees the control maps, but not the reference. At `mid` the feature map is
    kept last.

    unet: a stock UNet2DConditionModel, or a UNetMotionModel, whose blocks hold motion modules that look
    across frames.
    sample: (B, C, T, h, w). timestep: number or tensor, (), (B,) or (B, T). text: (B, N, D).
    adapter: HMReferenceAdapter; reference: what its `prepare` returned. control: control key ->
    (B, C, T, h, w).
    Returns the prediction (B, C, T, h, w), or None if stopped at the last feature map, and place ->
    (B*T, C, h, w).
    """
    batch, _, frames = sample.shape[:3]
    reference, control, features = reference or {}, control or {}, {}
    motion = {"num_frames": frames} if isinstance(unet, UNetMotionModel) else {}

    def add_control(side, i, x):
        for key in (name.format(i) for name in CONTROL_KEYS[side]):
            if key in control:
                x = x + control[key].transpose(1, 2).flatten(0, 1)
        return x

    def knit(place, x):
        return adapter(place, x, reference[place]) if place in reference else x

    def run(block, *states, **kwargs):
        if getattr(block, "has_cross_attention", False):
            kwargs["encoder_hidden_states"] = text
        return block(*states, **kwargs)

    temb = _time_embedding(unet, timestep, sample)
    text = text.repeat_interleave(frames, dim=0)
    x = unet.conv_in(sample.transpose(1, 2).flatten(0, 1))  # (B*T, C, h, w)

    skips = [x]
    for i, block in enumerate(unet.down_blocks):
        x, outputs = run(block, x, temb, **motion)
        features[f"down_{i}"] = x
        x = add_control("down", i, x)
        skips += (*outputs[:-1], x)  # the last output is the block's own: its skip sees the sum
        x = knit(f"down_{i}", x)

    mid_motion = motion if hasattr(unet.mid_block, "motion_modules") else {}
    x = features["mid"] = knit("mid", run(unet.mid_block, x, temb, **mid_motion))

    for i, block in enumerate(unet.up_blocks):
        features[f"up_{i}"] = x
        if stop_at_features and i + 1 == len(unet.up_blocks):
            return None, features
        x = knit(f"up_{i}", add_control("up", i, x))
        own, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        # Sides that halve unevenly come back to their own size
        size = skips[-1].shape[-2:] if skips else None
        x = run(block, x, tuple(own), temb=temb, upsample_size=size, **motion)

    x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    return x.unflatten(0, (batch, frames)).transpose(1, 2), features


def _time_embedding(unet, timestep, sample: Tensor) -> Tensor:
    """(B*T, D): the UNet's embedding of a timestep (), (B,) or (B, T), for every frame of the sample."""
    timestep = torch.as_tensor(timestep, device=sample.device)
    if timestep.dim() < 2:  # one for all frames
        timestep = timestep.expand(len(sample)).unsqueeze(1).expand(-1, sample.shape[2])
    return unet.time_embedding(unet.time_proj(timestep.flatten()).to(sample.dtype))


class HMReferenceNet(nn.Module):
    """The UNet that looks at the reference picture: timestep 0, clean latents, its feature maps are the
    result."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, encoder_hidden_states: Tensor) -> dict[str, Tensor]:
        """Latents (B, C, h, w) and text (B, N, D) -> feature maps, place -> (B, C, h, w)."""
        return walk(self.unet, latents.unsqueeze(2), 0, encoder_hidden_states, stop_at_features=True)[1]


class HMDenoisingNet(nn.Module):
    """The denoising UNet with the reference knitted in and the control maps added.

    Raises HelloMemeError where the adapter was made for a UNet of other widths.
    """

    def __init__(self, unet: UNet2DConditionModel | UNetMotionModel, reference_adapter: HMReferenceAdapter):
        super().__init__()
        ours, theirs = (list(net.config.block_out_channels) for net in (reference_adapter, unet))
        if ours != theirs:
            raise HelloMemeError(
                f"The base model's UNet has widths {theirs}, the reference adapter is made for {ours}: "
                "choose a base model derived from the one the adapter was trained on."
            )
        self.unet = unet
        self.reference_adapter = reference_adapter

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        reference: dict[str, KeysValues] | None = None,
        control: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Predicts the noise (or the velocity: what the UNet was trained for).

        sample: (B, C, T, h, w), an image has T = 1. timestep: number or tensor, (), (B,) or (B, T).
        encoder_hidden_states: text (B, N, D).
        reference: what `HMReferenceAdapter.prepare` returned for batch B, shared by all frames.
        control: the maps of the control nets in one dict, key -> (B, C, T, h, w). Returns (B, C, T, h, w).
        """
        return walk(
            self.unet, sample, timestep, encoder_hidden_states, self.reference_adapter, reference, control
        )[0]
