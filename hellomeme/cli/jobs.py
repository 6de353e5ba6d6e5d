"""The table of a batch: one row, one picture.

The table is a CSV file with a row of names first. `reference` and `driver` are paths, relative to the table's
folder; `output` is a name in the output folder and may be left out or empty; any other column is a setting.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HelloMemeError
from ..io import metadata
from ..io.atomic import check_suffix
from ..settings import Settings
from .table import decimal_number, read_rows, whole_number

if TYPE_CHECKING:
    from ..reenactor import Reenactor, Result
    from ..releases.table import Release

PATHS = ("reference", "driver", "output")
FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
UNSAFE = re.compile(r'[\x00-\x1f\x7f"*:<>?|\\]')  # not allowed in file names on every system


@dataclass(frozen=True)
class Job:
    """One row: its number (the column names are row 1), the paths and the settings of its picture."""

    row: int
    reference: Path
    driver: Path
    output: Path
    settings: Settings


@dataclass
class Plan:
    """The jobs of a table. errors: row -> its error message."""

    jobs: list[Job] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)


def read_table(path: str | Path, folder: str | Path, defaults: Settings = Settings()) -> Plan:
    """Reads and checks every row of a table. Nothing is written and no picture is opened.

    path: CSV file. folder: where the pictures will be written. defaults: settings for empty cells.
    Raises HelloMemeError if the table as a whole cannot be used.
    """
    path, folder = Path(path), Path(folder).resolve()
    plan, taken = Plan(), {}
    for row, cells in read_rows(path, PATHS[:2], [*PATHS, *FIELDS]):
        try:
            job = _job(row, cells, path.parent, folder, defaults, taken)
            earlier = taken.setdefault(str(job.output).casefold(), row)
            if earlier != row:
                raise HelloMemeError(
                    f"The output {job.output.relative_to(folder)} is that of row {earlier} already: "
                    "choose another name."
                )
            plan.jobs.append(job)
        except HelloMemeError as error:
            plan.errors[row] = str(error)
    return plan


def made_from(job: Job, options: str = "") -> str:
    """A digest of the content of both input files and the `options` of the batch: 16 hex digits of a
    SHA-256. HelloMemeError if a file cannot be read."""
    try:
        parts = [job.reference.read_bytes(), job.driver.read_bytes(), options.encode()]
    except OSError as error:
        raise HelloMemeError(f"The picture {error.filename} cannot be read: {error.strerror}.") from error
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def is_done(job: Job, release: Release, options: str = "") -> bool:
    """Whether the picture exists already; HelloMemeError if another file has its name."""
    if not job.output.exists():
        return False
    stamp = metadata.read(job.output)
    wanted = metadata.Stamp(job.settings.resolved(release), release.name, made_from=made_from(job, options))
    # The options, which the digest holds, say more of the style than the file
    if stamp is None or dataclasses.replace(stamp, labelled=True, style=wanted.style) != wanted:
        raise HelloMemeError(
            f"The output {job.output} exists, but was not made from these pictures with this release, these "
            "settings and options: choose another name or move it away."
        )
    return True


def draw(reenactor: Reenactor, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result | HelloMemeError]]:
    """Draws the jobs one by one; yields each with its result or its error.

    The reference is set once for consecutive jobs that share it.
    """
    reference = refused = None
    for job in jobs:
        try:
            if reference != (job.reference, job.settings.reference_face):
                reference, refused = (job.reference, job.settings.reference_face), None
                try:
                    reenactor.set_reference(job.reference, face=job.settings.reference_face)
                except HelloMemeError as error:
                    refused = error
            if refused is not None:
                raise refused
            yield job, reenactor.image(job.driver, job.settings)
        except HelloMemeError as error:
            yield job, error
        except (RuntimeError, MemoryError) as error:
            # raised by torch, for example: the next job may succeed
            first_line = str(error).strip().partition("\n")[0][:200].rstrip(".")
            yield job, HelloMemeError(f"Drawing failed: {first_line}.")


def _job(row: int, cells: dict[str, str], home: Path, folder: Path, defaults: Settings, taken: dict) -> Job:
    """The job of a row; HelloMemeError for its first error. home: the folder of the table."""
    if cells.get(""):
        raise HelloMemeError(
            "The row has more cells than there are columns: put a text with a comma in quotes."
        )
    settings = dataclasses.replace(
        defaults,
        **{name: _value(FIELDS[name], text) for name, text in cells.items() if name in FIELDS and text},
    )
    pictures = [home / cells[name] for name in PATHS[:2]]
    for name, path in zip(PATHS[:2], pictures, strict=True):
        if not cells[name]:
            raise HelloMemeError(f"The row names no {name} picture: fill in its path.")
        if not os.path.isfile(path):
            raise HelloMemeError(f"The {name} picture {path} does not exist: check the path.")
    name = cells.get("output") or _free_name(pictures, folder, taken)
    return Job(row, *pictures, _output(name, folder), settings)


def _value(field: dataclasses.Field, text: str) -> Any:
    """A cell in the type of its setting. Text of another type stays as it is: `Settings` refuses it."""
    try:
        kind = field.metadata["kind"]
        return {int: whole_number, float: decimal_number}.get(kind, kind)(text)
    except ValueError:
        return text


def _free_name(pictures: Sequence[Path], folder: Path, taken: dict) -> str:
    """reference-driver.png, or with -2, -3, ... if an earlier row has that name."""
    name = UNSAFE.sub("_", "-".join(_cut(path.stem.strip(". ")) for path in pictures))
    names = (f"{name}{number}.png" for number in ("", *(f"-{count}" for count in range(2, len(taken) + 3))))
    return next(name for name in names if str(folder / name).casefold() not in taken)


def _cut(stem: str) -> str:
    """At most 80 letters and 110 bytes: file systems allow 255 bytes for a name."""
    return next(cut for end in range(80, -1, -1) if len(os.fsencode(cut := stem[:end])) <= 110)


def _output(name: str, folder: Path) -> Path:
    """The path of an output; HelloMemeError unless it is a picture's name within the folder."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or UNSAFE.search(name) or len(name) > 200:
        raise HelloMemeError(f"The output {name[:60]!r} must be a plain name in the output folder.")
    check_suffix(name, tuple(metadata.FORMATS))
    try:
        inside = (folder / path).parent.resolve().is_relative_to(folder)  # a link may lead out of it
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        raise HelloMemeError(f"The output {name} leads out of the output folder: choose another name.")
    if (folder / path).is_dir() or (folder / path).is_symlink():
        raise HelloMemeError(f"The output {name} is a folder or a link: choose another name.")
    return folder / path
