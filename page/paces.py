"""How fast clips of each model are drawn here, as measured in runs, and how long the next one will take."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

KINDS = 6  # of runs that are remembered for a model, by passes a frame


@dataclass(frozen=True)
class ClipWork:
    """What a clip costs. analysed: frames of the driver in which a face is looked for. frames: to be drawn.
    passes: of the network for all of them, see `ClipPlan.passes`."""

    analysed: int
    frames: int
    passes: float


@dataclass
class _Measured:
    analysis: float | None = None  # s a frame
    # passes a frame -> s a frame, the kind of run seen last at the end
    drawing: OrderedDict[float, float] = field(default_factory=OrderedDict)


class ClipPaces:
    """Seconds a frame, for each kind of run: a model, with or without the upscaler.

    A frame costs a time of its own (conditions, decoding, encoding) and a time for each pass of the network:
    both are fitted to the runs. Runs of pictures are not counted: they draw in another way.
    """

    def __init__(self):
        self._measured: dict[tuple, _Measured] = {}

    def record_analysis(self, kind: tuple, frames: int, seconds: float) -> None:
        """kind: (release, upscale). Blends with what was measured before, as `record_drawing` does."""
        measured = self._measured.setdefault(kind, _Measured())
        measured.analysis = _blended(measured.analysis, seconds / frames)

    def record_drawing(self, kind: tuple, frames: int, passes: float, seconds: float) -> None:
        runs = self._measured.setdefault(kind, _Measured()).drawing
        cost = round(passes / frames, 1)
        runs[cost] = _blended(runs.get(cost), seconds / frames)
        runs.move_to_end(cost)
        while len(runs) > KINDS:
            runs.popitem(last=False)

    def drawing(self, kind: tuple, frames: int, passes: float) -> float | None:
        """Seconds that drawing takes; None before the first clip of this kind."""
        measured = self._measured.get(kind)
        if measured is None or not measured.drawing:
            return None
        own, each_pass = _fit(measured.drawing)
        return own * frames + each_pass * passes

    def whole(self, kind: tuple, work: ClipWork) -> float | None:
        """Seconds that a clip takes, its driver's analysis included; None before the first of this kind."""
        drawing = self.drawing(kind, work.frames, work.passes)
        if drawing is None:
            return None
        return drawing + work.analysed * (self._measured[kind].analysis or 0)


def _blended(before: float | None, now: float) -> float:
    return now if before is None else 0.5 * (before + now)


def _fit(runs: dict[float, float]) -> tuple[float, float]:
    """Seconds of a frame's own and of a pass, neither below 0, that fit the runs best, by relative error. Of
    runs of one kind only the passes are taken to cost time."""
    import numpy as np
    from scipy.optimize import nnls

    rows = [[1 / seconds, passes / seconds] for passes, seconds in runs.items()]
    little = 1e-4 * max(row[0] for row in rows)  # holds the first number at 0 where one kind leaves both open
    own, each_pass = nnls(np.array([*rows, [little, 0.0]]), np.array([*[1.0] * len(rows), 0.0]))[0]
    return float(own), float(each_pass)


class TimeLeft:
    """The time that drawing a clip still takes, from its first moment on.

    expected: seconds for all of it as earlier runs suggest, None if there were none. Without them it is known
    from the second call on.
    """

    WEIGHT = 0.3  # of the expected time: as much as a run that is so far

    def __init__(self, expected: float | None):
        self.expected = expected
        self._first: tuple[float, float] | None = None  # share and time of the first call

    def seconds(self, share: float, now: float) -> float | None:
        """share: of the work that is done, 0 to 1. now: s, of any clock."""
        if self._first is None:
            self._first = share, now
        done, spent = share - self._first[0], now - self._first[1]
        if self.expected is None:
            return spent / done * (1 - share) if done > 0 else None
        whole = (self.WEIGHT * self.expected + spent) / (self.WEIGHT + done)
        return whole * (1 - share)
