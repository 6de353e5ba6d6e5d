"""The runs in progress, and how a visitor stops them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from .gradio_patches import current_event
from .imports import import_networks

# The stop file of the run that the current thread works for.
_current_flag: ContextVar[str | None] = ContextVar("flag", default=None)
_replaceable: ContextVar[bool] = ContextVar("replaceable", default=False)


@contextlib.contextmanager
def replaceable_runs() -> Iterator[None]:
    """Runs that are started in this block give way to a later one, see `Runs.replace`."""
    token = _replaceable.set(True)
    try:
        yield
    finally:
        _replaceable.reset(token)


def is_replaceable() -> bool:
    """Whether the run that the current thread works for gives way to a later one."""
    return _replaceable.get()


class Runs:
    """The runs in progress, by the session of the visitor.

    A run is stopped by creating a file, its flag: on Spaces another process draws.
    """

    def __init__(self):
        self.flags: dict[str | None, Path] = {}
        self.replaceable: set[Path] = set()  # flags of runs that give way to a later one
        # Events that were stopped after they left the queue and before `start`
        self.stopped_events: set[str] = set()

    @contextlib.contextmanager
    def start(self, session: str | None) -> Iterator[str]:
        """Yields the path of the run's flag. `Stopped`, raised inside, ends the block without an error."""
        flag = Path(tempfile.gettempdir(), f"hellomeme-stop-{uuid.uuid4().hex}")
        self.flags[session] = flag
        if is_replaceable():
            self.replaceable.add(flag)
        _current_flag.set(str(flag))
        try:
            if (event := current_event()) in self.stopped_events:
                self.stopped_events.discard(event)
                flag.touch()
            import_networks()
            from hellomeme.sampling.image import Stopped

            with contextlib.suppress(Stopped):
                yield str(flag)
        finally:
            self.replaceable.discard(flag)
            flag.unlink(missing_ok=True)
            if self.flags.get(session) is flag:  # and not that of a later run
                del self.flags[session]

    def stop(self, session: str | None) -> bool:
        """Stops the run of a visitor at its next step. Returns whether there was one."""
        flag = self.flags.get(session)
        if flag is not None:
            flag.touch()
        return flag is not None

    def replace(self, session: str | None) -> None:
        """Stops the run of a visitor at its next step, if it is one that gives way to a later one."""
        flag = self.flags.get(session)
        if flag in self.replaceable:
            flag.touch()


def stop_check(flag: str, then: Callable | None = None) -> Callable:
    """A progress callback that calls `then` with its arguments, and raises `Stopped` if the flag exists."""
    from hellomeme.sampling.image import Stopped

    def progress(*done) -> None:
        if then is not None:
            then(*done)
        if os.path.exists(flag):
            raise Stopped

    return progress


def stop_check_here() -> None:
    """Raises `Stopped` if the run that the current thread works for is stopped."""
    if (flag := _current_flag.get()) is not None:
        stop_check(flag)()
