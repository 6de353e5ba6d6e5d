"""The control nets of releases v4 to v5c: a small U-Net that knows no UNet, and projections to one.

Shapes: `B` batch, `T` frames, `N` tokens, `D` cross_attention_dim, `C h w` a map.
"""

from collections.abc import Callable
from typing import ClassVar

import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from .attention import BasicBlock
from .config import AdapterConfig
from .control import (
    FACE_PART_DIM,
    ArkitExpression,
    EitherExpression,
    EmotionExpression,
    by_frame,
    condition_maps,
    embed_numbers,
)
from .stk_attention import STKAttention, STKCrossAttention

SCALE_FACTOR = 8  # of the condition picture to what the U-Net sees
TOKEN_DIM = FACE_PART_DIM  # width of a number as a token, before it is projected
TOKENS = 16  # that an expression is mixed down to
FACE_PARTS, COEFFICIENTS, EMOTION_NUMBERS = 3, 51, 548
TABLES = 512, 1024  # lengths of v4's tables of positions, for sides and tokens


def _mixed(net: nn.Module, name: str, tokens: Tensor) -> Tensor:
    """Tokens (B*T, K, 1024) -> (B*T, 16, D): first across the tokens, then each by itself."""
    mixed = getattr(net, f"{name}_pre_proj")(tokens.mT).mT  # (B*T, 16, 1024)
    return getattr(net, f"{name}_proj")(mixed)


def _add_projections(net: nn.Module, name: str, count: int, dim: int) -> None:
    setattr(net, f"{name}_pre_proj", TimestepEmbedding(count, TOKENS))
    setattr(net, f"{name}_proj", TimestepEmbedding(TOKEN_DIM, dim))


class MixedArkitExpression(ArkitExpression):
    """The coefficients and the face parts, 16 tokens each, added up."""

    def add_projections(self, net: nn.Module, dim: int) -> None:
        _add_projections(net, "exp", COEFFICIENTS, dim)
        _add_projections(net, "face", FACE_PARTS, dim)

    def tokens(self, net: nn.Module, drive_coeff: Tensor, face_parts: Tensor | None = None) -> Tensor:
        """drive_coeff (B, T, 51) in [0, 1], face_parts (B, T, 3, 1024) or None for zeros -> (B*T, 16, D)."""
        if face_parts is None:
            face_parts = drive_coeff.new_zeros(*drive_coeff.shape[:2], FACE_PARTS, FACE_PART_DIM)
        numbers = embed_numbers(drive_coeff, self.scale, TOKEN_DIM, net.dtype)
        return _mixed(net, "exp", numbers) + _mixed(net, "face", face_parts.to(net.dtype).flatten(0, 1))


class MixedEmotionExpression(EmotionExpression):
    """The numbers of the emotion code as 16 tokens."""

    def add_projections(self, net: nn.Module, dim: int) -> None:
        _add_projections(net, "emo", EMOTION_NUMBERS, dim)

    def tokens(self, net: nn.Module, emo_embedding: Tensor) -> Tensor:
        """emo_embedding (B, T, 548) -> (B*T, 16, D)."""
        return _mixed(net, "emo", embed_numbers(emo_embedding, self.scale, TOKEN_DIM, net.dtype))


