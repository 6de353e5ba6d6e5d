"""Figure 1: HMReferenceNet and HMDenoisingNet, over a stock UNet that stays as it is.

The places where features are read, control maps added and the reference joined are numbered `down_0..3`,
`mid`, `up_0..3`: the output of a down block or of the mid block, and the input of an up block.
Shapes: `B` batch, `T` frames, `C h w` a map, `N D` text tokens.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from torch import Tensor, nn

from ..errors import HelloMemeError
from .adapters import ReferenceAdapter
from .attention import KeysValues
from .control import CONTROL_KEYS
from .deep_features import DeepFeatures, run_layer

# The motion module of a place: feature map (B*T, C, h, w), time embedding (B*T, D) and T -> the new map
MotionModule = Callable[[Tensor, Tensor, int], Tensor]


class UNetOutput(NamedTuple):
    prediction: Tensor | None  # (B, C, T, h, w); None if only features were asked for
    features: dict[str, Tensor]  # place -> (B*T, C, h, w)


def adapted_unet_forward(
    unet: UNet2DConditionModel | UNetMotionModel,
    sample: Tensor,
    timestep: Tensor | float | int,
    text: Tensor,
    adapter: ReferenceAdapter | None = None,
    reference: dict[str, KeysValues] | None = None,
    control: dict[str, Tensor] | None = None,
    motion: Mapping[str, MotionModule] | None = None,
    features_only: bool = False,
    deep: DeepFeatures | None = None,
) -> UNetOutput:
    """The forward of a stock UNet, block by block, with the adapters of the method inserted (Figure 1).

    At each place, in this order: the feature map is read, the control maps are added, the reference is
    joined, the motion module looks across frames. On the down side the skip connection gets the control maps,
    but nothing that follows. At `mid` the feature map is read last.

    unet: the blocks of a UNetMotionModel hold motion modules, which look across frames.
    sample: (B, C, T, h, w). timestep: number or tensor, (), (B,) or (B, T). text: (B, N, D).
    reference: what `adapter.prepare` returned. control: key -> (B, C, T, h, w), see `CONTROL_KEYS`.
    motion: place (not `mid`) -> its motion module, in releases from v3 on.
    features_only: stop at the last feature map. deep: what calls share, where deep features are reused.
    """
    frames = sample.shape[2]
    reference, control, motion, features = reference or {}, control or {}, motion or {}, {}

    def insert(place: str, x: Tensor) -> Tensor:
        x = adapter(place, x, reference[place]) if place in reference else x
        return motion[place](x, temb, frames) if place in motion else x

    # 1. Every frame is a picture of its own
    temb = _time_embedding(unet, timestep, sample)  # (B*T, D)
    text = text.repeat_interleave(frames, dim=0)  # (B*T, N, D)
    x = unet.conv_in(sample.transpose(1, 2).flatten(0, 1))  # (B*T, C, h, w)
    if deep is not None and (kept := deep.reused(len(x))) is not None:
        x = run_layer(unet.up_blocks[-1], -1, text, frames, kept, x, temb)
        return UNetOutput(_last_convolution(unet, x, frames), {})

    # 2. Down
    skips = [x]
    for i, block in enumerate(unet.down_blocks):
        x, outputs = _run(block, text, frames, x, temb)
        features[f"down_{i}"] = x
        x = _add_control(x, control, "down", i)
        skips += (*outputs[:-1], x)  # the last of a block's skips is its output, and gets the control maps
        x = insert(f"down_{i}", x)

    # 3. Mid
    features["mid"] = x = insert("mid", _run(unet.mid_block, text, frames, x, temb))

    # 4. Up
    for i, block in enumerate(unet.up_blocks):
        features[f"up_{i}"] = x
        if features_only and i + 1 == len(unet.up_blocks):
            return UNetOutput(None, features)
        x = insert(f"up_{i}", _add_control(x, control, "up", i))
        own, skips = skips[-len(block.resnets) :], skips[: -len(block.resnets)]
        x = _run_up(block, text, frames, x, temb, own, skips, deep)
    return UNetOutput(_last_convolution(unet, x, frames), features)


def _last_convolution(unet, x: Tensor, frames: int) -> Tensor:
    """(B*T, C, h, w), T = `frames` -> the prediction (B, C, T, h, w)."""
    x = unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))
    return x.unflatten(0, (-1, frames)).transpose(1, 2)


def _run(block: nn.Module, text: Tensor, frames: int, *states, **kwargs):
    """One of the UNet's own blocks, with what else it takes."""
    if getattr(block, "has_cross_attention", False):
        kwargs["encoder_hidden_states"] = text
    if hasattr(block, "motion_modules"):
        kwargs["num_frames"] = frames
    return block(*states, **kwargs)


