"""`python -m hellomeme batch JOBS.csv OUTDIR`: a picture for each row of a table.

Over several GPUs with `--processes 4`, or `accelerate launch --num_processes 4 -m hellomeme batch JOBS.csv
OUTDIR`, or torchrun. Exit status 0: all pictures exist. 1: some rows failed; they are listed at the end. 2:
the table or an option cannot be used; nothing was done.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import HelloMemeError
from . import common
from .processes import gathered, own_gpu, place

if TYPE_CHECKING:
    from .jobs import Job


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "batch",
        help="make a picture for each row of a table",
        description="Makes a picture for each row of a CSV table with the columns reference, driver and, "
        "if you like, output and any setting by name. Pictures that exist already are passed over, rows "
        "that fail are listed at the end. Settings given here are for rows that leave them empty.",
    )
    command.set_defaults(command=batch)
    command.add_argument("table", metavar="JOBS.csv", help="the table; its paths are relative to its folder")
    command.add_argument(
        "folder", metavar="OUTDIR", help="folder for the pictures; made if it does not exist"
    )
    common.add_model_options(command)
    common.add_original_size(command)
    common.add_no_label(command)
    common.add_processes(command)
    common.add_settings(command)


def batch(options: argparse.Namespace, standard_error: TextIO) -> int:
    """Draws the pictures of a table, or this process's part of them, and returns the exit status."""
    rank, processes = place()
    own = Outcome()
    try:
        _run(own, options, rank, processes, standard_error)
    except KeyboardInterrupt:
        print(
            f"hellomeme: interrupted, {own.made} pictures were made; start again to go on.",
            file=standard_error,
        )
        return 130
    with gathered(own, processes) as outcomes:
        return _report(outcomes, standard_error if rank == 0 or len(outcomes) < processes else None)


@dataclass
class Outcome:
    """The result of one process.

    made, existing: pictures drawn now, and before. errors: row -> its error message. failure: the message of
    an error that stopped all rows, or None.
    """

    made: int = 0
    existing: int = 0
    errors: dict[int, str] = field(default_factory=dict)
    failure: str | None = None


def _run(
    outcome: Outcome, options: argparse.Namespace, rank: int, processes: int, standard_error: TextIO
) -> None:
    """Draws every `processes`-th row from number `rank` on, and fills in the outcome."""
    from ..releases.load import find
    from .jobs import is_done, read_table

    missing = []
    try:
        plan = read_table(options.table, options.folder, common.settings_from(options))
        release = find(options.release)
        _make_folder(Path(options.folder))
        if rank == 0:
            outcome.errors |= plan.errors
        for job in plan.jobs[rank::processes]:
            try:
                if is_done(job, release, _drawing_options(options)):
                    outcome.existing += 1
                else:
                    missing.append(job)
            except HelloMemeError as error:
                outcome.errors[job.row] = str(error)
        for job, problem in _draw(missing, options, standard_error):
            if problem is None:
                outcome.made += 1
                # In one write: processes that share an unbuffered output would mix paths and line ends.
                print(f"{job.output}\n", end="", flush=True)
            else:
                outcome.errors[job.row] = problem
    except HelloMemeError as error:
        outcome.failure = str(error)
        outcome.errors |= {job.row: outcome.failure for job in missing}


def _report(outcomes: list[Outcome], stream: TextIO | None) -> int:
    """Prints a summary of all rows to `stream`, if any, and returns the exit status."""
    made, existing = sum(outcome.made for outcome in outcomes), sum(outcome.existing for outcome in outcomes)
    errors = {row: problem for outcome in outcomes for row, problem in outcome.errors.items()}
    failure = next((outcome.failure for outcome in outcomes if outcome.failure), None)
    if failure and not made:
        lines = [failure]
    else:
        rows = [f"row {row}: {problem}" for row, problem in sorted(errors.items())]
        if failure and failure not in errors.values():  # of a process that failed before its rows
            rows.append(failure)
        lines = [f"{made} made, {existing} there already, {len(errors)} failed.", *rows]
    for line in lines if stream else ():
        print(f"hellomeme: {' '.join(line.split())}", file=stream, flush=True)
    return 2 if failure and not made else 1 if errors or failure else 0


def _draw(
    jobs: list[Job], options: argparse.Namespace, standard_error: TextIO
) -> Iterator[tuple[Job, str | None]]:
    """Draws the jobs and writes their pictures; yields each job with None or an error message.

    Raises HelloMemeError if there are jobs and the model cannot be loaded.
    """
    if not jobs:
        return
    from .jobs import draw, made_from

    reenactor = common.load(options, standard_error, own_gpu())
    digests = {}

    def with_digests() -> Iterator[Job]:
        for job in jobs:  # before it is drawn: a file may be replaced meanwhile
            with suppress(HelloMemeError):  # drawing raises it again
                digests[job.row] = made_from(job, _drawing_options(options))
            yield job

    for job, result in draw(reenactor, with_digests()):
        try:
            if isinstance(result, HelloMemeError):
                raise result
            _make_folder(job.output.parent)
            common.write(result, job.output, options, digests.get(job.row))
            yield job, None
        except HelloMemeError as error:
            yield job, str(error)


def _drawing_options(options: argparse.Namespace) -> str:
    """The options, other than settings and release, on which a result file depends; paths as typed."""
    chosen = (options.base, options.lora, options.original_size, options.no_label)
    # Not in digests from before there were these
    added = (options.vae, options.stylize, options.expression_type, options.face_models, options.upscaler)
    latest = (options.prediction_type, options.embedding, options.few_steps_lora)
    chosen += () if added == (None, "x2", None, "mediapipe", None) else added
    chosen += () if latest == (None, [], None) else latest
    # Where none is asked for, the device chooses it
    return str(chosen if options.dtype is None else (*chosen, f"dtype {options.dtype}"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HelloMemeError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
