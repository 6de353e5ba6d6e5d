"""Rows of the table that `python -m benchmarks` prints."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"


@dataclass(frozen=True)
class Row:
    """One figure of the table.

    group: the target it belongs to. what: is measured. values: the figure, or median, lowest and highest of
    several; none if it was not measured, and `note` says why. aim: of the figure; None if there is none.
    at_most: whether the aim is an upper limit. unit: behind the figures; "×" for ratios.
    """

    group: str
    what: str
    values: Sequence[float] = ()
    aim: float | None = None
    at_most: bool = True
    unit: str = ""
    note: str = ""

    @property
    def figure(self) -> float | None:
        """The median."""
        return statistics.median(self.values) if self.values else None

    @property
    def verdict(self) -> str:
        """MET, MISSED or NOT_MEASURED; empty without an aim."""
        if self.figure is None:
            return NOT_MEASURED
        if self.aim is None:
            return ""
        return MET if (self.figure <= self.aim if self.at_most else self.figure >= self.aim) else MISSED

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What is measured, the median, the range, the aim, and the verdict with the note."""
        figure = "" if self.figure is None else self._with_unit(self.figure)
        spread = f"{_number(min(self.values))} to {_number(max(self.values))}" if len(self.values) > 1 else ""
        aim = "" if self.aim is None else f"{'≤' if self.at_most else '≥'} {self._with_unit(self.aim)}"
        return self.what, figure, spread, aim, ": ".join(filter(None, (self.verdict, self.note)))

    def _with_unit(self, value: float) -> str:
        return f"{_number(value)} {self.unit}".strip()

    @property
    def facts(self) -> dict:
        """The fields, as JSON takes them."""
        return asdict(self) | {"values": list(self.values)}


def _number(value: float) -> str:
    """Three digits, and no exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3f}"


def short(rows: Sequence[Row], machine: str) -> str:
    """The rows with an aim in a table for the README."""
    lines = [f"Measured on {machine}:", "", "| | figure | aim | |", "|---|---|---|---|"]
    for row in rows:
        if row.aim is not None:
            what, figure, _, aim, verdict = row.cells
            lines.append(f"| {row.group}: {what} | {figure} | {aim} | {verdict} |")
    return "\n".join(lines) + "\n"


def markdown(rows: Sequence[Row], machine: str) -> str:
    """The whole table, after a line for the machine."""
    lines = [f"Measured on {machine}.", "", "| | figure | range | aim | |", "|---|---|---|---|---|"]
    for group in dict.fromkeys(row.group for row in rows):
        lines.append(f"| **{group}** | | | | |")
        lines += [f"| {' | '.join(row.cells)} |" for row in rows if row.group == group]
    return "\n".join(lines) + "\n"
