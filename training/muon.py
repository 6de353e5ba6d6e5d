"""Muon (Jordan et al., 2024): the momentum of a weight matrix is made orthogonal before it is added.

`torch.optim.Muon` takes matrices only, one after the other. Here convolutions are matrices too, and all
matrices of one shape go through the iteration at once: for the networks of the demo .2 s instead of .45 s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch

NEWTON_SCHULZ = 3.4445, -4.7750, 2.0315  # coefficients of the quintic iteration
ITERATIONS = 5
MOMENTUM = 0.95
NARROWEST = 32  # rows or columns: anything smaller is left to AdamW
ADAMW_RMS = 0.2  # of an update of AdamW, so that one learning rate suits both (Liu et al., 2025)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """(N, R, C), R <= C -> in bfloat16, about the nearest matrices with orthonormal rows.

    Most singular values end between .5 and 1.2, which is all that the method needs; tiny ones stay small.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def is_matrix(weight: torch.Tensor) -> bool:
    """Whether Muon is for it: a linear layer or a convolution of at least `NARROWEST` rows and columns."""
    return weight.ndim in (2, 4) and min(weight.shape[0], weight[0].numel()) >= NARROWEST


class Muon(torch.optim.AdamW):
    """AdamW, and Muon for every weight that is a matrix of at least `NARROWEST` rows and columns.

    AdamW's own step leaves out parameters without gradients. So those that Muon has updated are shown to it
    without theirs. Weights of an embedding are matrices, too: it is not meant for stages that train one.
    """

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {}
        for group in self.param_groups:
            for matrices in self._by_shape(group["params"]).values():
                self._update(matrices, group)
                gradients |= {p: p.grad for p in matrices}
        for p in gradients:
            p.grad = None
        super().step()
        for p, gradient in gradients.items():
            p.grad = gradient
        return loss

    @staticmethod
    def _by_shape(parameters: list[torch.Tensor]) -> dict[tuple[int, ...], list[torch.Tensor]]:
        """Those that are for Muon and have a gradient, by the sides of their matrix, the shorter first."""
        found = defaultdict(list)
        for p in parameters:
            if p.grad is not None and is_matrix(p):
                found[tuple(sorted((p.shape[0], p[0].numel())))].append(p)
        return found

    def _update(self, matrices: list[torch.Tensor], group: dict) -> None:
        """One step of weights whose matrices have the same sides."""
        directions = torch.stack([self._direction(p) for p in matrices])
        length = group["lr"] * ADAMW_RMS * directions.shape[2] ** 0.5
        for p, update in zip(matrices, orthogonal(directions).float(), strict=True):
            update = update.T if p.shape[0] > p[0].numel() else update
            p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.reshape(p.shape), alpha=-length)

    def _direction(self, p: torch.Tensor) -> torch.Tensor:
        """Nesterov's momentum of a weight, as a matrix that is not taller than wide."""
        state = self.state[p]
        if not state:  # AdamW's names: torch's own `load_state_dict` expects a step
            state |= {"step": torch.tensor(0.0), "exp_avg": torch.zeros_like(p)}
        state["step"] += 1
        state["exp_avg"].lerp_(p.grad, 1 - MOMENTUM)
        direction = p.grad.lerp(state["exp_avg"], MOMENTUM).flatten(1)
        return direction.T if direction.shape[0] > direction.shape[1] else direction
