"""Where the networks of a pipeline are: all on one device, or on the GPU only while they work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def size_of(network: nn.Module) -> int:
    """Bytes of its weights and buffers."""
    return sum(tensor.nbytes for part in (network.parameters(), network.buffers()) for tensor in part)


class Placement:
    """Keeps the weights of networks on a device while they work, and else in the memory of the computer.

    Those that worked last stay as long as there is room.
    """

    def __init__(self, device: torch.device, room: int, there: Iterable[nn.Module] = ()):
        """room: bytes of weights that may be on the device at a time; what works together may take more.
        there: networks that are on the device now."""
        self.device, self.room = device, room
        self.there = {id(network): network for network in there}  # those used last are last
        self.bring()

    def bring(self, *networks: nn.Module) -> None:
        """Moves networks that are to work together to the device, and others away to make room. Where that
        fails for one of them, none of those that were moved stays there."""
        new = [network for network in networks if id(network) not in self.there]
        for network in networks:
            self.there.pop(id(network), None)
        taken = sum(map(size_of, networks))
        while self.there and taken + sum(map(size_of, self.there.values())) > self.room:
            move(self.there.pop(next(iter(self.there))), "cpu")
        self.there |= {id(network): network for network in networks if network not in new}
        try:
            for network in new:
                move(network, self.device)
        except RuntimeError:
            for network in new:
                move(network, "cpu")
            raise
        self.there |= {id(network): network for network in new}

    def clear(self) -> None:
        """Moves all networks away."""
        while self.there:
            move(self.there.popitem()[1], "cpu")


def move(network: nn.Module, device: torch.device | str) -> None:
    """Moves the weights of a network."""
    from .models.layout import use_fastest_layout

    use_fastest_layout(network.to(device))


class Placed:
    """The part of `HelloMemePipeline` that knows where its networks are.

    placement: None where all are on one device. memory: the choice, see `memory_choice.place`. compiled:
    whether torch compiles them, see `acceleration.accelerate`.
    """

    placement: Placement | None = None
    memory: str = "auto"
    compiled: bool = False

    @property
    def low_memory(self) -> bool:
        """Whether everything is drawn in small portions."""
        return self.memory == "least"

    @property
    def running_device(self) -> torch.device:
        """Where its networks work."""
        return self.unet.device if self.placement is None else self.placement.device

    @property
    def loading_device(self) -> torch.device | str:
        """Where networks are put that are added to it."""
        return self.unet.device if self.placement is None else "cpu"

    def bring(self, *networks: nn.Module | None) -> None:
        """Makes sure that these are where they work; to be called before they do."""
        if self.placement is not None:
            self.placement.bring(*filter(None, networks))
