"""A training step that a GPU repeats as a whole (a CUDA graph).

A step of networks as small as the demo's is many short kernels. A GPU may compute them faster than Python
launches them one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.muon import ADAMW_RMS, MOMENTUM, is_matrix, orthogonal

BETAS = (0.9, 0.98)  # of AdamW
LARGEST_GRADIENT = 1.0  # norm of all gradients, to which they are clipped
WARM_UP = 3  # steps before the capture, in which libraries allocate what they need


class Matrices:
    """Weights that are matrices with the same sides, updated by Muon (`training.muon`)."""

    def __init__(self, weights: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.weights, self.weight_decay = list(weights), weight_decay
        self.master = torch.stack([weight.detach().float().flatten(1) for weight in weights])  # (N, R, C)
        self.average, self.momentum = self.master.clone(), torch.zeros_like(self.master)

    def reset(self) -> None:
        """Begin anew, with the weights as they are."""
        self.momentum.zero_()

    def update(self, learning_rate: Tensor, clipping: Tensor, decay: Tensor) -> None:
        gradient = torch.stack([weight.grad.flatten(1) for weight in self.weights]).float() * clipping
        self.momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(self.momentum, MOMENTUM)
        rows, columns = direction.shape[1:]
        direction = orthogonal(direction.mT).mT if rows > columns else orthogonal(direction)
        length = learning_rate * ADAMW_RMS * max(rows, columns) ** 0.5
        self.master.mul_(1 - learning_rate * self.weight_decay).sub_(direction.float() * length)
        self.average.lerp_(self.master, 1 - decay)
        self.write(self.master)

    def write(self, values: Tensor) -> None:
        """Give the weights these values, (N, R, C)."""
        torch._foreach_copy_(self.weights, list(map(Tensor.view_as, values.unbind(), self.weights)))

    def averages(self) -> list[Tensor]:
        return list(map(Tensor.view_as, self.average.unbind(), self.weights))


class Others:
    """All other parameters, end to end in one vector, updated by AdamW."""

    def __init__(self, weights: Sequence[nn.Parameter], weight_decay: float) -> None:
        self.weights, self.weight_decay = list(weights), weight_decay
        self.master = torch.cat([weight.detach().float().flatten() for weight in weights])
        self.average = self.master.clone()
        self.first, self.second = torch.zeros_like(self.master), torch.zeros_like(self.master)  # moments
        self.steps = self.master.new_zeros(())

    def reset(self) -> None:
        """Begin anew, with the weights as they are."""
        for state in (self.first, self.second, self.steps):
            state.zero_()

    def update(self, learning_rate: Tensor, clipping: Tensor, decay: Tensor) -> None:
        gradient = torch.cat([weight.grad.float().flatten() for weight in self.weights]) * clipping
        self.steps += 1
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient**2, 1 - BETAS[1])
        first, second = self.first / (1 - BETAS[0] ** self.steps), self.second / (1 - BETAS[1] ** self.steps)
        self.master.mul_(1 - learning_rate * self.weight_decay).sub_(
            learning_rate * first / (second.sqrt() + 1e-8)
        )
        self.average.lerp_(self.master, 1 - decay)
        self.write(self.master)

    def write(self, values: Tensor) -> None:
        """Give the parameters these values, all in one vector."""
        torch._foreach_copy_(self.weights, self._apart(values))

    def averages(self) -> list[Tensor]:
        return self._apart(self.average)

    def _apart(self, values: Tensor) -> list[Tensor]:
        parts = values.split([weight.numel() for weight in self.weights])
        return list(map(Tensor.view_as, parts, self.weights))


class CapturedStep:
    """Loss, gradients, update and exponential average as one CUDA graph; without a GPU, one after the other.

    The parameters may lie in bfloat16: what is updated are float32 master copies. A batch is whatever tensors
    `loss` reads: put the next one into the same tensors before a step.
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
            self._group_parameters()
            return
        # Parameters remember the stream that they were first used on, and a graph must not reach beyond its
        # own: so all of it happens on one.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._group_parameters()
            for _ in range(WARM_UP):  # with a learning rate of 0
                self._train()
            for part in self.parts:
                part.reset()
        torch.cuda.current_stream().wait_stream(stream)
        self._clear_gradients()
        self.graph = torch.cuda.CUDAGraph()
        # "thread_local": the thread that pins batches may go on meanwhile
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self._train()

    def step(self, learning_rate: float) -> None:
        """One step with the batch that lies in the tensors. `loss` then holds what it was."""
        self.learning_rate.fill_(learning_rate)
        self.decay.fill_(min(self.longest_decay, (1 + self.steps) / (10 + self.steps)))
        if self.graph is None:
            self._train()
        else:
            self.graph.replay()
        self.steps += 1

    @torch.no_grad()
    def use_average(self, used: bool = True) -> None:
        """Give the parameters their averages, or what is trained again. A step does the latter, too."""
        for part in self.parts:
            part.write(part.average if used else part.master)

    def averages(self) -> dict[str, Tensor]:
        """Name -> float32, of every parameter."""
        found = {name: parameter.detach().float() for name, parameter in self.parameters.items()}
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for part in self.parts:
            for weight, average in zip(part.weights, part.averages(), strict=True):
                found[names[id(weight)]] = average
        return found

    def _group_parameters(self) -> None:
        """Find out which parameters have a gradient, and sort them by how they are updated."""
        self.compute().backward()
        shapes, others = defaultdict(list), []
        for parameter in self.parameters.values():
            if parameter.grad is None:
                continue
            if is_matrix(parameter):
                shapes[parameter.shape[0], parameter[0].numel()].append(parameter)
            else:
                others.append(parameter)
        groups = [(Matrices, weights) for weights in shapes.values()] + [(Others, others)] * bool(others)
        self.parts = [kind(weights, self.weight_decay) for kind, weights in groups]
        self._clear_gradients()

    def _clear_gradients(self) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None

    def _train(self) -> None:
        self._clear_gradients()
        loss = self.compute()
        loss.backward()
        with torch.no_grad():
            gradients = [weight.grad for part in self.parts for weight in part.weights]
            norm = torch.stack(torch._foreach_norm(gradients)).float().norm()
            clipping = (LARGEST_GRADIENT / (norm + 1e-6)).clamp(max=1)
            for part in self.parts:
                part.update(self.learning_rate, clipping, self.decay)
            self.loss.copy_(loss.detach())
