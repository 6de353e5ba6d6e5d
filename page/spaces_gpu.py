"""ZeroGPU of Hugging Face Spaces, which lends a GPU to one function call for a number of seconds.

Elsewhere, `gpu` returns functions unchanged and no duration is refused.
"""

from __future__ import annotations

try:
    import spaces  # before anything that touches CUDA
except ImportError:
    spaces = None

import functools
import os
from collections.abc import Callable

from hellomeme.errors import HelloMemeError

ON_SPACES = spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
PAGE_PROCESS = os.getpid()
# s: Spaces charge one and a half times the duration, and a visitor who is not logged in has 120 s a day.
MAX_DURATION = 80
STARTUP = 8.0  # s: starting the process that gets the GPU, and moving the weights to it
LOADING = 15  # s: reading another base model and LoRA from the disk, not measured on Spaces
# s for one prediction of one frame of 512 px without guidance: an H100 needs 28 ms with guidance for SD1.5
# with one control net, so 14 ms without; doubled as a margin.
PREDICTION = 0.028


def duration(predictions: int, guidance: float, size: int) -> int:
    """Seconds of GPU time to ask for. predictions: frames times steps. size: side of the pictures in px."""
    passes = 2 if guidance > 1 else 1
    return round(STARTUP + predictions * passes * PREDICTION * (size / 512) ** 2)


def check_duration(seconds: int, what_to_lower: str) -> None:
    """Raises HelloMemeError on Spaces if a call of so many seconds would be refused."""
    if ON_SPACES and seconds > MAX_DURATION:
        raise HelloMemeError(
            f"This would hold the GPU for about {seconds} seconds, and {MAX_DURATION} is the most here: "
            f"lower {what_to_lower}."
        )


def has_gpu() -> bool:
    """Whether this process may use a GPU, if there is one: on Spaces only those that are forked for it."""
    return not ON_SPACES or os.getpid() != PAGE_PROCESS


def gpu(duration: Callable[..., int]) -> Callable:
    """Decorator for a function that needs the GPU. duration: takes the function's arguments and returns the
    seconds of the call."""

    def decorate(function: Callable) -> Callable:
        if not ON_SPACES:
            return function

        @functools.wraps(function)
        def in_fork(*args, **kwargs):
            import torch

            torch.set_num_threads(
                1
            )  # the threads of the page's process are not there, and would be waited for
            return function(*args, **kwargs)

        return spaces.GPU(duration=lambda *args, **kwargs: min(duration(*args, **kwargs), MAX_DURATION))(
            in_fork
        )

    return decorate
