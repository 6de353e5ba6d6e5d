"""Reads networks from folders.

Only safetensors are opened. What is missing, damaged, pickled or of another kind of model raises
`HelloMemeError` with one sentence.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from .hub import HALF_WEIGHTS, PICKLES, WEIGHTS, download_again

if TYPE_CHECKING:
    import torch
    from diffusers import SchedulerMixin

MAX_CONFIG_VALUE = 1 << 16  # for any number in a config.json; the largest real one is vocab_size, 49,408


def check_weights(path: Path) -> None:
    """Refuse, with a sentence, a file that is not safetensors from beginning to end."""
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() in PICKLES:
        raise HelloMemeError(
            f"{path.name} is a pickle, which can run code when opened: use its .safetensors version."
        )
    try:
        start = path.open("rb").read(4)
        if start[:1] == b"\x80" or start[:2] == b"PK":
            raise HelloMemeError(
                f"{path.name} is a pickle under a safetensors name and was not opened: "
                "get it from its author again."
            )
        with safe_open(path, "np"):
            pass
    except (OSError, SafetensorError) as error:
        raise HelloMemeError(
            f"The weights {path} are damaged or incomplete: {download_again(path, 'them')}."
        ) from error


def check_values(path: Path) -> None:
    """Refuse weights that are NaN or infinite: pictures would come out black."""
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if not all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys()):
            raise HelloMemeError(
                f"{path.name} holds values that are not numbers: get it from its author again."
            )


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
    a wrong class or version would otherwise pass unnoticed as random weights.
    """
    _check_sizes(folder)
    found = [folder / name for name in WEIGHTS + HALF_WEIGHTS if (folder / name).is_file()]
    if not found:
        pickled = any(path.suffix in PICKLES for path in folder.iterdir())
        why = "only pickled weights, which are never opened" if pickled else f"no {WEIGHTS[0]}"
        raise HelloMemeError(f"The model folder {folder} has {why}: get it with safetensors weights.")
    check_weights(found[0])
    try:
        network, report = kind.from_pretrained(
            folder,
            torch_dtype=dtype,
            use_safetensors=True,
            variant="fp16" if found[0].name in HALF_WEIGHTS else None,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # what a config.json asks for can go wrong in any way
        why = f"The weights in {folder} do not fit its config.json for {kind.__name__}: {reason(error)}"
        raise HelloMemeError(why) from error
    ours = kind.__module__.split(".")[0] == __package__.split(".")[0]
    wrong = [
        *report["missing_keys"],
        *report.get("mismatched_keys", ()),
        *(report["unexpected_keys"] if ours else ()),
    ]
    numbers = [
        name
        for name, fact in inspect.signature(kind).parameters.items()
        if ours and type(fact.default) in (int, float)
    ]
    for name in numbers:
        if not _is_positive(value := network.config[name]):
            config = folder / "config.json"
            raise HelloMemeError(
                f"{config} is damaged, it asks for {name} {value}: {download_again(config)}."
            )
    if wrong:
        raise HelloMemeError(
            f"The weights in {folder} are not those of {kind.__name__}: {len(wrong)} tensors differ, "
            f"{wrong[0]} is one."
        )
    return network.eval().requires_grad_(False)


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
