"""Work shared by several processes, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from ..errors import HelloMemeError

T = TypeVar("T")


def place() -> tuple[int, int]:
    """(rank, number of processes); (0, 1) alone. Raises HelloMemeError where the two do not fit together."""
    try:
        rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if 0 <= rank < processes:
            return rank, processes
    except ValueError:
        pass
    raise HelloMemeError(
        "RANK and WORLD_SIZE in the environment do not fit together: unset them, or use accelerate launch."
    )


def own_gpu() -> str | None:
    """The GPU of this process, or None: alone, or without GPUs, the best device there is will do."""
    import torch

    return (
        f"cuda:{os.environ['LOCAL_RANK']}"
        if torch.cuda.is_available() and "LOCAL_RANK" in os.environ
        else None
    )


@contextmanager
def gathered(own: T, processes: int) -> Iterator[list[T]]:
    """Yields the outcomes of all processes, or only the own one if they are not connected.

    The processes wait for each other before and after: the launcher ends all of them when one of them fails.
    """
    if processes == 1 or "MASTER_ADDR" not in os.environ:
        yield [own]
        return
    from torch import distributed

    outcomes = [None] * processes
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        distributed.all_gather_object(outcomes, own)
        yield outcomes
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
