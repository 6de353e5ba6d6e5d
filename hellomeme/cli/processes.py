"""Work shared by several processes, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeVar

from ..errors import HelloMemeError

if TYPE_CHECKING:
    from ..sampling.sharing import Team

TIMEOUT = timedelta(days=30)  # a process may draw for long while the others wait; one that ends is noticed
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
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    try:
        with _connected():
            distributed.all_gather_object(outcomes, own)
        yield outcomes
        with _connected():
            distributed.barrier()
    finally:
        distributed.destroy_process_group()


@contextmanager
def _connected() -> Iterator[None]:
    """An error of gloo is that of a process that has ended."""
    from ..sampling.sharing import ENDED

    try:
        yield
    except RuntimeError as error:
        raise HelloMemeError(ENDED) from error


@contextmanager
def joined(standard_error: TextIO) -> Iterator[Team | None]:
    """Yields the share of this process of work that all of them do together in the block; None for one alone.

    An error of one of them ends all: the first process prints it to `standard_error`, and then all exit.
    """
    rank, processes = place()
    if processes == 1:
        yield None
        return
    if "MASTER_ADDR" not in os.environ:
        raise HelloMemeError("The processes do not know of each other: start them with accelerate launch.")
    from torch import distributed

    from ..sampling.sharing import OtherError, Team

    distributed.init_process_group("gloo", timeout=TIMEOUT)
    team = Team(rank, processes)
    try:
        try:
            yield team
            team.exchange(None)
        except HelloMemeError as error:
            if not isinstance(error, OtherError):
                with suppress(OtherError):
                    team.fail(str(error))
            _end(rank, str(error), standard_error)
    except KeyboardInterrupt:
        if rank:
            raise SystemExit(130) from None  # without a word: the first process says it
        raise
    finally:
        distributed.destroy_process_group()


def _end(rank: int, sentence: str, standard_error: TextIO) -> NoReturn:
    """Exits with all other processes, after the first one has printed why."""
    from torch import distributed

    if rank == 0:
        print(f"hellomeme: {' '.join(sentence.split())}", file=standard_error, flush=True)
    with suppress(RuntimeError):  # together: the launcher ends all as soon as one of them has failed
        distributed.barrier()
    raise SystemExit(2)
