"""A network that is one .safetensors file: where it is."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import HelloMemeError
from .hub import Progress, as_path, fetch
from .styles import split_repository
from .tensors import check_weights


def find_file(source: str | Path, progress: Progress | None = None, what: str = "file") -> Path:
    """The file of a source, checked to be safetensors; it is downloaded unless it is here.

    source: a .safetensors file, a folder or hub id with one, or "hub id/file". what: names it in errors.
    Raises HelloMemeError where there is no such file, or several.
    """
    path = as_path(source)
    if not os.path.isfile(path):
        repository, name = split_repository(str(source))
        folder = fetch(repository, (name or "*.safetensors",), progress)
        files = [folder / name] if name else sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            raise HelloMemeError(
                f"{source} holds {len(files)} .safetensors files: name the one {what} to use."
            )
        path = files[0]
    check_weights(path)
    return path
