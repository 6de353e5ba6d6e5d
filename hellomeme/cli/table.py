"""The CSV table of a batch, as spreadsheets and pandas write it: its rows as text, numbers from its cells."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import HelloMemeError

MAX_SIZE = 1 << 24  # bytes: about 100,000 rows
ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte order marks of Excel's "Unicode text"
# A first line for Excel, which does not show it
SEPARATOR = re.compile(r'"?sep=([^"\s]|\t)"?[ ,;\t]*\r?\n?', re.IGNORECASE)
UNNAMED = re.compile(r"|unnamed:_\d+")  # the second is pandas' name for a column without one
WHOLE = re.compile(r"([+-]?\d+)(?:[.,](?!000$)0+)?")  # 7.000 may be seven thousand
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


def read_rows(
    path: Path, required: Sequence[str], known: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (row number, cells by name) of the rows of a table that are not empty.

    required, known: names of columns that there must be, and that there may be. Rows are numbered as a
    spreadsheet shows them; in the name of a column, case, spaces and hyphens do not count. Cells beyond the
    named columns have the name "". Raises HelloMemeError for a table that cannot be used.
    """
    table = list(enumerate(_read(path), 1))
    while table and not any(cell.strip() for cell in table[0][1]):
        del table[0]
    names = [re.sub(r"[\s-]", "_", name.strip().lower()) for name in table[0][1]] if table else []
    table = [
        (row, [*map(str.strip, cells)]) for row, cells in table[1:] if any(cell.strip() for cell in cells)
    ]
    unnamed = [place for place, name in enumerate(names) if UNNAMED.fullmatch(name)]
    named = {place: name for place, name in enumerate(names) if place not in unnamed}
    _check_names(path, list(named.values()), required, known)
    if not table:
        raise HelloMemeError(f"The table {path.name} has no rows: write one for each picture.")
    for place in unnamed:
        filled = [(row, cells[place]) for row, cells in table if place < len(cells) and cells[place]]
        is_index = place == 0 and all(WHOLE.fullmatch(cell) for _, cell in filled)  # as pandas writes one
        if filled and not is_index:
            row, cell = filled[0]
            raise HelloMemeError(
                f"Column {place + 1} of the table {path.name} has no name, but {cell[:40]!r} in row {row}: "
                "name the column or empty it."
            )
    for row, cells in table:
        by_name = {name: cells[place] for place, name in named.items() if place < len(cells)}
        yield row, dict.fromkeys(named.values(), "") | by_name | {"": "".join(cells[len(names) :])}


def whole_number(text: str) -> int:
    """The whole number in a cell: "7", and "7.0" or "7,0" of a column that has empty cells in pandas. Raises
    ValueError for other text."""
    if (found := WHOLE.fullmatch(text)) is None:
        raise ValueError(text)
    return int(found[1])


def decimal_number(text: str) -> float:
    """The number in a cell, with a point or a comma. Raises ValueError for other text."""
    return float(text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text)


def _read(path: Path) -> list[list[str]]:
    """All cells of a table."""
    if not os.path.isfile(path):
        raise HelloMemeError(f"There is no table {path}: check the path.")
    try:
        if path.stat().st_size > MAX_SIZE:
            raise HelloMemeError(
                f"The table {path.name} is larger than {MAX_SIZE >> 20} MB: cut it into parts."
            )
        content = path.read_bytes()
        text = content.decode(ENCODINGS.get(content[:2], "utf-8-sig"))
        chosen = SEPARATOR.match(text)
        if chosen:
            text = text[chosen.end() :]
        first = next((line for line in text.splitlines() if line.strip(",;\t ")), "")
        # spreadsheets write semicolons in countries with decimal commas
        separator = chosen[1] if chosen else max(",;\t", key=first.count)
        lines = io.StringIO(text, newline="")
        return list(csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True))
    except (OSError, UnicodeError, csv.Error) as error:
        raise HelloMemeError(f"The table {path.name} cannot be read: save it as CSV in UTF-8.") from error


def _check_names(path: Path, names: list[str], required: Sequence[str], known: Sequence[str]) -> None:
    """HelloMemeError for names of columns that are missing, unknown or there twice."""
    for name in required:
        if name not in names:
            raise HelloMemeError(
                f"The table {path.name} has no column {name}: its first row must name the columns."
            )
    for name in names:
        if name not in known:
            raise HelloMemeError(
                f"The table {path.name} has a column {name[:40]!r}, which means nothing: choose from "
                f"{', '.join(known)}."
            )
        if names.count(name) > 1:
            raise HelloMemeError(f"The table {path.name} has two columns {name}: leave one out.")
