"""What the kinds of LoRA add to a weight W, from the tensors that a file holds for its layer.

| kind | W becomes |
|---|---|
| LoRA | W + alpha / rank * up @ down |
| LoHa | W + alpha / rank * (w1_a @ w1_b) * (w2_a @ w2_b), the two multiplied number by number |
| LoKr | W + alpha / rank * the Kronecker product of w1 and w2, where each may be a product of two itself |
| IA3 | W + w * W, where w has a number for each output, or each input |
| full difference | W + diff |
| DoRA | m * V / norm(V), where V is W changed as by one of the others, and m the norms that were trained |

LoRA is arXiv 2106.09685, LoHa 2108.06098, LoKr 2309.14859, IA3 2205.05638, DoRA 2402.09353. With a kernel
beside the factors (mid, t1, t2) a product is Tucker's, over the places of the kernel. A strength s takes W s
times as far. All is computed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]  # of one layer, by what follows its name


def difference(tensors: Tensors, weight: Tensor) -> Tensor:
    """What a layer's tensors add to its weight, in float32.

    Raises ValueError, RuntimeError or KeyError for tensors that do not fit the weight or each other.
    """
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    weight = weight.detach().float().cpu()
    if "weight" in tensors:
        found = _by_side(tensors["weight"], weight, bool(tensors["on_input"].any())) * weight
    elif "diff" in tensors:
        found = tensors["diff"]
    elif "hada_w1_a" in tensors:
        found = _scale(tensors, "hada_w1_b") * _factor(tensors, "hada_", 1) * _factor(tensors, "hada_", 2)
    elif "lokr_w2" in tensors or "lokr_w2_a" in tensors:
        rank_from = next((name for name in ("lokr_w2_b", "lokr_w1_b") if name in tensors), None)
        one, two = _factor(tensors, "lokr_", 1), _factor(tensors, "lokr_", 2)
        found = _scale(tensors, rank_from) * torch.kron(one.flatten(1), two.flatten(1))
    else:
        up, down, mid = tensors["up"], tensors["down"], tensors.get("mid")
        found = _scale(tensors, "down") * (
            up.flatten(1) @ down.flatten(1) if mid is None else _tucker(mid, up.flatten(1).T, down.flatten(1))
        )
    if found.numel() != weight.numel():
        raise ValueError(f"its size is {tuple(found.shape)} and not {tuple(weight.shape)}")
    found = found.reshape(weight.shape)
    if "dora_scale" not in tensors:
        return found
    return _with_norms(weight + found, tensors["dora_scale"]) - weight


def _scale(tensors: Tensors, rank_from: str | None) -> float:
    """alpha / rank; 1 without an alpha, and for products of whole matrices, which have no rank."""
    if rank_from is None or "alpha" not in tensors:
        return 1.0
    return tensors["alpha"].item() / tensors[rank_from].shape[0]


def _factor(tensors: Tensors, kind: str, number: int) -> Tensor:
    """One of the two factors of LoHa or LoKr: a matrix, or the product of two."""
    name = f"{kind}w{number}"
    if name in tensors:
        return tensors[name]
    a, b, kernel = tensors[f"{name}_a"], tensors[f"{name}_b"], tensors.get(f"{kind}t{number}")
    return a @ b.flatten(1) if kernel is None else _tucker(kernel, a, b)


def _tucker(kernel: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """A convolution's weight (out, in, h, w) from kernel (i, j, h, w), a (i, out) and b (j, in)."""
    return torch.einsum("ijhw,io,jn->onhw", kernel, a, b)


def _by_side(numbers: Tensor, weight: Tensor, on_input: bool) -> Tensor:
    """A number for each output of a weight, or each input, in a shape that multiplies it."""
    shape = [1] * weight.ndim
    shape[int(on_input)] = -1
    return numbers.reshape(shape)


def _with_norms(weight: Tensor, norms: Tensor) -> Tensor:
    """The weight with these norms: one for each output, or each input where the first side is 1."""
    on_input = norms.ndim > 1 and norms.shape[0] == 1 and weight.shape[0] != 1
    others = [axis for axis in range(weight.ndim) if axis != int(on_input)]
    own = weight.norm(dim=others, keepdim=True)
    return weight * (_by_side(norms, weight, on_input) / own.clamp_min(torch.finfo(torch.float32).eps))
