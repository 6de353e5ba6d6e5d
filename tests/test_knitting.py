"""SKReferenceAttention computes only what is kept, and that is the same as the whole of Figure 3."""

import pytest
import torch

from hellomeme.errors import HelloMemeError
from hellomeme.models.attention import SKCrossAttention, SKReferenceAttention

CHANNELS, HEADS = 16, 4


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = SKReferenceAttention(CHANNELS, HEADS).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def self_attention(attn, tokens):
    """Softmax attention of every token (L, N, C) to every token, written out."""
    q, k, v = (
        linear(tokens).unflatten(-1, (HEADS, -1)).permute(0, 2, 1, 3)
        for linear in (attn.to_q, attn.to_k, attn.to_v)
    )
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)  # (L, HEADS, N, N)
    return attn.to_out[0]((weights @ v).permute(0, 2, 1, 3).flatten(2))


def figure_3(net, hidden, reference, frames):
    """The plain formulation: concatenate, attend from everywhere to everywhere, cut the hidden half out;
    twice."""
    b, c, h, w = hidden.shape
    reference = reference.repeat_interleave(frames, dim=0)
    pe = net.pos_embed.pe

    rows = torch.cat([hidden, reference], dim=3).permute(0, 2, 3, 1).reshape(b * h, 2 * w, c)
    rows = self_attention(net.attn1, net.norm(rows + pe[:, : 2 * w]))
    middle = rows.view(b, h, 2 * w, c).permute(0, 3, 1, 2)[..., :w]  # (b, c, h, w)

    columns = torch.cat([middle, reference], dim=2).permute(0, 3, 2, 1).reshape(b * w, 2 * h, c)
    columns = self_attention(net.attn2, net.norm(columns + pe[:, : 2 * h]))
    result = columns.view(b, w, 2 * h, c).permute(0, 3, 2, 1)[:, :, :h]
    return hidden + net.proj(result)


@pytest.mark.parametrize(("batch", "frames", "height", "width"), [(1, 1, 8, 8), (2, 3, 4, 4), (2, 2, 6, 3)])
def test_kept_half_equals_figure_3(net, batch, frames, height, width):
    hidden = torch.randn(batch * frames, CHANNELS, height, width, dtype=torch.double)
    reference = torch.randn(batch, CHANNELS, height, width, dtype=torch.double)
    ours = net(hidden, net.prepare(reference))
    torch.testing.assert_close(ours, figure_3(net, hidden, reference, frames), rtol=1e-10, atol=1e-10)


def test_gradients_equal_those_of_figure_3(net):
    hidden, reference = torch.randn(2, 2, CHANNELS, 4, 4, dtype=torch.double).requires_grad_()
    inputs = (hidden, reference, *net.parameters())
    ours = torch.autograd.grad(net(hidden, net.prepare(reference)).square().sum(), inputs)
    plain = torch.autograd.grad(figure_3(net, hidden, reference, 1).square().sum(), inputs)
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


def test_computes_only_what_is_kept(net):
    """Tokens that pass each linear layer: the reference's once, in `prepare`; then the hidden half's
    alone."""
    seen = {}
    for name, layer in net.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(
                lambda _, inputs, output, name=name: seen.update(
                    {name: seen.get(name, 0) + output[..., 0].numel()}
                )
            )
    batch, frames, side = 2, 3, 4
    prepared = net.prepare(torch.randn(batch, CHANNELS, side, side, dtype=torch.double))
    kept = batch * side * side
    assert seen == {f"attn{i}.to_{kind}": kept for i in (1, 2) for kind in "kv"}

    seen.clear()
    net(torch.randn(batch * frames, CHANNELS, side, side, dtype=torch.double), prepared)
    assert seen == {f"attn{i}.to_{kind}": kept * frames for i in (1, 2) for kind in ("q", "k", "v", "out.0")}


def test_too_large_map_is_refused(net):
    assert net.prepare(torch.zeros(1, CHANNELS, 2, 64, dtype=torch.double)).row_keys.shape == (
        1,
        2,
        64,
        CHANNELS,
    )
    with pytest.raises(HelloMemeError, match="too large"):
        net.prepare(torch.zeros(1, CHANNELS, 2, 65, dtype=torch.double))


def test_cross_attention_of_a_non_square_map():
    """Rows are numbered along the width and columns along the height."""
    net = SKCrossAttention(8, CHANNELS, HEADS, cross_attention_dim=12)
    assert net(torch.randn(2, 8, 12, 8), torch.randn(2, 5, 12)).shape == (2, CHANNELS, 6, 4)
