"""Reads .safetensors files: what is in them, whether it is sound, and one tensor after the other.

A file is mapped into memory while it is open. Where its numbers are of the type that is used, tensors are
those in the file: they are read once, and the computer may drop and read them again. Others are converted in
portions, and the file is closed between them, as what has been read counts as memory of the process, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import HelloMemeError
from .hub import PICKLES, download_again

if TYPE_CHECKING:
    import torch

PORTION = 1 << 25  # bytes
NOT_NUMBERS = "{} holds values that are not numbers: get it from its author again."


class Facts(NamedTuple):
    """What a file says of a tensor. kind: F32, F16, BF16, F8_E4M3, I64, ..."""

    shape: tuple[int, ...]
    kind: str


def check_weights(path: Path) -> None:
    """Refuse, with a sentence, a file that is not safetensors from beginning to end."""
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() in PICKLES:
        raise HelloMemeError(
            f"{path.name} is a pickle, which can run code when opened: use its .safetensors version."
        )
    try:
        with safe_open(path, "np"):
            return
    except (OSError, SafetensorError) as error:
        # Only of a file that is not safetensors: the length of a header, too, may begin like that
        if _begins_like_a_pickle(path):
            raise HelloMemeError(
                f"{path.name} is a pickle under a safetensors name and was not opened: "
                "get it from its author again."
            ) from error
        raise HelloMemeError(
            f"The weights {path} are damaged or incomplete: {download_again(path, 'them')}."
        ) from error


def _begins_like_a_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return False
    return start[:1] == b"\x80" or start == b"PK"  # a pickle, or torch.save's zip archive


def facts_of(path: Path) -> dict[str, Facts]:
    """The shapes and kinds of a file's tensors by name."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}
        return {name: Facts(tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()}


def metadata_of(path: Path) -> dict[str, str]:
    """The texts that a file's author has put into its header."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return file.metadata() or {}


def check_values(path: Path) -> None:
    """Refuse weights that are NaN or infinite, in any type of float: pictures would come out black."""
    for _ in read(path, facts_of(path)):
        pass


def read(
    path: Path, names: Iterable[str], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (name, tensor) of the tensors with these names.

    dtype: that floats are converted to; None leaves them. Tensors that need not be converted share the file's
    memory: it must not be overwritten while they are used. Raises HelloMemeError for values that are NaN or
    infinite, or that `dtype` cannot hold.
    """
    from safetensors import safe_open

    known = facts_of(path)
    for portion in _portions({name: known[name] for name in names}):
        with safe_open(path, "pt") as file:
            tensors = {name: _tensor(path, name, file, known[name], dtype) for name in portion}
        while tensors:  # none is held longer than its receiver holds it
            name = next(iter(tensors))
            yield name, tensors.pop(name)


def _portions(facts: Mapping[str, Facts]) -> Iterator[list[str]]:
    portion, size = [], 0
    for name, (shape, _) in facts.items():
        portion.append(name)
        size += 4 * math.prod(shape)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _tensor(path: Path, name: str, file, facts: Facts, dtype: torch.dtype | None) -> torch.Tensor:
    """A tensor of an open file, converted some rows at a time where it must be."""
    import torch

    try:
        stored = file.get_tensor(name)
        if not stored.is_floating_point():
            return stored
        if dtype in (None, stored.dtype):
            _check(path, name, stored, stored)
            return stored
        converted = torch.empty(stored.shape, dtype=dtype)
        rows = max(1, PORTION // (4 * max(1, math.prod(facts.shape[1:]))))
        for own, new in zip(stored.split(rows), converted.split(rows), strict=True) if facts.shape else ():
            _check(path, name, new.copy_(own), own)
        if not facts.shape:
            _check(path, name, converted.copy_(stored), stored)
        return converted
    except (ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, HelloMemeError):
            raise
        raise HelloMemeError(
            f"{path.name} has numbers of a kind that cannot be read here ({facts.kind}): "
            "get a version in 16-bit or 32-bit floats."
        ) from error


def _check(path: Path, name: str, values: torch.Tensor, stored: torch.Tensor) -> None:
    """Refuse values that are not finite. stored: the same in the file's own type."""
    import torch

    # Floats of 8 bits have no arithmetic of their own
    values = values if values.element_size() > 1 else values.to(torch.float16)
    if not values.numel() or all(math.isfinite(end.item()) for end in torch.aminmax(values)):
        return
    if torch.isfinite(stored.float()).all():
        kind = str(values.dtype).removeprefix("torch.")
        raise HelloMemeError(
            f"{path.name} holds values beyond the range of {kind} ({name} is one): use --device cpu, or a "
            "version in half precision."
        )
    raise HelloMemeError(NOT_NUMBERS.format(path.name))