def _run_up(
    block: nn.Module,
    text: Tensor,
    frames: int,
    x: Tensor,
    temb: Tensor,
    own: list[Tensor],
    left: list[Tensor],
    deep: DeepFeatures | None,
) -> Tensor:
    """An up block with its own skip connections; `left` are those of the up blocks after it."""
    if deep is not None and not left:
        return deep.run_last_block(block, text, frames, x, own, temb)
    size = left[-1].shape[-2:] if left else None  # odd sides must come back to their own size
    return _run(block, text, frames, x, tuple(own), temb=temb, upsample_size=size)


def _add_control(x: Tensor, control: dict[str, Tensor], side: str, i: int) -> Tensor:
    """The map (B*T, C, h, w) plus the control maps of its place."""
    for key in CONTROL_KEYS[side].values():
        if (control_map := control.get(key.format(i))) is not None:
            x = x + control_map.transpose(1, 2).flatten(0, 1)
    return x


def _time_embedding(unet, timestep, sample: Tensor) -> Tensor:
    """(B*T, D): the UNet's embedding of a timestep (), (B,) or (B, T), for every frame of the sample."""
    if not isinstance(timestep, Tensor):
        timestep = torch.full((), timestep, device=sample.device)  # no copy, which no CUDA graph can hold
    timestep = timestep.to(sample.device)
    if timestep.dim() < 2:  # one for all frames
        timestep = timestep.expand(len(sample)).unsqueeze(1).expand(-1, sample.shape[2])
    return unet.time_embedding(unet.time_proj(timestep.flatten()).to(sample.dtype))


class HMReferenceNet(nn.Module):
    """The UNet on the reference picture, clean latents at timestep 0, to its feature maps."""

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        self.unet = unet

    def forward(
        self, latents: Tensor, encoder_hidden_states: Tensor, control: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Latents (B, C, h, w) and text (B, N, D) -> feature maps, place -> (B, C, h, w).

        control: maps of the reference's own pose and expression, key -> (B, C, 1, h, w), in releases with
            `reference_control`.
        """
        sample = latents.unsqueeze(2)  # (B, C, 1, h, w)
        return adapted_unet_forward(
            self.unet, sample, 0, encoder_hidden_states, control=control, features_only=True
        ).features


class HMDenoisingNet(nn.Module):
    """The denoising UNet with the reference joined in and the control maps added.

    Raises HelloMemeError where the adapter was made for a UNet of other widths.
    """

    def __init__(self, unet: UNet2DConditionModel | UNetMotionModel, reference_adapter: ReferenceAdapter):
        super().__init__()
        theirs = list(unet.config.block_out_channels)
        if not reference_adapter.fits(theirs):
            raise HelloMemeError(
                f"The base model's UNet has widths {theirs}, "
                f"the reference adapter is made for {reference_adapter.unet_widths}: "
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
        motion: Mapping[str, MotionModule] | None = None,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """Predicts the noise, or the velocity if the UNet was trained for that: (B, C, T, h, w).

        sample: (B, C, T, h, w), noisy latents; a picture has T = 1. timestep: number or tensor, (), (B,) or
        (B, T). encoder_hidden_states: text (B, N, D).
        reference: what `ReferenceAdapter.prepare` returned for batch B, shared by all frames.
        control: the maps of the control nets in one dict, key -> (B, C, T, h, w).
        motion: place -> its motion module, in releases from v3 on.
        deep: what the calls of this run share, where deep feature maps are reused.
        """
        adapter = self.reference_adapter
        return adapted_unet_forward(
            self.unet, sample, timestep, encoder_hidden_states, adapter, reference, control, motion, deep=deep
        ).prediction
