"""Plain attention, which the paper compares Spatial Knitting Attention with.

It keeps the two attentions, one after the other, every tensor and its name: the number of parameters is the
same, and so is the depth. Only where a query looks differs: at all positions of the map, both times, and it
is given row and column at once (`grid_positions`).
"""

import torch
from torch import Tensor

from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.attention import KeysValues, SKCrossAttention, SKReferenceAttention
from hellomeme.models.control import HMControlNet, HMV2ControlNet


def grid_positions(along_h: Tensor, along_w: Tensor) -> Tensor:
    """Positions of the rows (h, C) and columns (w, C), interleaved sines and cosines -> of a map (h, w, C).

    Every other pair of a sine and a cosine is the column's, the others are the row's: half of the frequencies
    each.
    """
    is_column = torch.arange(along_h.shape[-1], device=along_h.device) // 2 % 2 == 0
    return torch.where(is_column, along_w, along_h.unsqueeze(1))


def as_one_line(x: Tensor) -> Tensor:
    """Map (B, C, h, w) -> (B, 1, h*w, C): to attend along this one line is to attend to all positions."""
    return x.flatten(2).mT.unsqueeze(1)


class PlainReferenceAttention(SKReferenceAttention):
    """Both passes attend from all h*w positions of the hidden map to all 2*h*w of both maps."""

    def prepare(self, reference: Tensor) -> KeysValues:
        """Reference map (B, C, h, w) -> keys and values, (B, 1, h*w, C) each."""
        positions = grid_positions(*self._reference_positions(*reference.shape[-2:])).flatten(0, 1)
        tokens = self.norm(as_one_line(reference) + positions)
        return KeysValues(*self.attn1.keys_values(tokens), *self.attn2.keys_values(tokens))

    def forward(self, hidden: Tensor, reference: KeysValues) -> Tensor:
        size = hidden.shape[-2:]
        positions = grid_positions(*self._hidden_positions(*size)).flatten(0, 1)
        x = self._attend(self.attn1, as_one_line(hidden) + positions, *reference[:2])
        x = self._attend(self.attn2, x + positions, *reference[2:])
        return hidden + self.proj(x.squeeze(1).mT.unflatten(2, size))


class PlainCrossAttention(SKCrossAttention):
    """Both passes get both positions; the tokens are the same for all queries anyway."""

    def _positions(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        positions = grid_positions(self.pos_embed.pe[0, :height], self.pos_embed.pe[0, :width])
        return positions, positions


class PlainReferenceAdapter(HMReferenceAdapter):
    attention_class, knitted = PlainReferenceAttention, False


class PlainControlNet(HMControlNet):
    attention_class, knitted = PlainCrossAttention, False


class PlainV2ControlNet(HMV2ControlNet):
    attention_class, knitted = PlainCrossAttention, False
