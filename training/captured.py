"""A training step that a GPU repeats as a whole (a CUDA graph).

A step of networks as small as the demo's launches some ten thousand kernels that take microseconds each: a
GPU that gets them from Python one by one waits most of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.muon import ADAMW_RMS, MOMENTUM, NARROWEST, orthogonal

BETAS = (0.9, 0.98)  # of AdamW
LARGEST_GRADIENT = 1.0  # norm of all gradients, to which they are clipped
WARM_UP = 3  # steps on the stream of the capture before it, in which libraries take what memory they need


class Matrices:
    """Weights that are matrices with the same sides, updated by Muon (`training.muon`)."""

    def __init__(self, weights: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.weights, self.weight_decay = list(weights), weight_decay
        self.exact = torch.stack([weight.detach().float().flatten(1) for weight in weights])  # (N, R, C)
        self.average, self.momentum = self.exact.clone(), torch.zeros_like(self.exact)

    def forget(self) -> None:
        """Begin anew, with the weights as they are."""
        self.momentum.zero_()

    def update(self, learning_rate: Tensor, clipping: Tensor, decay: Tensor) -> None:
        gradient = torch.stack([weight.grad.flatten(1) for weight in self.weights]).float() * clipping
        self.momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(self.momentum, MOMENTUM)
        rows, columns = direction.shape[1:]
        direction = orthogonal(direction.mT).mT if rows > columns else orthogonal(direction)
        length = learning_rate * ADAMW_RMS * max(rows, columns) ** 0.5
        self.exact.mul_(1 - learning_rate * self.weight_decay).sub_(direction.float() * length)
        self.average.lerp_(self.exact, 1 - decay)
        self.show(self.exact)

    def show(self, values: Tensor) -> None:
        """Give the weights these values, (N, R, C)."""
        torch._foreach_copy_(self.weights, list(map(Tensor.view_as, values.unbind(), self.weights)))

    def averages(self) -> list[Tensor]:
        return list(map(Tensor.view_as, self.average.unbind(), self.weights))


class Others:
    """All other parameters, end to end in one vector, updated by AdamW."""

    def __init__(self, weights: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.weights, self.weight_decay = list(weights), weight_decay
        self.exact = torch.cat([weight.detach().float().flatten() for weight in weights])
        self.average = self.exact.clone()
        self.first, self.second = torch.zeros_like(self.exact), torch.zeros_like(self.exact)  # moments
        self.steps = self.exact.new_zeros(())

    def forget(self) -> None:
        """Begin anew, with the weights as they are."""
        for state in (self.first, self.second, self.steps):
            state.zero_()

    def update(self, learning_rate: Tensor, clipping: Tensor, decay: Tensor) -> None:
        gradient = torch.cat([weight.grad.float().flatten() for weight in self.weights]) * clipping
        self.steps += 1
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient**2, 1 - BETAS[1])
        first, second = self.first / (1 - BETAS[0] ** self.steps), self.second / (1 - BETAS[1] ** self.steps)
        self.exact.mul_(1 - learning_rate * self.weight_decay).sub_(
            learning_rate * first / (second.sqrt() + 1e-8)
        )
        self.average.lerp_(self.exact, 1 - decay)
        self.show(self.exact)

    def show(self, values: Tensor) -> None:
        """Give the parameters these values, all in one vector."""
        torch._foreach_copy_(self.weights, self._apart(values))

    def averages(self) -> list[Tensor]:
        return self._apart(self.average)

    def _apart(self, values: Tensor) -> list[Tensor]:
        parts = values.split([weight.numel() for weight in self.weights])
        return list(map(Tensor.view_as, parts, self.weights))


class CapturedStep:
    """Loss, gradients, update and exponential average as one CUDA graph; without a GPU, one after the other.

    The parameters may lie in bfloat16: what is updated are float32 copies, of which they show the rounded
    values. A batch is whatever tensors `loss` reads: put the next one into the same tensors before a step.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        loss: Callable[[], Tensor],
        average: float,
        weight_decay: float = 1e-3,
    ) -> None:
        """parameters: by their names, all on one device; those without a gradient are left as they are.
        loss: computes the loss of the batch; must not keep what it computed. average: decay of the
        exponential average.
        """
        self.parameters, self.compute = dict(parameters), loss
        self.longest_decay, self.weight_decay = average, weight_decay
        device = next(iter(self.parameters.values())).device
        self.learning_rate, self.decay, self.loss = torch.zeros(3, device=device).unbind()
        self.steps, self.graph = 0, None
        if device.type != "cuda":
            self._take_apart()
            return
        # Parameters remember the stream that they were first used on, and a graph must not reach beyond its
        # own: so all of it happens on one.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._take_apart()
            for _ in range(WARM_UP):  # with a learning rate of 0
                self._whole()
            for part in self.parts:
                part.forget()
        torch.cuda.current_stream().wait_stream(stream)
        self._forget_gradients()
        self.graph = torch.cuda.CUDAGraph()
        # "thread_local": the thread that pins batches may go on meanwhile
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self._whole()

    def step(self, learning_rate: float) -> None:
        """One step with the batch that lies in the tensors. `loss` then holds what it was."""
        self.learning_rate.fill_(learning_rate)
        self.decay.fill_(min(self.longest_decay, (1 + self.steps) / (10 + self.steps)))
        if self.graph is None:
            self._whole()
        else:
            self.graph.replay()
        self.steps += 1

    @torch.no_grad()
    def show_average(self, shown: bool = True) -> None:
        """Give the parameters their averages, or what is trained again. A step does the latter, too."""
        for part in self.parts:
            part.show(part.average if shown else part.exact)

    def averages(self) -> dict[str, Tensor]:
        """Name -> float32, of every parameter."""
        found = {name: parameter.detach().float() for name, parameter in self.parameters.items()}
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for part in self.parts:
            for weight, average in zip(part.weights, part.averages(), strict=True):
                found[names[id(weight)]] = average
        return found

    def _take_apart(self) -> None:
        """Find out which parameters have a gradient, and sort them by how they are updated."""
        self.compute().backward()
        shapes, others = defaultdict(list), []
        for parameter in self.parameters.values():
            if parameter.grad is None:
                continue
            sides = (parameter.shape[0], parameter[0].numel()) if parameter.ndim in (2, 4) else (0,)
            (shapes[sides] if min(sides) >= NARROWEST else others).append(parameter)
        groups = [(Matrices, weights) for weights in shapes.values()] + [(Others, others)] * bool(others)
        self.parts = [kind(weights, self.weight_decay) for kind, weights in groups]
        self._forget_gradients()

    def _forget_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def _whole(self) -> None:
        self._forget_gradients()
        loss = self.compute()
        loss.backward()
        with torch.no_grad():
            gradients = [weight.grad for part in self.parts for weight in part.weights]
            norm = torch.stack(torch._foreach_norm(gradients)).float().norm()
            clipping = (LARGEST_GRADIENT / (norm + 1e-6)).clamp(max=1)
            for part in self.parts:
                part.update(self.learning_rate, clipping, self.decay)
            self.loss.copy_(loss.detach())
