"""Differences to the weights of a network, beside them: of the kinds of LoRA that PEFT does not load.

Each weight stays as it is; the layer sees it with the differences that are active, each times its strength.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Differences(nn.Module):
    """What is added to one weight, by the name of the file that it is from."""

    def __init__(self):
        super().__init__()
        self.strengths: Mapping[str, float] = {}
        self.is_on = True

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the differences that are active."""
        for name, strength in self.strengths.items():
            if self.is_on and strength and name in self._buffers:
                weight = torch.add(weight, self._buffers[name], alpha=strength)
        return weight


def add_difference(layer: nn.Module, parameter: str, name: str, difference: Tensor) -> None:
    """Puts a difference beside the "weight" or "bias" of a layer; it is not yet active."""
    if (found := _found(layer, parameter)) is None:
        found = Differences()
        parametrize.register_parametrization(layer, parameter, found, unsafe=True)
    own = layer.parametrizations[parameter].original
    found.register_buffer(name, difference.to(own.device, own.dtype), persistent=False)


def original(layer: nn.Module, parameter: str) -> Tensor:
    """The "weight" or "bias" of a layer without any difference."""
    has = _found(layer, parameter) is not None
    return layer.parametrizations[parameter].original if has else getattr(layer, parameter)


def names_of(network: nn.Module) -> list[str]:
    """The names of the files whose differences a network has, in the order in which they came."""
    return list(dict.fromkeys(name for _, _, found in _all(network) for name in found._buffers))


def activate_differences(network: nn.Module, strengths: Mapping[str, float]) -> None:
    """Makes the differences with these names active, each with its strength, and no others."""
    for _, _, found in _all(network):
        found.strengths = dict(strengths)


def remove_differences(network: nn.Module, names: Iterable[str]) -> None:
    """Removes differences; a layer without any is as it was before."""
    names = set(names)
    for layer, parameter, found in list(_all(network)):
        for name in names & set(found._buffers):
            delattr(found, name)
        if not found._buffers:
            parametrize.remove_parametrizations(layer, parameter, leave_parametrized=False)


@contextlib.contextmanager
def without_differences(network: nn.Module) -> Iterator[None]:
    """The network as it is without any, for a while."""
    found = [one for _, _, one in _all(network)]
    for one in found:
        one.is_on = False
    try:
        yield
    finally:
        for one in found:
            one.is_on = True


def _found(layer: nn.Module, parameter: str) -> Differences | None:
    return layer.parametrizations[parameter][0] if parametrize.is_parametrized(layer, parameter) else None


def _all(network: nn.Module) -> Iterator[tuple[nn.Module, str, Differences]]:
    for layer in network.modules():
        if parametrize.is_parametrized(layer):
            for parameter in layer.parametrizations:
                yield layer, parameter, layer.parametrizations[parameter][0]
