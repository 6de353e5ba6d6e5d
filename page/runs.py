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
    """The runs in progress. A visitor may have several: a clip is pasted back while a picture is drawn.

    A run is stopped by creating a file, its flag: on Spaces another process draws.
    """

    def __init__(self):
        self.flags: dict[Path, str | None] = {}  # flag -> the session of the visitor
        self.replaceable: set[Path] = set()  # flags of runs that give way to a later one
        # Events that were stopped after they left the queue and before `start`
        self.stopped_events: set[str] = set()

    @contextlib.contextmanager
    def start(self, session: str | None) -> Iterator[str]:
        """Yields the path of the run's flag. `Stopped`, raised inside, ends the block without an error."""
        flag = Path(tempfile.gettempdir(), f"hellomeme-stop-{uuid.uuid4().hex}")
        self.flags[flag] = session
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
            del self.flags[flag]
            flag.unlink(missing_ok=True)

    def stop(self, session: str | None) -> bool:
        """Stops the runs of a visitor at their next steps. Returns whether there was one."""
        flags = self._flags_of(session)
        for flag in flags:
            flag.touch()
        return bool(flags)

    def replace(self, session: str | None) -> None:
        """Stops those runs of a visitor that give way to a later one, at their next steps."""
        for flag in self.replaceable.intersection(self._flags_of(session)):
            flag.touch()

    def _flags_of(self, session: str | None) -> list[Path]:
        return [flag for flag, owner in list(self.flags.items()) if owner == session]


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
