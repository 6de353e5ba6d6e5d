"""HMControlNet and its relatives (Figure 1): the control maps of a head pose and an expression.

The pose is a picture, the expression becomes tokens. The four classes of releases v1 and v2 combine one of
two expressions with one of two sides of the UNet (`CONTROL_KEYS`); that of v3 takes either expression and
serves both sides; those of v4 and later are in `control_base`. Shapes: `B` batch, `T` frames, `K` numbers of
an expression, `D` cross_attention_dim.
"""

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from torch import Tensor, nn

from .attention import SKCrossAttention
from .config import AdapterConfig
from .number_type import number_type

FACE_PART_DIM = 1024  # width of the CLIP image embedding of a face part
HEADS = 8
# Side of the UNet -> expression type -> key of the map for place i. Maps of one place add up in this order.
# The nets from release v3 on take either expression, and their maps have one name.
CONTROL_KEYS = {
    "down": {"drive_coeff": "down_{}", "pd_fpg": "down2_{}", "either": "down3_{}"},
    "up": {"drive_coeff": "up_v2_{}", "pd_fpg": "up2_v2_{}", "either": "up3_{}"},
}


def embed_numbers(numbers: Tensor, scale: float, dim: int, dtype: torch.dtype) -> Tensor:
    """(B, T, K) -> a sinusoidal token for each number times `scale`, as timesteps have, (B*T, K, dim)."""
    tokens = get_timestep_embedding(numbers.float().flatten() * scale, dim, True, 0)
    return tokens.to(dtype).view(-1, numbers.shape[-1], dim)


def condition_maps(condition: Tensor, factor: int, dtype: torch.dtype) -> Tensor:
    """Condition pictures (B, 3, T, H, W) -> (B*T, 3, H / factor, W / factor)."""
    x = condition.to(dtype).transpose(1, 2).flatten(0, 1)
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=1 / factor, mode="bilinear", align_corners=False)


def by_frame(maps: dict[str, Tensor], frames: int) -> dict[str, Tensor]:
    """Key -> (B*T, C, h, w), T = `frames` -> key -> (B, C, T, h, w)."""
    return {key: x.unflatten(0, (-1, frames)).transpose(1, 2) for key, x in maps.items()}


class ArkitExpression:
    """51 ARKit coefficients, and the CLIP embeddings of eyes and mouth."""

    types = ("drive_coeff",)
    key = "drive_coeff"  # in `CONTROL_KEYS`
    scale = 500.0

    def add_projections(self, net: nn.Module, dim: int) -> None:
        net.exp_proj = TimestepEmbedding(dim, dim)
        net.face_proj = TimestepEmbedding(FACE_PART_DIM, dim)

    def tokens(self, net: nn.Module, drive_coeff: Tensor, face_parts: Tensor | None = None) -> Tensor:
        """drive_coeff (B, T, 51) in [0, 1], face_parts (B, T, 3, 1024) or None for zeros -> (B*T, 54, D)."""
        if face_parts is None:
            face_parts = drive_coeff.new_zeros(*drive_coeff.shape[:2], 3, FACE_PART_DIM)
        faces = net.face_proj(face_parts.to(number_type(net)).flatten(0, 1))  # (B*T, 3, D)
        numbers = embed_numbers(drive_coeff, self.scale, faces.shape[-1], faces.dtype)  # (B*T, 51, D)
        return net.exp_proj(torch.cat([faces, numbers], dim=1))


class EmotionExpression:
    """The 548 numbers of `FanEncoder`."""

    types = ("pd_fpg",)
    key = "pd_fpg"
    scale = 20.0

    def add_projections(self, net: nn.Module, dim: int) -> None:
        net.emo_proj = TimestepEmbedding(dim, dim)

    def tokens(self, net: nn.Module, emo_embedding: Tensor) -> Tensor:
        """emo_embedding (B, T, K) -> (B*T, K, D)."""
        dim = net.config.cross_attention_dim
        return net.emo_proj(embed_numbers(emo_embedding, self.scale, dim, number_type(net)))


class EitherExpression:
    """One of the two, each by projections of its own."""

    types = ("drive_coeff", "pd_fpg")
    key = "either"

    def __init__(self, arkit: ArkitExpression, emotion: EmotionExpression):
        self.arkit, self.emotion = arkit, emotion

    def add_projections(self, net: nn.Module, dim: int) -> None:
        self.arkit.add_projections(net, dim)
        self.emotion.add_projections(net, dim)

    def tokens(
        self,
        net: nn.Module,
        drive_coeff: Tensor | None = None,
        face_parts: Tensor | None = None,
        emo_embedding: Tensor | None = None,
    ) -> Tensor:
        """ARKit coefficients, if they are given, or an emotion code, as in the two classes above."""
        if drive_coeff is not None:
            return self.arkit.tokens(net, drive_coeff, face_parts)
        return self.emotion.tokens(net, emo_embedding)


