"""The motion networks of releases v3 to v5b: attention across frames, after the reference at each place.

They differ from AnimateDiff's (`motion_module`) in what they see beside the frames of a window: the feature
maps of its first and its last frame, made from finished latents of those. Shapes: `B` batch, `T` frames,
`C h w` a map, `D` width of the time embedding.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn

from .attention import Attention
from .config import TimeWidthFromWeights

MAX_FRAMES = 152  # of a window, by v3's and v4's table of positions
MAX_FRAMES_V5 = 30


class SKMotionModule(nn.Module):
    """Releases v3 and v4: every point attends to itself in all frames of the window and in both pads."""

    def __init__(self, in_channels: int, num_attention_heads: int = 8, blocks_time_embed_dim: int = 1280):
        super().__init__()
        self.pos_embed_t = SinusoidalPositionalEmbedding(in_channels, MAX_FRAMES + 2)
        self.time_emb_proj = nn.Linear(blocks_time_embed_dim, in_channels)
        self.temp_attn = Attention(in_channels, num_attention_heads)
        self.norm = nn.LayerNorm(in_channels)
        self.ff = FeedForward(in_channels, mult=2, activation_fn="geglu")
        self.proj = nn.Conv2d(in_channels, in_channels, 3, padding=1)

    def forward(self, hidden: Tensor, temb: Tensor, frames: int, pads: Tensor) -> Tensor:
        """Maps (B*T, C, h, w), T = `frames`, time embedding (B*T, D), pads (B, C, 2, h, w) ->
        (B*T, C, h, w)."""
        x = _between(pads, hidden, frames)  # (B, T + 2, C, h, w)
        time = self.time_emb_proj(temb[::frames])  # the first frame's
        x = (x + time[:, None, :, None, None]).permute(0, 3, 4, 1, 2)  # (B, h, w, T + 2, C)
        size = x.shape[:3]
        x = self.norm(self.pos_embed_t(x.flatten(0, 2)))
        x = self.temp_attn(x[:, 1:-1], *self.temp_attn.keys_values(x))  # the pads are not queried
        x = self.ff(x).unflatten(0, size)
        return hidden + self.proj(x.permute(0, 3, 4, 1, 2).flatten(0, 1))


class SKMotionModuleV5(nn.Module):
    """Release v5: two temporal transformers, the first of which sees the pads and is left out without them.

    As in the release, the maps are added to the first one's output, which contains them already.
    """

    def __init__(self, in_channels: int, num_attention_heads: int = 8):
        super().__init__()

        def transformer() -> AnimateDiffTransformer3D:
            return AnimateDiffTransformer3D(
                num_attention_heads,
                in_channels // num_attention_heads,
                in_channels,
                positional_embeddings="sinusoidal",
                num_positional_embeddings=MAX_FRAMES_V5 + 2,
            )

        self.attn_pad = transformer()
        self.attn1 = transformer()

    def forward(self, hidden: Tensor, temb: Tensor | None, frames: int, pads: Tensor | None = None) -> Tensor:
        """As in `SKMotionModule`; the time embedding has no effect."""
        if pads is not None:
            x = self.attn_pad(_between(pads, hidden, frames).flatten(0, 1), num_frames=frames + 2)
            hidden = hidden + x.unflatten(0, (-1, frames + 2))[:, 1:-1].flatten(0, 1)
        return self.attn1(hidden, num_frames=frames)


def _between(pads: Tensor, hidden: Tensor, frames: int) -> Tensor:
    """Maps (B*T, C, h, w) between the two pads (B, C, 2, h, w) -> (B, T + 2, C, h, w)."""
    pads = pads.transpose(1, 2).to(hidden)
    return torch.cat([pads[:, :1], hidden.unflatten(0, (-1, frames)), pads[:, 1:]], dim=1)


class KnittedMotion(ModelMixin):
    """Motion modules at the places `down_0..3` and `up_0..3`, under the names of the released files."""

    def __init__(
        self, make: Callable[[int], nn.Module], down_widths: Sequence[int], up_widths: Sequence[int]
    ):
        """make: width -> the module of a place."""
        super().__init__()
        self.motion_down = nn.ModuleList(map(make, down_widths))
        self.motion_up = nn.ModuleList(map(make, up_widths))

    def fits(self, unet_widths: Sequence[int]) -> bool:
        """Whether a UNet with blocks of these widths has maps of the right width at all places."""
        down, up = list(self.config.block_down_channels), list(self.config.block_up_channels)
        return down == list(unet_widths) and up == [unet_widths[-1], *unet_widths[:0:-1]]

    def modules_at(
        self, pads: Mapping[str, Tensor] | None
    ) -> dict[str, Callable[[Tensor, Tensor, int], Tensor]]:
        """Place -> its motion module, as `adapted_unet_forward` takes it.

        pads: place -> (B, C, 2, h, w), the feature maps of the window's first and last frame; None for none,
        which v3 and v4 do not allow.
        """
        sides = {"down": self.motion_down, "up": self.motion_up}
        at = {f"{side}_{i}": module for side, modules in sides.items() for i, module in enumerate(modules)}
        if pads is None:
            return at
        return {place: functools.partial(module, pads=pads[place]) for place, module in at.items()}


class HM3MotionAdapter(TimeWidthFromWeights, KnittedMotion, ConfigMixin):
    """The knitted motion modules of releases v3 and v4, which have AnimateDiff's modules too.

    time_width: of the UNet's time embedding. use_3d has no effect.
    """

    @register_to_config
    def __init__(
        self,
        block_down_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        block_up_channels: tuple[int, ...] = (1280, 1280, 1280, 640),
        num_attention_heads: int = 8,
        use_3d: bool = True,
        time_width: int = 1280,
    ):
        def module(width: int) -> SKMotionModule:
            return SKMotionModule(width, num_attention_heads, time_width)

        super().__init__(module, block_down_channels, block_up_channels)


class HM5MotionAdapter(KnittedMotion, ConfigMixin):
    """The motion modules of releases v5 and v5b."""

    @register_to_config
    def __init__(
        self,
        block_down_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        block_up_channels: tuple[int, ...] = (1280, 1280, 1280, 640),
        num_attention_heads: int = 8,
    ):
        def module(width: int) -> SKMotionModuleV5:
            return SKMotionModuleV5(width, num_attention_heads)

        super().__init__(module, block_down_channels, block_up_channels)
