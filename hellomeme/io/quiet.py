"""Native code that logs to a file descriptor, whatever Python's own streams are set to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def silenced(descriptor: int) -> Iterator[int]:
    """Sends a file descriptor to the null device; yields a descriptor of where it went before."""
    kept, null = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, descriptor)
        yield kept
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(null)
