"""Reads networks from folders.

Only safetensors are opened. What is missing, damaged, pickled or of another kind of model raises
`HelloMemeError` with one sentence.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import HALF_WEIGHTS, PICKLES, WEIGHTS, download_again
from .tensors import Facts, check_weights, facts_of, read

if TYPE_CHECKING:
    import torch
    from diffusers import SchedulerMixin

MAX_CONFIG_VALUE = 1 << 16  # for any number in a config.json; the largest real one is vocab_size, 49,408
TEXT_MODEL = "text_model."  # before the names of a text encoder's tensors, in some files
OLD_NAMES = (  # in attentions, in files of older versions of diffusers
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.proj_attn\.", ".to_out.0."),
)
# Tensors that text encoders are often saved with and that no picture depends on
HARMLESS = re.compile(r"position_ids$|text_projection|logit_scale|^vision_model\.|^visual_projection\.")
log = logging.getLogger(__name__)


def read_config(folder: Path, name: str = "config.json") -> dict:
    """The JSON of a model folder."""
    path = folder / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")
        return config
    except FileNotFoundError as error:
        why = f"The model folder {folder} has no {name}: download it again, or check the path."
        raise HelloMemeError(why) from error
    except (OSError, ValueError, RecursionError) as error:
        raise HelloMemeError(f"{path} is damaged: {download_again(path)}.") from error


def load_module(kind: type, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A network of class `kind` (of diffusers, transformers or ours), for inference, from its folder.

    Every tensor of the network must be in the file, and files of our own networks must have no extra tensors:
    a wrong class or version would otherwise pass unnoticed as random weights. NaN and infinity are refused.
    """
    _check_sizes(folder)
    found = [folder / name for name in WEIGHTS + HALF_WEIGHTS if (folder / name).is_file()]
    if not found:
        pickled = any(path.suffix in PICKLES for path in folder.iterdir())
        why = "only pickled weights, which are never opened" if pickled else f"no {WEIGHTS[0]}"
        raise HelloMemeError(f"The model folder {folder} has {why}: get it with safetensors weights.")
    path = found[0]
    check_weights(path)
    network = empty(kind, folder)
    _check_numbers(network, folder)
    facts = facts_of(path)
    sources, missing, left = matched(network, facts)
    if wrong := [*missing, *(left if _is_ours(kind) else ())]:
        raise HelloMemeError(
            f"The weights in {folder} are not those of {kind.__name__}: {len(wrong)} tensors differ, "
            f"{wrong[0]} is one."
        )
    if other := other_shape(network, facts, sources):
        raise HelloMemeError(
            f"The weights in {folder} do not fit its config.json for {kind.__name__}: {other}."
        )
    report_left_over(folder, kind, left)
    return fill(network, path, sources, dtype)


def empty(kind: type, folder: Path) -> torch.nn.Module:
    """The network that a folder's config.json describes, without values: its parameters take no memory.

    Raises HelloMemeError for a config.json that asks for what cannot be.
    """
    from accelerate import init_empty_weights

    try:
        if hasattr(kind, "config_class"):  # of transformers
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            with init_empty_weights():
                return kind(config)
        config = dict(kind.load_config(folder, local_files_only=True))
        config |= kind.sizes_in(folder) if hasattr(kind, "sizes_in") else {}
        with init_empty_weights():
            return kind.from_config(config)
    except Exception as error:  # what a config.json asks for can go wrong in any way
        why = f"The weights in {folder} do not fit its config.json for {kind.__name__}: {reason(error)}"
        raise HelloMemeError(why) from error


