"""Drawing on Hugging Face Spaces: how long a run may hold the GPU, which is lent by the second there.

Elsewhere, `gpu` leaves functions as they are and nothing is refused.
"""

from __future__ import annotations

try:
    import spaces  # before anything that touches CUDA
except ImportError:
    spaces = None

import os
from collections.abc import Callable

from hellomeme.errors import HelloMemeError

ON_SPACES = spaces is not None and os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
LONGEST = 80  # s: the card counts half as much again, and a visitor who is not logged in has 120 s a day
START = 8.0  # s: the process that gets the card, and the weights on their way to it
# s for one prediction of one frame at 512 px without guidance: half of 28 ms with guidance, which an H100
# needs for SD1.5 with one control net, and again as much to be on the safe side.
PREDICTION = 0.028


def seconds(predictions: int, guidance: float, size: int) -> int:
    """GPU time to ask for: `predictions` counts frames times steps, `size` is the side of the pictures in
    px."""
    passes = 2 if guidance > 1 else 1
    return round(START + predictions * passes * PREDICTION * (size / 512) ** 2)


def check(needed: int, what_to_lower: str) -> None:
    """Raises HelloMemeError, which says what to lower, where a run of `needed` seconds is longer than Spaces
    allow."""
    if ON_SPACES and needed > LONGEST:
        raise HelloMemeError(
            f"This would hold the GPU for about {needed} seconds, and {LONGEST} is the most here: "
            f"lower {what_to_lower}."
        )


def gpu(duration: Callable[..., int]) -> Callable:
    """Marks a function that needs the GPU. duration: has its arguments, and gives the seconds that it will
    take."""
    if spaces is None:
        return lambda function: function
    return spaces.GPU(duration=lambda *args, **kwargs: min(duration(*args, **kwargs), LONGEST))
