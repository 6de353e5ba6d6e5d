"""Work in a second thread, beside what makes its input."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T, U = TypeVar("T"), TypeVar("U")

MOST_WAITING = 12  # items


def map_beside(work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yields `work(item)` for each item in order: while items are made here, another thread works on those
    before, of which a few may wait. That thread has ended when this iterator is exhausted, is closed, or
    raises an error."""
    waiting: deque[Future[U]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="hellomeme-beside") as thread:
        try:
            for item in items:
                waiting.append(thread.submit(work, item))
                while waiting and (waiting[0].done() or len(waiting) > MOST_WAITING):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            thread.shutdown(cancel_futures=True)
