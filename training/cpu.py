"""Attention that keeps a CPU busy in bfloat16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F

LONGEST = 1024  # keys: beyond it torch's own kernel is the faster one


@contextlib.contextmanager
def short_attentions() -> Iterator[None]:
    """While in this context, attention over few keys is computed as softmax(q k) v, in bfloat16 on a CPU.

    torch's fused CPU kernel is made for long sequences: on dozens of positions it is up to 16 times slower.
    Anything else (masks, dropout, other devices and precisions) goes to that kernel as always.
    """
    fused = F.scaled_dot_product_attention

    def attention(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **options,
    ) -> torch.Tensor:
        plain = attn_mask is None and dropout_p == 0 and not is_causal and not options
        on_cpu = query.dtype == torch.bfloat16 and query.device.type == "cpu"
        if not (plain and on_cpu and key.shape[-2] <= LONGEST):
            return fused(query, key, value, attn_mask, dropout_p, is_causal, **options)
        scaled = query * query.shape[-1] ** -0.5
        return torch.softmax(scaled @ key.mT, -1) @ value

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused
