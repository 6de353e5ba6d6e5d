"""Atomic file writes, and the check of an output path before work begins."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from ..errors import HelloMemeError


@contextlib.contextmanager
def atomic_write(path: str | Path, name: str, overwrite: bool = True) -> Iterator[Path]:
    """Yields the path of an empty temporary file in the same folder. It replaces `path` when the block ends
    without an error, and is removed otherwise.

    name: what error messages call the file ("motion file"). Raises HelloMemeError where writing fails
    ("No space left on device"), or if the file exists and `overwrite` is False.
    """
    path = Path(path)
    prefix = f".{path.name[:40]}-"
    draft = None
    try:
        remove_stale(path.parent, prefix)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f"{prefix}{os.getpid()}-", suffix=".part")
        os.close(handle)
        yield Path(draft)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(draft, 0o666 & ~umask)  # mkstemp's own mode would hide the file from other users
        if not overwrite and os.path.lexists(path):
            raise HelloMemeError(f"The {name} {path} exists: choose another name.")
        os.replace(draft, path)
    except OSError as error:
        raise HelloMemeError(f"The {name} {path} could not be written: {error.strerror or error}.") from error
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)


def remove_stale(folder: Path, prefix: str) -> None:
    """Removes temporary files and folders of processes that no longer run: names that begin with `prefix`, a
    process id and a hyphen."""
    for entry in os.scandir(folder):
        found = re.match(re.escape(prefix) + r"(\d+)-", entry.name)
        if found and not psutil.pid_exists(int(found[1])):
            with contextlib.suppress(OSError):  # another user's, or removed meanwhile
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)


def check_output(
    path: str | Path, formats: Sequence[str], inputs: Iterable[str | Path] = (), overwrite: bool = True
) -> Path:
    """The path of a file that may be written; HelloMemeError, before any work, for one that may not.

    formats: the endings that its name may have, in lower case. inputs: files that are never overwritten.
    """
    path = Path(path)
    check_suffix(path, formats)
    if path.is_dir():
        raise HelloMemeError(f"The output {path} is a folder: give the name of a file.")
    if not path.parent.is_dir():
        raise HelloMemeError(f"The folder {path.parent} for the output does not exist: make it first.")
    if not os.access(path.parent, os.W_OK):
        raise HelloMemeError(f"The folder {path.parent} for the output cannot be written to: choose another.")
    if path.exists():
        if any(os.path.exists(other) and os.path.samefile(path, other) for other in inputs):
            raise HelloMemeError(f"The output {path} is one of the input files: choose another name.")
        if not overwrite:
            raise HelloMemeError(f"The output {path} exists: choose another name or add --overwrite.")
    return path


def check_suffix(path: str | Path, formats: Sequence[str]) -> None:
    """HelloMemeError unless the name ends in one of the formats."""
    if Path(path).suffix.lower() not in formats:
        one_of = "one of " if len(formats) > 1 else ""
        raise HelloMemeError(f"The output {path} must end in {one_of}{', '.join(formats)}.")
