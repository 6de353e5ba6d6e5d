"""Spatial Knitting Attention: along rows, then along columns, so that a map keeps its two dimensions.

`SKReferenceAttention` joins two maps (Figure 3 of the paper), `SKCrossAttention` joins a map with tokens
(Figure 2). Shapes in comments: `B` batch, `T` frames, `C h w` a map, `N` tokens, `D` their width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import SinusoidalPositionalEmbedding
from torch import Tensor, nn

from ..errors import HelloMemeError


class KeysValues(NamedTuple):
    """What a reference map adds to the two passes of `SKReferenceAttention`: it depends on nothing else."""

    row_keys: Tensor  # (B, h, w, C)
    row_values: Tensor
    column_keys: Tensor  # (B, w, h, C)
    column_values: Tensor


class Attention(nn.Module):
    """Multi-head attention with the tensor names of diffusers' `Attention`.

    Keys and values are made in a separate step.
    """

    def __init__(self, dim: int, heads: int, token_dim: int | None = None):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(token_dim or dim, dim, bias=False)
        self.to_v = nn.Linear(token_dim or dim, dim, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(..., N, D) -> keys and values, (..., N, C) each."""
        return self.to_k(tokens), self.to_v(tokens)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Queries x (L, M, C), keys and values (L, N, C) -> (L, M, C)."""
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), keys, values))
        out = F.scaled_dot_product_attention(q, k, v)  # (L, heads, M, C / heads)
        return self.to_out[0](out.transpose(1, 2).flatten(2))


class Knitting(nn.Module):
    """Rows, then columns, of a map; in each pass the tokens of a reference map follow the map's own.

    The output of attention at one query does not depend on the other queries, so the reference half is never
    queried. It enters as keys and values only, which are computed once per reference: all steps and all
    frames share them. A subclass has the layer `norm`, says which attention serves which pass, and what the
    positions are.
    """

    row_attention: Attention
    column_attention: Attention
    norm: nn.LayerNorm

    def _positions(self, first: int, count: int) -> Tensor:
        """What is added to `count` tokens from the position `first` on, (count, C)."""
        raise NotImplementedError

    def _keys_values(self, reference: Tensor) -> KeysValues:
        """Reference map (B, C, h, w) -> the keys and values it adds to rows and columns."""
        along_h, along_w = self._reference_positions(*reference.shape[-2:])
        rows = self.norm(reference.permute(0, 2, 3, 1) + along_w)  # (B, h, w, C)
        columns = self.norm(reference.permute(0, 3, 2, 1) + along_h)  # (B, w, h, C)
        return KeysValues(*self.row_attention.keys_values(rows), *self.column_attention.keys_values(columns))

    def _knit(self, hidden: Tensor, reference: KeysValues | None = None) -> Tensor:
        """Map (B*T, C, h, w) and what the reference of batch B adds, if there is one -> (B*T, C, h, w)."""
        along_h, along_w = self._hidden_positions(*hidden.shape[-2:])
        rows, columns = ((), ()) if reference is None else (reference[:2], reference[2:])
        x = hidden.permute(0, 2, 3, 1)  # (B*T, h, w, C)
        x = self._attend(self.row_attention, x + along_w, *rows)
        x = x.transpose(1, 2)  # (B*T, w, h, C)
        x = self._attend(self.column_attention, x + along_h, *columns)
        return x.permute(0, 3, 2, 1)

    def _hidden_positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Positions along the height (h, C) and along the width (w, C)."""
        return self._positions(0, height), self._positions(0, width)

    def _reference_positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The same for the reference, which follows the hidden map in the concatenation: n .. 2n - 1."""
        return self._positions(height, height), self._positions(width, width)

    def _attend(self, attn: Attention, x: Tensor, *reference: Tensor) -> Tensor:
        """Each of the m lines of x (B*T, m, n, C) attends to itself and to the reference's line, whose keys
        and values are (B, m, n, C)."""
        x = self.norm(x)

        def join(own: Tensor, ref: Tensor) -> Tensor:  # -> (B*T*m, 2n, C)
            frames = x.shape[0] // ref.shape[0]
            ref = ref.unsqueeze(1).expand(-1, frames, -1, -1, -1)
            return torch.cat([own.unflatten(0, (-1, frames)), ref], dim=-2).flatten(0, 2)

        own = attn.keys_values(x)
        keys, values = map(join, own, reference) if reference else (tokens.flatten(0, 1) for tokens in own)
        return attn(x.flatten(0, 1), keys, values).view_as(x)


class SKReferenceAttention(Knitting):
    """Figure 3: hidden + conv(columns(rows(hidden | reference))); each pass keeps the hidden half only."""

    def __init__(self, in_channels: int, num_attention_heads: int = 8):
        super().__init__()
        self.pos_embed = SinusoidalPositionalEmbedding(in_channels, 128)  # two sides of at most 64 each
        self.attn1 = Attention(in_channels, num_attention_heads)  # rows
        self.attn2 = Attention(in_channels, num_attention_heads)  # columns
        self.norm = nn.LayerNorm(in_channels)
        self.proj = nn.Conv2d(in_channels, in_channels, 3, padding=1)

    row_attention = property(lambda self: self.attn1)
    column_attention = property(lambda self: self.attn2)

    def prepare(self, reference: Tensor) -> KeysValues:
        """Reference map (B, C, h, w), h and w at most 64 -> the keys and values it adds to rows and columns.

        Raises HelloMemeError when a side of the map is longer than the table of positions allows.
        """
        return self._keys_values(reference)

    def forward(self, hidden: Tensor, reference: KeysValues) -> Tensor:
        """Hidden map (B*T, C, h, w) and the prepared reference of batch B -> (B*T, C, h, w)."""
        return hidden + self.proj(self._knit(hidden, reference))

    def _positions(self, first: int, count: int) -> Tensor:
        return self.pos_embed.pe[0, first : first + count]

    def _reference_positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        if 2 * max(height, width) > self.pos_embed.pe.shape[1]:
            raise HelloMemeError(
                f"A reference map of {width} x {height} is too large (64 x 64 at most): "
                "use a smaller picture size."
            )
        return super()._reference_positions(height, width)


class BasicBlock(nn.Module):
    """The ResNet block that halves a map, with instance normalisation: (B, C_in, h, w) ->
    (B, C_out, h/2, w/2)."""

    def __init__(self, channel_in: int, channel_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channel_in, channel_out, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channel_out, channel_out, 3, padding=1, bias=False)
        shortcut = nn.Conv2d(channel_in, channel_out, 1, stride=2, bias=False)
        self.downsample = nn.Sequential(shortcut, nn.InstanceNorm2d(channel_out), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(F.instance_norm(self.conv1(x)))
        return F.relu(F.instance_norm(self.conv2(y)) + self.downsample(x))


class SKCrossAttention(nn.Module):
    """Figure 2: halve the map, let its rows and then its columns query the tokens, feed forward, convolve.

    There are no residual connections. Positions differ between the passes (along w, then along h); tokens are
    the same for every row and column, so one attention over all h*w queries serves a pass. Maps of 1 x 1
    cannot be normalised: the input must be at least 4 x 4.
    """

    def __init__(
        self, channel_in: int, channel_out: int, heads: int, cross_attention_dim: int, max_tokens: int = 64
    ):
        super().__init__()
        self.conv = BasicBlock(channel_in, channel_out)
        self.pos_embed = SinusoidalPositionalEmbedding(channel_out, 64)
        self.pos_embed_hidden = SinusoidalPositionalEmbedding(cross_attention_dim, max_tokens)
        self.norm1 = nn.LayerNorm(channel_out)
        self.attn1 = Attention(channel_out, heads, cross_attention_dim)  # rows
        self.norm2 = nn.LayerNorm(channel_out)
        self.attn2 = Attention(channel_out, heads, cross_attention_dim)  # columns
        self.ff = FeedForward(channel_out, mult=2, activation_fn="geglu")
        self.proj = nn.Conv2d(channel_out, channel_out, 3, padding=1)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Map (B, C_in, H, W) and tokens (B, N, D) -> (B, C_out, H/2, W/2)."""
        x = self.conv(x).permute(0, 2, 3, 1)  # (B, h, w, C)
        size = x.shape[1:3]
        first, second = self._positions(*size)
        tokens = self.pos_embed_hidden(tokens)

        x = self.norm1(x + first).flatten(1, 2)
        x = self.attn1(x, *self.attn1.keys_values(tokens)).unflatten(1, size)
        x = self.norm2(x + second).flatten(1, 2)
        x = self.attn2(x, *self.attn2.keys_values(tokens))
        x = self.ff(x).unflatten(1, size)
        return self.proj(x.permute(0, 3, 1, 2))

    def _positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Added to the map (B, h, w, C) before each pass: positions along the width, then the height."""
        return self.pos_embed.pe[0, :width], self.pos_embed.pe[0, :height].unsqueeze(1)
