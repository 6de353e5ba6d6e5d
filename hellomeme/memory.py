"""When the memory of the GPU runs out: the caches are emptied and the work is done once more in smaller
portions.

>>> for sparing in attempts():
...     with suppress(torch.OutOfMemoryError):
...         return draw(sparing)
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

from diffusers.utils.torch_utils import empty_device_cache

from .errors import NoMemoryError

SENTENCE = (
    "The memory of the GPU does not suffice, not even in small portions: close other programs that use it, "
    "or "
    "start with --device cpu."
)
log = logging.getLogger(__name__)


def attempts() -> Iterator[bool]:
    """Whether to spare memory: False first, then True. Leave the loop when the work is done.

    Raises NoMemoryError where a third attempt is asked for.
    """
    yield False
    empty_caches()
    log.warning("The memory of the GPU ran out: trying once more in smaller portions.")
    yield True
    empty_caches()
    raise NoMemoryError(SENTENCE)


def empty_caches() -> None:
    """Gives back to the device what no tensor uses any more. To be called where the error is not being
    handled any more: until then its traceback holds the tensors of the run that failed."""
    gc.collect()
    empty_device_cache()
