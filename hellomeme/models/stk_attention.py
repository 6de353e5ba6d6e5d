"""Spatial Knitting Attention as in releases v4 to v5c: named as in the released files.

The knitting is that of `attention`; the differences are where positions come from, a convolution before it,
and the feed forward. Shapes: `B` batch, `T` frames, `C h w` a map, `N` tokens, `D` their width.
"""

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import SinusoidalPositionalEmbedding, get_timestep_embedding
from torch import Tensor, nn

from .attention import Attention, KeysValues, Knitting


def positions(first: int, count: int, like: Tensor) -> Tensor:
    """Sines, then cosines, of the positions first .. first + count - 1: (count, C). like: (..., C)."""
    numbers = torch.arange(first, first + count, device=like.device)
    return get_timestep_embedding(numbers, like.shape[-1], downscale_freq_shift=0).to(like.dtype)


class SKReferenceAttentionV5(Knitting):
    """Release v5: `SKReferenceAttention` with computed positions, so maps of any size.

    time_emb_proj is in the released files, and has no effect. time_width: of the UNet's time embedding.
    """

    def __init__(self, in_channels: int, num_attention_heads: int = 8, time_width: int = 1280):
        super().__init__()
        self.time_emb_proj = nn.Linear(time_width, in_channels)
        self.attn1 = Attention(in_channels, num_attention_heads)  # rows
        self.attn2 = Attention(in_channels, num_attention_heads)  # columns
        self.norm = nn.LayerNorm(in_channels)
        self.proj = nn.Conv2d(in_channels, in_channels, 3, padding=1)

    row_attention = property(lambda self: self.attn1)
    column_attention = property(lambda self: self.attn2)

    def prepare(self, reference: Tensor) -> KeysValues:
        """Reference map (B, C, h, w) -> the keys and values it adds to rows and columns."""
        return self._keys_values(reference)

    def forward(self, hidden: Tensor, reference: KeysValues) -> Tensor:
        """Hidden map (B*T, C, h, w) and the prepared reference of batch B -> (B*T, C, h, w)."""
        return hidden + self.proj(self._knit(hidden, reference))

    def _positions(self, first: int, count: int) -> Tensor:
        return positions(first, count, self.norm.weight)


class STKAttention(Knitting):
    """conv(columns(rows(conv(map) | conv(reference)))), with or without a reference."""

    def __init__(self, channels: int, inner_channels: int, num_attention_heads: int = 8):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, inner_channels, 3, padding=1)
        self.attnx = Attention(inner_channels, num_attention_heads)  # rows
        self.attny = Attention(inner_channels, num_attention_heads)  # columns
        self.norm = nn.LayerNorm(inner_channels)
        self.proj = nn.Conv2d(inner_channels, channels, 3, padding=1)

    row_attention = property(lambda self: self.attnx)
    column_attention = property(lambda self: self.attny)

    def prepare(self, reference: Tensor) -> KeysValues:
        """Reference map (B, C, h, w) -> the keys and values it adds to rows and columns."""
        return self._keys_values(self.conv_in(reference))

    def forward(self, x: Tensor, reference: KeysValues | None = None) -> Tensor:
        """Map (B*T, C, h, w) and the prepared reference of batch B -> (B*T, C, h, w), without the map."""
        return self.proj(self._knit(self.conv_in(x), reference))

    def _positions(self, first: int, count: int) -> Tensor:
        return positions(first, count, self.norm.weight)


class STKReferenceModule(nn.Module):
    """Releases v5b and v5c: the reference map is knitted with itself before the hidden map looks at it."""

    def __init__(self, in_channels: int, num_attention_heads: int = 8):
        super().__init__()
        self.attn_ref = STKAttention(in_channels, in_channels, num_attention_heads)
        self.attn = STKAttention(in_channels, in_channels, num_attention_heads)

    def prepare(self, reference: Tensor) -> KeysValues:
        """Reference map (B, C, h, w) -> the keys and values it adds to rows and columns."""
        return self.attn.prepare(self.attn_ref(reference))

    def forward(self, hidden: Tensor, reference: KeysValues) -> Tensor:
        """Hidden map (B*T, C, h, w) and the prepared reference of batch B -> (B*T, C, h, w)."""
        return hidden + self.attn(hidden, reference)


class STKCrossAttention(nn.Module):
    """Releases v4 to v5c: rows, then columns, of a map query the tokens; the map keeps its size.

    As in `SKCrossAttention` there are no residual connections. One layer normalises before both passes and
    after the feed forward.
    """

    def __init__(
        self,
        channel_in: int,
        channel_mid: int,
        cross_attention_dim: int,
        heads: int = 8,
        tables: tuple[int, int] | None = None,
    ):
        """tables: in release v4, the lengths of the tables of positions for sides and for tokens."""
        super().__init__()
        self.conv_in = nn.Conv2d(channel_in, channel_mid, 3, padding=1)
        if tables is not None:
            self.pos_embed = SinusoidalPositionalEmbedding(channel_mid, tables[0])
            self.pos_embed_hidden = SinusoidalPositionalEmbedding(cross_attention_dim, tables[1])
        self.has_tables = tables is not None
        self.norm = nn.LayerNorm(channel_mid)
        self.attn1 = Attention(channel_mid, heads, cross_attention_dim)  # rows
        self.attn2 = Attention(channel_mid, heads, cross_attention_dim)  # columns
        self.ff = FeedForward(channel_mid, mult=16, activation_fn="geglu")
        self.proj = nn.Conv2d(channel_mid, channel_in, 3, padding=1)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map (B, C, h, w) and tokens (B, N, D) -> (B, C, h, w)."""
        x = self.conv_in(x).permute(0, 2, 3, 1)  # (B, h, w, C)
        size = height, width = x.shape[1:3]
        tokens = tokens + self._along(tokens.shape[1], "pos_embed_hidden", tokens)

        x = self.norm(x + self._along(width, "pos_embed", x)).flatten(1, 2)
        x = self.attn1(x, *self.attn1.keys_values(tokens)).unflatten(1, size)
        x = self.norm(x + self._along(height, "pos_embed", x).unsqueeze(1)).flatten(1, 2)
        x = self.attn2(x, *self.attn2.keys_values(tokens))
        x = self.norm(self.ff(x)).unflatten(1, size)
        return self.proj(x.permute(0, 3, 1, 2))

    def _along(self, count: int, table: str, like: Tensor) -> Tensor:
        """The first `count` positions (count, C), from the named table where there are tables."""
        return getattr(self, table).pe[0, :count] if self.has_tables else positions(0, count, like)
