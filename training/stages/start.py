"""Where the adapters start, so that a short training gets beyond it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from hellomeme.models.adapters import HMReferenceAdapter

SHARP = 2.5  # gain of queries and keys: at the last place a query attends to little more than one token
SOFT = 1.1  # at the others


def start_by_copying(adapter: HMReferenceAdapter, side: int) -> None:
    """Initialise reference attentions so that every position attends to the same position of the reference,
    as far as the features there are small beside the positions, and without any effect on the base.

    In the knitted row (hidden | reference) the reference's position i is numbered n + i. The table of
    positions is made of sines and cosines, so that shift is a rotation: keys that undo it meet the query of
    position i. From a random start, finding this takes most of a short training. Only the last place, where
    colours are copied, begins sharp: with large queries and keys the softmax of the others is saturated.

    side: height and width of the latents in px; the map at a place is smaller by its level.
    """
    levels = len(adapter.config.block_out_channels)
    places = {f"down_{i}": min(i + 1, levels - 1) for i in range(levels)} | {"mid": levels - 1}
    places |= {f"up_{i}": levels - 1 - i for i in range(levels)}
    for place, level in places.items():
        module = adapter.module_at(place)
        if module is None:
            continue
        n, channels = side >> level, module.norm.normalized_shape[0]
        table = module.pos_embed.pe[0, :, :].double()
        # The rotation by n positions, from the table itself: pe[n] = rotation @ pe[0], and pe[0] is sin 0,
        # cos 0.
        sine, cosine = table[n, 0::2], table[n, 1::2]
        back = torch.zeros(channels, channels, dtype=torch.float64)
        even, odd = torch.arange(0, channels, 2), torch.arange(1, channels, 2)
        back[even, even], back[even, odd], back[odd, even], back[odd, odd] = cosine, -sine, sine, cosine
        gain = SHARP if place == f"up_{levels - 1}" else SOFT
        for attention in (module.attn1, module.attn2):
            nn.init.orthogonal_(attention.to_q.weight, gain)
            attention.to_k.weight.data.copy_(attention.to_q.weight.double() @ back)
        nn.init.zeros_(module.proj.weight)
        nn.init.zeros_(module.proj.bias)


def scale_to_features(adapter: HMReferenceAdapter, features: Mapping[str, torch.Tensor]) -> None:
    """Scale what the reference attentions hand to their last convolution to the features of their place.

    Features of the deep places of a trained UNet spread by 5 to 18, the output of a fresh attention by less
    than 1. The gradient of that convolution, which begins at zero, grows with it: beside such features it was
    hardly trained.

    features: of a trained base, place -> (B, C, h, w).
    """
    for place, x in features.items():
        if (module := adapter.module_at(place)) is not None:
            # The last digits depend on how weights lie in memory, and runs that are compared begin alike
            module.attn2.to_out[0].weight.data.mul_(round(x.std().item(), 2))


def start_by_attending(net: nn.Module) -> None:
    """Initialise a control net so that its maps depend on pose and expression about equally.

    A knitted cross attention has no residual connection: conditions act through the attention weights alone.
    With torch's own initialisation every position attends to all tokens evenly, and the maps are the same for
    every driver to four digits; a short training never gets beyond that. So queries and keys begin with large
    weights, and the fast sines of the coefficients (0.01 of jawOpen turns the fastest by 5 rad) with small
    ones.
    """
    for block in net.blocks_down:
        for attention in (block.attn1, block.attn2):
            for layer, gain in (
                (attention.to_q, 4.0),
                (attention.to_k, 4.0),
                (attention.to_v, 1.0),
                (attention.to_out[0], 1.0),
            ):
                nn.init.orthogonal_(layer.weight, gain)
        for layer in (block.ff.net[0].proj, block.ff.net[2], block.proj):
            layer.weight.data.mul_(1.5)
    half = net.config.cross_attention_dim // 2
    frequencies = 10000.0 ** (-torch.arange(half) / half)  # of the sinusoidal embedding, cosines first
    quiet = (0.01 / frequencies).clamp(max=1.0)
    first, second = net.exp_proj.linear_1, net.exp_proj.linear_2
    first.weight.data.mul_(4.0 * torch.cat([quiet, quiet]))
    second.weight.data.mul_(4.0)
