"""The work on a clip, shared by several processes.

All processes run the same sampler in step. At certain places there are tasks that do not need each other:
windows at the same step, frames that are drawn alone, pictures to be decoded. Each process does one of them,
and then all get the results of all. What is computed is the same as in one process, and so is the result.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn, TypeVar

import torch
from torch import Tensor, distributed

from ..errors import HelloMemeError

T = TypeVar("T")
DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
FINE, REFUSED, NO_MEMORY = range(3)
NOTHING = -1  # in the place of a dtype
MAX_DIMENSIONS = 6
ENDED = "Another process has ended before the work was done: look at its message, and start again."


class OtherError(HelloMemeError):
    """An error of another process."""


class Share:
    """The share of the only process: all of the work. `size`: how many tasks are worked on at once."""

    rank, size = 0, 1

    @property
    def in_order(self) -> Share:
        """A share for tasks that need each other."""
        return self

    def map(
        self, work: Callable[[T], Tensor], tasks: Iterable[T], passed: Callable[[T], object] | None = None
    ) -> Iterator[Tensor]:
        """Yields the result of each task in order; tasks are taken `size` at a time.

        passed: called, in order, with the tasks that another process does.
        """
        return map(work, tasks)

    def agreed(self, work: Callable[[], T]) -> T:
        """The result of what every process does for itself."""
        return work()


ALONE = Share()


class Team(Share):
    """The share of one of several processes, which are connected by `torch.distributed` with gloo.

    Results of other processes are on the CPU. An error of one process is raised in all of them.
    """

    def __init__(self, rank: int, processes: int, size: int | None = None):
        """rank: of this process, from 0. size: as many as there are processes if None."""
        self.rank, self.processes = rank, processes
        self.size = processes if size is None else size

    @property
    def in_order(self) -> Team:
        """The first process does all tasks, one by one, and the others get the results."""
        return Team(self.rank, self.processes, 1)

    def map(
        self, work: Callable[[T], Tensor], tasks: Iterable[T], passed: Callable[[T], object] | None = None
    ) -> Iterator[Tensor]:
        """As for one process; of each group of tasks the first is done by the first process, and so on."""
        tasks = iter(tasks)
        while group := list(itertools.islice(tasks, self.size)):
            own = None
            for place, task in enumerate(group):
                if place == self.rank:
                    own = self._done(functools.partial(work, task))
                elif passed is not None:
                    passed(task)
            yield from self.exchange(own)[: len(group)]

    def agreed(self, work: Callable[[], T]) -> T:
        """As for one process, but none goes on before all are done."""
        result = self._done(work)
        self.exchange(None)
        return result

    def _done(self, work: Callable[[], T]) -> T:
        """The result. Memory that runs out is told to the others, who then try again, too."""
        try:
            return work()
        except torch.OutOfMemoryError:
            self._round(NO_MEMORY, None)
            raise

    def exchange(self, own: Tensor | None) -> list[Tensor | None]:
        """What each process has, by rank. All processes must call it, or one of them `fail`.

        Raises OtherError if another process failed or has ended, and torch.OutOfMemoryError if its memory ran
        out.
        """
        return self._round(FINE, own)

    def fail(self, sentence: str) -> None:
        """Raises OtherError with this sentence in the other processes, at their next exchange."""
        self._round(REFUSED, torch.frombuffer(bytearray(sentence.encode()), dtype=torch.uint8))

    def _round(self, status: int, own: Tensor | None) -> list[Tensor | None]:
        """Every process tells its status and sends its tensor; if one has failed, only that one does."""
        shape = [] if own is None else [*own.shape]
        kind = NOTHING if own is None else DTYPES.index(own.dtype)
        told = torch.tensor([status, kind, len(shape), *shape, *[0] * (MAX_DIMENSIONS - len(shape))])
        heads = [torch.empty_like(told) for _ in range(self.processes)]
        try:
            distributed.all_gather(heads, told)
            heads = [head.tolist() for head in heads]
            failed = [rank for rank, head in enumerate(heads) if head[0] != FINE][:1]
            results = [
                self._sent(rank, own, *head[1:]) if rank in (failed or range(self.processes)) else None
                for rank, head in enumerate(heads)
            ]
        except RuntimeError as error:  # of gloo: the connection is closed
            raise OtherError(ENDED) from error
        if failed and status == FINE:
            _raise(heads[failed[0]][0], results[failed[0]])
        return results

    def _sent(self, rank: int, own: Tensor | None, kind: int, dimensions: int, *shape: int) -> Tensor | None:
        """The tensor that process `rank` sends, bit by bit."""
        if kind == NOTHING:
            return None
        result = own if rank == self.rank else torch.empty(shape[:dimensions], dtype=DTYPES[kind])
        sent = result.cpu().contiguous()
        distributed.broadcast(sent.view(-1).view(torch.uint8), rank)
        return result if rank == self.rank else sent


def _raise(status: int, sentence: Tensor | None) -> NoReturn:
    if status == NO_MEMORY:
        raise torch.OutOfMemoryError("The memory of another process ran out.")
    raise OtherError(bytes(sentence.tolist()).decode())
