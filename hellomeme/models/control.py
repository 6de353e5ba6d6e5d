"""HMControlNet and its relatives: head pose, as a picture, and expression, as tokens, become maps for the
UNet.

The four classes of releases v1 and v2 differ in two ways: which expression code they take (`code`), and which
places of the UNet their maps are for. Shapes: `B` batch, `T` frames, `K` numbers of the code, `D`
cross_attention_dim.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from torch import Tensor, nn

from .attention import SKCrossAttention

FACE_PART_DIM = 1024  # width of the CLIP image embedding of a face part
HEADS = 8


class _ControlNet(ModelMixin, ConfigMixin):
    """A chain of `SKCrossAttention`: each block's output is a control map and the next block's input.

    `knitted=False` makes the attentions plain, as in the paper's ablations; no release has it.
    """

    config_name = "config.json"
    # The expression it takes: "drive_coeff" (51 ARKit coefficients) or "pd_fpg" (548 numbers of FanEncoder)
    code: str
    code_scale: float  # the code is multiplied by it, then embedded as timesteps are
    max_tokens: int  # length of the table of token positions in the released files
    suffix: str  # of the control keys: "" or "2"

    def _build(
        self, input_channels: int, dim: int, block_out_channels: tuple[int, ...], knitted: bool
    ) -> None:
        widths = list(block_out_channels)
        self.conv_in = nn.Conv2d(input_channels, widths[0], 3, padding=1, bias=False)
        self._build_projections(dim)
        self.blocks_down = nn.ModuleList(
            SKCrossAttention(a, b, HEADS, dim, self.max_tokens, knitted) for a, b in pairwise(widths)
        )

    def _code_tokens(self, code: Tensor) -> Tensor:
        """Code (B, T, K) -> one sinusoidal token per number, (B*T, K, D) in the type of the network."""
        dim = self.config.cross_attention_dim
        tokens = get_timestep_embedding(code.float().flatten() * self.code_scale, dim, True, 0)
        return tokens.to(self.dtype).view(-1, code.shape[-1], dim)

    def _maps(self, condition: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        frames = condition.shape[2]
        x = condition.to(self.dtype).transpose(1, 2).flatten(0, 1)  # (B*T, 3, H, W)
        if self.config.scale_factor != 1:
            x = F.interpolate(
                x, scale_factor=1 / self.config.scale_factor, mode="bilinear", align_corners=False
            )
        x = self.conv_in(x)
        maps = {}
        for i, block in enumerate(self.blocks_down):
            x = block(x, tokens)
            maps[self._key(i)] = x.unflatten(0, (-1, frames)).transpose(1, 2)  # (B, C, T, h, w)
        return maps


class _ArkitControlNet(_ControlNet):
    code, code_scale, suffix = "drive_coeff", 500.0, ""

    def _build_projections(self, dim: int) -> None:
        self.exp_proj = TimestepEmbedding(dim, dim)
        self.face_proj = TimestepEmbedding(FACE_PART_DIM, dim)

    def forward(
        self, condition: Tensor, drive_coeff: Tensor, face_parts: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Pose picture and ARKit expression -> control maps.

        condition: (B, 3, T, H, W) in [-1, 1], the pose picture. drive_coeff: (B, T, 51) in [0, 1].
        face_parts: (B, T, 3, 1024) CLIP embeddings of eyes and mouth; None stands for zeros.
        Returns a dict from control key to (B, C, T, h, w), as `HMDenoisingNet` takes it.
        """
        if face_parts is None:
            face_parts = drive_coeff.new_zeros(*drive_coeff.shape[:2], 3, FACE_PART_DIM)
        faces = self.face_proj(face_parts.to(self.dtype).flatten(0, 1))  # (B*T, 3, D)
        tokens = torch.cat([faces, self._code_tokens(drive_coeff)], dim=1)
        return self._maps(condition, self.exp_proj(tokens))


class _EmotionControlNet(_ControlNet):
    code, code_scale, suffix = "pd_fpg", 20.0, "2"

    def _build_projections(self, dim: int) -> None:
        self.emo_proj = TimestepEmbedding(dim, dim)

    def forward(self, condition: Tensor, emo_embedding: Tensor) -> dict[str, Tensor]:
        """Pose picture and emotion code -> control maps.

        condition: (B, 3, T, H, W) in [-1, 1], the pose picture. emo_embedding: (B, T, K), K = 548 from
        `FanEncoder`.
        Returns a dict from control key to (B, C, T, h, w), as `HMDenoisingNet` takes it.
        """
        return self._maps(condition, self.emo_proj(self._code_tokens(emo_embedding)))


class _DownControlNet(_ControlNet):
    """Release v1: maps for the outputs of the down blocks, finest first (at SD1.5 size 32, 16, 8)."""

    @register_to_config
    def __init__(
        self,
        embedding_channels: int = 1280,  # in the released configs, without effect
        input_channels: int = 3,
        scale_factor: int = 8,
        cross_attention_dim: int = 320,
        block_out_channels: tuple[int, ...] = (128, 320, 640, 1280),
        knitted: bool = True,
    ):
        super().__init__()
        self._build(input_channels, cross_attention_dim, block_out_channels, knitted)

    def _key(self, i: int) -> str:
        return f"down{self.suffix}_{i}"


class _UpControlNet(_ControlNet):
    """Release v2: maps for the inputs of the up blocks, which run from coarse to fine
    (at SD1.5 size 8, 16, 32, 64).

    The released config.json holds no arguments: the defaults are the released sizes.
    """

    max_tokens = 1024

    @register_to_config
    def __init__(
        self,
        input_channels: int = 3,
        scale_factor: int = 4,
        cross_attention_dim: int = 320,
        block_out_channels: tuple[int, ...] = (128, 640, 1280, 1280, 1280),
        knitted: bool = True,
    ):
        super().__init__()
        self._build(input_channels, cross_attention_dim, block_out_channels, knitted)

    def _key(self, i: int) -> str:
        return f"up{self.suffix}_v2_{len(self.blocks_down) - 1 - i}"


class HMControlNet(_ArkitControlNet, _DownControlNet):
    """Release v1, ARKit expression and face parts: control maps `down_0` to `down_2`."""

    max_tokens = 64


class HMControlNet2(_EmotionControlNet, _DownControlNet):
    """Release v1, emotion code: control maps `down2_0` to `down2_2`."""

    max_tokens = 1024


class HMV2ControlNet(_ArkitControlNet, _UpControlNet):
    """Release v2, ARKit expression and face parts: control maps `up_v2_0` to `up_v2_3`."""


class HMV2ControlNet2(_EmotionControlNet, _UpControlNet):
    """Release v2, emotion code: control maps `up2_v2_0` to `up2_v2_3`."""
