"""What the page keeps of the visitors whose cameras drive portraits."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hellomeme.errors import HelloMemeError

from .files import new_file

if TYPE_CHECKING:
    import numpy as np

    from hellomeme.io.metadata import Stamp
    from hellomeme.io.recording import Recorder
    from hellomeme.live import Live
    from hellomeme.portrait import ReferencePortrait

T = TypeVar("T")
MEASURED = 12  # pictures over which frames a second are counted
PAUSE = 2.0  # s without a picture, after which they are counted anew
LATE = 0.5  # s between two frames, after which the picture of the first is not shown any more
MOST = 64  # visitors who are remembered


class LiveSession:
    """One visitor's camera.

    live: follows the face, with the model chosen last. reference: the portrait that it moves, for `chosen`.
    """

    def __init__(self):
        self.lock = threading.Lock()  # the recording, which buttons and frames change
        self.live: Live | None = None
        self.reference: ReferencePortrait | None = None
        self.chosen: tuple | None = None
        self.recorder: Recorder | None = None
        self.is_running = False  # whether pictures come, which can be recorded
        self._shown: deque[float] = deque(maxlen=MEASURED)  # when the last pictures were drawn, s
        self._worker: ThreadPoolExecutor | None = None
        self._begun: tuple[float, Future] | None = None  # when the last drawing was begun, s; the drawing
        self._taken: Future | None = None  # the drawing that was returned last

    def draw(self, draw: Callable[[], T], now: float) -> T | None:
        """Begins to draw a frame in another thread, and returns what was drawn of the frame before: the
        browser sends the next frame, and its face is read, while this one is drawn. The first frame, and the
        first one after a pause, returns its own; after it there is nothing new once, None.

        now: s. Raises what the drawing that is returned has raised.
        """
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "live")
        before, own = self._begun, self._worker.submit(draw)
        self._begun = now, own
        if before is None or now - before[0] > LATE:
            taken = own
        elif before[1] is self._taken:
            return None
        else:
            taken = before[1]
        self._taken = taken
        return taken.result()

    def drop(self) -> None:
        """What is drawn now will not be shown."""
        self._begun = None

    def count(self, now: float) -> float | None:
        """Counts a picture and returns how many there are a second; None for the first ones."""
        if self._shown and now - self._shown[-1] > PAUSE:
            self._shown.clear()  # the camera was stopped meanwhile
        self._shown.append(now)
        passed = now - self._shown[0]
        return (len(self._shown) - 1) / passed if len(self._shown) > 3 and passed > 0 else None

    def start_recording(self, stamp: Stamp, name: str = "hellomeme-live") -> None:
        """name: of the file, without a suffix. Raises HelloMemeError where none can be written."""
        from hellomeme.io.recording import Recorder

        path = new_file(f"{name}.mp4")
        with self.lock:
            self.recorder = Recorder(path, stamp)

    def record(self, picture: np.ndarray, now: float) -> bool:
        """Adds a picture to the recording, if there is one. Returns whether it has its full length.

        Raises HelloMemeError where encoding fails; the recording is then gone."""
        with self.lock:
            if self.recorder is None:
                return False
            try:
                self.recorder.add(picture, now)
            except HelloMemeError:
                self.recorder.discard()
                self.recorder = None
                raise
            return self.recorder.is_full

    def save_recording(self) -> Path:
        """Ends the recording. Raises HelloMemeError without one, for an empty one, or if encoding fails."""
        with self.lock:
            recorder, self.recorder = self.recorder, None
        if recorder is None:
            raise HelloMemeError("Nothing is being recorded.")
        return recorder.save()

    def close(self) -> None:
        """Ends the recording, if there is one, and leaves no file of it."""
        if self._worker is not None:
            self._worker.shutdown(wait=False)
            self._worker = None
        with self.lock:
            recorder, self.recorder = self.recorder, None
        if recorder is not None:
            recorder.discard()


class LiveSessions:
    """Those of all visitors, by session."""

    def __init__(self):
        self._sessions: OrderedDict[str | None, LiveSession] = OrderedDict()

    def of(self, session: str | None) -> LiveSession:
        """That of a visitor, begun at the first use."""
        visitor = self._sessions.setdefault(session, LiveSession())
        self._sessions.move_to_end(session)
        while len(self._sessions) > MOST:
            self._sessions.popitem(last=False)[1].close()
        return visitor

    def end(self, session: str | None) -> None:
        """Forgets a visitor, who has left."""
        if (ended := self._sessions.pop(session, None)) is not None:
            ended.close()
