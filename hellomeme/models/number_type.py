"""The number type of a network, without the search of all its layers that diffusers makes for it."""

import torch
from torch import nn


def number_type(network: nn.Module) -> torch.dtype:
    """The type in which a network calculates: that of its first parameter.

    The property `dtype` of diffusers asks every layer first whether it calculates in another type than it is
    stored in. In a small network that takes longer than a layer.
    """
    return next(network.parameters()).dtype
