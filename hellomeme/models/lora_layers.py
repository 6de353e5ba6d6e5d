"""The LoRA in a network: which there are, which are active, and how they are removed.

In terms of PEFT, by which diffusers and transformers load them: each LoRA is an adapter with a name. Those
that PEFT does not load are `weight_differences`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from .weight_differences import activate_differences, names_of, remove_differences, without_differences


def adapters(network: nn.Module) -> list[str]:
    """The names of the adapters that are loaded."""
    return [*(getattr(network, "peft_config", None) or {}), *names_of(network)]


def _layers(network: nn.Module) -> list[str]:
    """Those that PEFT has loaded."""
    return list(getattr(network, "peft_config", None) or {})


def activate(network: nn.Module, strengths: Mapping[str, float]) -> None:
    """Makes those of the named adapters active that the network has, each with its strength."""
    from diffusers.utils import set_weights_and_activate_adapters

    network.lora_strengths = dict(strengths)
    activate_differences(network, strengths)
    if names := [name for name in strengths if name in _layers(network)]:
        set_weights_and_activate_adapters(network, names, [strengths[name] for name in names])


def reactivate(network: nn.Module) -> None:
    """Makes those active again that `activate` was called with last: loading another one changes that."""
    activate(network, getattr(network, "lora_strengths", {}))


def remove(network: nn.Module, names: Sequence[str]) -> None:
    """Removes adapters; with the last one, all layers that were added: the network is as it was before."""
    from diffusers.utils import delete_adapter_layers, recurse_remove_peft_layers

    remove_differences(network, names)
    left = [name for name in _layers(network) if name not in names]
    if left:
        for name in names:  # also those of which a failed load has left only some layers
            delete_adapter_layers(network, name)
            network.peft_config.pop(name, None)
        return
    recurse_remove_peft_layers(network)
    if hasattr(network, "peft_config"):
        del network.peft_config
        network._hf_peft_config_loaded = False


@contextlib.contextmanager
def without_loras(*networks: nn.Module) -> Iterator[None]:
    """The networks as they are without their LoRA, for a while."""
    from diffusers.utils import set_adapter_layers

    changed = [network for network in networks if _layers(network)]
    with contextlib.ExitStack() as stack:
        for network in changed:
            set_adapter_layers(network, enabled=False)
            stack.callback(set_adapter_layers, network, enabled=True)
        for network in networks:
            stack.enter_context(without_differences(network))
        yield