def up_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """What comes before a map is doubled in size."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.InstanceNorm2d(channels_out), nn.SiLU()
    )


class SmallUnet(nn.Module):
    """Halves the map for each width, with an attention to the tokens each time, and comes back up."""

    def __init__(self, channels: int, widths: tuple[int, ...], dim: int, tables: tuple[int, int] | None):
        super().__init__()
        ins = [channels, *widths[:-1]]
        outs = [widths[0], *widths[:-1]]
        self.down_blocks = nn.ModuleList(map(BasicBlock, ins, widths))
        self.attn_blocks = nn.ModuleList(STKCrossAttention(w, w, dim, tables=tables) for w in widths)
        self.up_blocks = nn.ModuleList(map(up_block, reversed(widths), reversed(outs)))

    def forward(self, x: Tensor, tokens: Tensor) -> list[Tensor]:
        """Map (B, C, h, w) and tokens (B, N, D) -> maps from coarse to fine, the last one (.., h, w)."""
        skips = []
        for block, attention in zip(self.down_blocks, self.attn_blocks, strict=True):
            x = attention(block(x), tokens)
            skips.append(x)
        features = [skips.pop()]
        for block in self.up_blocks:
            x = F.interpolate(block(features[-1]), scale_factor=2.0, mode="bilinear")
            features.append(x + skips.pop() if skips else x)
        return features


class ControlNetBase(ModelMixin, AdapterConfig):
    """Pose picture and either expression -> the maps `feat_0` (coarse) to `feat_3` of the small U-Net.

    expression_types: as in `ControlNet`.
    """

    expression_types: tuple[str, ...]

    expression: ClassVar[EitherExpression] = EitherExpression(
        MixedArkitExpression(), MixedEmotionExpression()
    )
    tables: ClassVar[tuple[int, int] | None] = None

    def __init__(self, in_channels: int, dim: int, block_out_channels: tuple[int, ...]):
        super().__init__()
        self.expression_types = self.expression.types
        self.expression.add_projections(self, dim)
        self.ctrl_attn = SmallUnet(in_channels, tuple(block_out_channels), dim, self.tables)

    def forward(self, condition: Tensor, **expression: Tensor | None) -> dict[str, Tensor]:
        """condition: (B, 3, T, H, W) in [-1, 1]. The other arguments are those of `EitherExpression.tokens`.

        The result is what a `ControlProj` takes, key -> (B, C, T, h, w).
        """
        x = condition_maps(condition, SCALE_FACTOR, self.dtype)
        features = self.ctrl_attn(x, self.expression.tokens(self, **expression))
        return by_frame({f"feat_{i}": x for i, x in enumerate(features)}, condition.shape[2])


class HMControlNetBase(ControlNetBase):
    """Release v4. block_out_channels: in no released config.json, the defaults are the released sizes."""

    tables = TABLES

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        cross_attention_dim: int = 2048,
        block_out_channels: tuple[int, ...] = (320, 640, 1280),
    ):
        super().__init__(in_channels, cross_attention_dim, block_out_channels)


class HM5ControlNetBase(ControlNetBase):
    """Releases v5 to v5c: the same with computed positions."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        cross_attention_dim: int = 2048,
        block_out_channels: tuple[int, ...] = (320, 640, 1280),
    ):
        super().__init__(in_channels, cross_attention_dim, block_out_channels)


# Key of a control map -> the name of its projection, the map that it takes, which width of the base that is,
# and which of the UNet's widths comes out. The names tell the released widths.
PROJECTIONS = {
    "down3_0": ("map320_to_320", "feat_2", 0, 0),
    "down3_1": ("map640_to_640", "feat_1", 1, 1),
    "down3_2": ("map1280_to_1280_2", "feat_0", 2, 2),
    "down3_3": ("map1280_to_1280_3", "feat_0", 2, 3),
    "up3_0": ("map1280_to_1280", "feat_0", 2, 3),
    "up3_1": ("map640_to_1280", "feat_1", 1, 3),
    "up3_2": ("map320_to_1280", "feat_2", 0, 2),
    "up3_3": ("map320_to_640", "feat_3", 0, 1),
}


class ControlProj(ModelMixin, AdapterConfig):
    """The maps of a `ControlNetBase` to control maps for the places of a UNet.

    base_channels: the widths of the base, unet_channels those of the UNet's blocks.
    """

    def _add(self, make: Callable[[int, int], nn.Module]) -> None:
        for name, _, base, unet in PROJECTIONS.values():
            width = self.config.base_channels[base], self.config.unet_channels[unet]
            setattr(self, name, make(*width))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Key -> (B, C, T, h, w) -> control maps, key -> (B, C, T, h, w), for `HMDenoisingNet`."""
        frames = features["feat_0"].shape[2]
        flat = {key: x.transpose(1, 2).flatten(0, 1) for key, x in features.items()}
        maps = {key: getattr(self, name)(flat[feat]) for key, (name, feat, *_) in PROJECTIONS.items()}
        return by_frame(maps, frames)


class HM4SD15ControlProj(ControlProj):
    """Release v4: one convolution each. No argument is in the released config.json."""

    @register_to_config
    def __init__(
        self,
        base_channels: tuple[int, ...] = (320, 640, 1280),
        unet_channels: tuple[int, ...] = (320, 640, 1280, 1280),
    ):
        super().__init__()
        self._add(lambda a, b: nn.Conv2d(a, b, 3, padding=1, bias=False))


class KnittedProjection(nn.Module):
    """A convolution, and a knitting attention over its output that is added to it."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.proj = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.attn = STKAttention(channels_out, channels_out // 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h, w)."""
        x = self.proj(x)
        return x + self.attn(x)


class HM5SD15ControlProj(ControlProj):
    """Releases v5 to v5c. No argument is in the released config.json."""

    @register_to_config
    def __init__(
        self,
        base_channels: tuple[int, ...] = (320, 640, 1280),
        unet_channels: tuple[int, ...] = (320, 640, 1280, 1280),
    ):
        super().__init__()
        self._add(KnittedProjection)