class ControlNet(ModelMixin, AdapterConfig):
    """A chain of `SKCrossAttention` (Figure 2): each output is a control map and the next block's input.

    A subclass says which expression is encoded, and which side of the UNet its maps are for: "down", the
    outputs of the down blocks from fine to coarse, or "up", the inputs of the up blocks, which the chain
    reaches in reverse.

    expression_types: what it is to take, "drive_coeff" (ARKit coefficients), "pd_fpg" (the emotion code of
    `FanEncoder`), or the first of both that is given. A net that takes either can be limited to one.
    """

    expression_types: tuple[str, ...]

    expression: ClassVar[ArkitExpression | EmotionExpression | EitherExpression]
    side: ClassVar[str]
    max_tokens: ClassVar[int] = 1024  # length of the table of token positions in the released files
    attention_class: ClassVar[type[SKCrossAttention]] = SKCrossAttention

    def __init__(self, input_channels: int, dim: int, block_out_channels: tuple[int, ...]):
        super().__init__()
        self.expression_types = self.expression.types
        widths = list(block_out_channels)
        self.conv_in = nn.Conv2d(input_channels, widths[0], 3, padding=1, bias=False)
        self.expression.add_projections(self, dim)
        self.blocks_down = nn.ModuleList(
            self.attention_class(a, b, HEADS, dim, self.max_tokens) for a, b in pairwise(widths)
        )

    def forward(
        self, condition: Tensor, *expression: Tensor | None, **named: Tensor | None
    ) -> dict[str, Tensor]:
        """Pose picture and expression -> control maps, key -> (B, C, T, h, w), for `HMDenoisingNet`.

        condition: (B, 3, T, H, W) in [-1, 1]. The other arguments are those of the expression's `tokens`:
        drive_coeff and face_parts, or emo_embedding.
        """
        tokens = self.expression.tokens(self, *expression, **named)
        x = self.conv_in(condition_maps(condition, self.config.scale_factor, tokens.dtype))
        chain = []
        for block in self.blocks_down:
            x = block(x, tokens)  # (B*T, C, h, w)
            chain.append(x)
        return by_frame(self._maps(chain), condition.shape[2])

    def _maps(self, chain: list[Tensor]) -> dict[str, Tensor]:
        """The outputs of the chain (B*T, C, h, w) by their keys."""
        key, places = CONTROL_KEYS[self.side][self.expression.key], range(len(chain))
        return {
            key.format(i): x
            for i, x in zip(places if self.side == "down" else reversed(places), chain, strict=True)
        }


class HMControlNet(ControlNet):
    """Release v1, ARKit expression: control maps `down_0` to `down_2` (at SD1.5 size 32, 16, 8)."""

    expression, side = ArkitExpression(), "down"
    max_tokens = 64

    @register_to_config
    def __init__(
        self,
        embedding_channels: int = 1280,  # in the released configs, without effect
        input_channels: int = 3,
        scale_factor: int = 8,
        cross_attention_dim: int = 320,
        block_out_channels: tuple[int, ...] = (128, 320, 640, 1280),
    ):
        super().__init__(input_channels, cross_attention_dim, block_out_channels)


class HMControlNet2(HMControlNet):
    """The same for the emotion code: control maps `down2_0` to `down2_2`."""

    expression = EmotionExpression()
    max_tokens = 1024


class HMV2ControlNet(ControlNet):
    """Release v2, ARKit expression: control maps `up_v2_0` to `up_v2_3` (at SD1.5 size 8, 16, 32, 64).

    The released config.json holds no arguments: the defaults are the released sizes.
    """

    expression, side = ArkitExpression(), "up"

    @register_to_config
    def __init__(
        self,
        input_channels: int = 3,
        scale_factor: int = 4,
        cross_attention_dim: int = 320,
        block_out_channels: tuple[int, ...] = (128, 640, 1280, 1280, 1280),
    ):
        super().__init__(input_channels, cross_attention_dim, block_out_channels)


class HMV2ControlNet2(HMV2ControlNet):
    """The same for the emotion code: control maps `up2_v2_0` to `up2_v2_3`."""

    expression = EmotionExpression()


class HMV3ControlNet(ControlNet):
    """Release v3, either expression: control maps `up3_0` to `up3_3` (at SD1.5 size 8, 16, 32, 64), and
    `down3_0` to `down3_3` (32, 16, 8, 8) made from them.

    The released config.json holds no arguments: the defaults are the released sizes. down_channels: the
    widths of the UNet's first two blocks.
    """

    expression, side = EitherExpression(ArkitExpression(), EmotionExpression()), "up"

    @register_to_config
    def __init__(
        self,
        input_channels: int = 3,
        scale_factor: int = 4,
        cross_attention_dim: int = 320,
        block_out_channels: tuple[int, ...] = (128, 640, 1280, 1280, 1280),
        down_channels: tuple[int, ...] = (320, 640),
    ):
        super().__init__(input_channels, cross_attention_dim, block_out_channels)
        self.conv_up2_down0 = nn.Conv2d(block_out_channels[2], down_channels[0], 1, bias=False)
        self.conv_up1_down1 = nn.Conv2d(block_out_channels[3], down_channels[1], 1, bias=False)

    def _maps(self, chain: list[Tensor]) -> dict[str, Tensor]:
        up = super()._maps(chain)
        return up | {
            "down3_0": self.conv_up2_down0(up["up3_2"]),
            "down3_1": self.conv_up1_down1(up["up3_1"]),
            "down3_2": up["up3_0"],
            "down3_3": up["up3_0"],
        }
