"""How the weights of a network lie in memory."""

import torch
from torch import nn


def use_fastest_layout(network: nn.Module) -> None:
    """Lets the channels lie last where that makes convolutions faster: in bfloat16 on a CPU.

    The weights keep their values and shapes. Maps take the layout over from the first convolution.
    """
    weight = next(network.parameters(), None)
    if weight is not None and weight.device.type == "cpu" and weight.dtype == torch.bfloat16:
        network.to(memory_format=torch.channels_last)