def matched(network: torch.nn.Module, names: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """What of a network is in a file that has tensors with these names, older names included.

    Returns tensor of the network -> its name in the file, the tensors that the file lacks, and the names in
    it that the network has no place for.
    """
    needed, sources, left = list(network.state_dict()), {}, []
    places = set(needed)
    for name in names:
        new = name
        for old, now in OLD_NAMES:
            new = new if new in places else re.sub(old, now, new)
        if new not in places:
            short = new.removeprefix(TEXT_MODEL)
            new = short if short != new else TEXT_MODEL + new
        if new in places and new not in sources:
            sources[new] = name
        elif not HARMLESS.search(name):
            left.append(name)
    return sources, [name for name in needed if name not in sources], left


def other_shape(
    network: torch.nn.Module, facts: Mapping[str, Facts], sources: Mapping[str, str]
) -> str | None:
    """The end of a sentence about the first tensor whose shape or kind is not the network's; None if none."""
    for name, own in network.state_dict().items():
        shape, kind = facts[sources[name]]
        # A linear layer may be stored as a convolution of 1 x 1, and the other way round
        if [side for side in shape if side != 1] != [side for side in own.shape if side != 1]:
            sizes = (" x ".join(map(str, sides)) or "a number" for sides in (shape, own.shape))
            return "{} is {} instead of {}".format(name, *sizes)
        if own.is_floating_point() and "F" not in kind:
            return f"{name} holds whole numbers"
    return None


def fill(
    network: torch.nn.Module, path: Path, sources: Mapping[str, str], dtype: torch.dtype
) -> torch.nn.Module:
    """Gives a network from `empty` its values, and makes it ready for inference.

    sources: tensor of the network -> its name in the file, from `matched`, all of the right size. Raises
    HelloMemeError for values that are not numbers.
    """
    shapes = {name: own.shape for name, own in network.state_dict().items()}
    receivers = {source: name for name, source in sources.items()}
    values = {
        receivers[source]: tensor.reshape(shapes[receivers[source]])
        for source, tensor in read(path, receivers, dtype)
    }
    network.load_state_dict(values, assign=True)
    for module in network.modules():  # what is not in files was made with the network, in float32
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.to(dtype))
    return network.eval().requires_grad_(False)


def report_left_over(source: Path, kind: type, names: Sequence[str]) -> None:
    """Logs which tensors of a file a network has no place for."""
    if names:
        log.warning(
            "%s: %d tensors are not of %s and were left out, %s is one.",
            source,
            len(names),
            kind.__name__,
            names[0],
        )


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] == __package__.split(".")[0]


def _check_numbers(network: torch.nn.Module, folder: Path) -> None:
    """Refuse a config.json that gives one of our networks a size of 0 or less."""
    if not _is_ours(type(network)):
        return
    for name, fact in inspect.signature(type(network)).parameters.items():
        if type(fact.default) in (int, float) and not _is_positive(value := network.config[name]):
            config = folder / "config.json"
            raise HelloMemeError(
                f"{config} is damaged, it asks for {name} {value}: {download_again(config)}."
            )


def _check_sizes(folder: Path) -> None:
    """Refuse a config.json that asks for networks of absurd size, before memory is taken for them."""
    for name, value in read_config(folder).items():
        numbers = value if isinstance(value, list) else [value]
        if any(type(number) in (int, float) and number > MAX_CONFIG_VALUE for number in numbers):
            raise HelloMemeError(
                f"{folder / 'config.json'} is damaged, its {name} is too large: "
                f"{download_again(folder / 'config.json')}."
            )


def _is_positive(value) -> bool:
    return type(value) in (int, float) and value > 0


def load_scheduler(folder: Path) -> SchedulerMixin:
    """The scheduler that a folder's scheduler_config.json names, with its settings."""
    import diffusers

    config = read_config(folder, "scheduler_config.json")
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise HelloMemeError(f"{folder} names no scheduler of diffusers: {config.get('_class_name')}.")
    try:
        return kind.from_config(config)
    except Exception as error:
        why = f"The scheduler_config.json in {folder} does not fit {kind.__name__}: {reason(error)}"
        raise HelloMemeError(why) from error


def reason(error: Exception) -> str:
    """The first line of a library's message, as the end of a sentence."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200].rstrip(".") + "."
