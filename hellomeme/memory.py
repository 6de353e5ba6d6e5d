"""A second attempt with less memory when that of the GPU runs out.

>>> for low_memory in attempts():
...     with suppress(torch.OutOfMemoryError):
...         return draw(low_memory)
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

from diffusers.utils.torch_utils import empty_device_cache

from .errors import NoMemoryError

SENTENCE = (
    "The memory of the GPU does not suffice, not even in small portions: close other programs that use it, "
    "or start with --device cpu."
)
log = logging.getLogger(__name__)


def attempts() -> Iterator[bool]:
    """Whether to use less memory: False first, then True. Leave the loop when the work is done.

    Raises NoMemoryError when a third attempt would be needed.
    """
    yield False
    empty_caches()
    log.warning("The memory of the GPU ran out: trying once more in smaller portions.")
    yield True
    empty_caches()
    raise NoMemoryError(SENTENCE)


def empty_caches() -> None:
    """Return unused memory to the device. Call it after the error has been handled: until then its traceback
    holds the tensors of the run that failed."""
    gc.collect()
    empty_device_cache()
