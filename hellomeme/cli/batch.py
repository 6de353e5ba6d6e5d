"""`python -m hellomeme batch JOBS.csv OUTDIR`: a picture for each row of a table.

Over several GPUs: `accelerate launch --num_processes 4 -m hellomeme batch JOBS.csv OUTDIR`, or torchrun. Exit
status 0: all pictures are there. 1: some rows failed, they are listed at the end. 2: the table or an option
is unusable, nothing was done.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import HelloMemeError
from ..settings import Settings
from . import common

if TYPE_CHECKING:
    from .jobs import Job


def add(commands) -> None:
    """Adds the command to argparse's subparsers."""
    command = commands.add_parser(
        "batch",
        help="make a picture for each row of a table",
        description="Makes a picture for each row of a CSV table with the columns reference, driver and, "
        "if you like, output and any setting by name. Pictures that are there already are passed over, rows "
        "that fail are listed at the end. Settings given here are for rows that leave them empty.",
    )
    command.set_defaults(command=batch)
    command.add_argument("table", metavar="JOBS.csv", help="the table; its paths are relative to its folder")
    command.add_argument(
        "folder", metavar="OUTDIR", help="folder for the pictures; made if it does not exist"
    )
    common.add_model_options(command)
    common.add_result_options(command)
    common.add_settings(command)


def batch(options: argparse.Namespace, standard_error) -> int:
    """Draws what the table asks for, or this process's share of it, and returns the exit status."""
    rank, processes = _place()
    mine = Share()
    try:
        _work(mine, options, rank, processes, standard_error)
    except KeyboardInterrupt:
        print(
            f"hellomeme: interrupted, {mine.made} pictures were made; start again to go on.",
            file=standard_error,
        )
        return 130
    with _meeting(mine, processes) as shares:
        return _tell(shares, standard_error if rank == 0 or len(shares) < processes else None)


@dataclass
class Share:
    """What became of a process's rows. bad: row -> what is wrong with it; refusal: why none could be drawn at
    all."""

    made: int = 0
    there: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    refusal: str | None = None


def _work(share: Share, options: argparse.Namespace, rank: int, processes: int, standard_error) -> None:
    """Draws every `processes`th row from number `rank` on, and notes in the share what becomes of them."""
    from ..releases.load import find
    from .jobs import is_done, read_table

    todo = []
    try:
        settings = Settings(**{field.name: getattr(options, field.name) for field in common.FIELDS})
        plan = read_table(options.table, options.folder, settings)
        release = find(options.release)
        _make_folder(Path(options.folder))
        if rank == 0:
            share.bad |= plan.bad
        for job in plan.jobs[rank::processes]:
            try:
                if is_done(job, release, _drawn_with(options)):
                    share.there += 1
                else:
                    todo.append(job)
            except HelloMemeError as error:
                share.bad[job.row] = str(error)
        for job, problem in _made(todo, options, standard_error):
            if problem is None:
                share.made += 1
                print(job.output, flush=True)
            else:
                share.bad[job.row] = problem
    except HelloMemeError as error:
        share.refusal = str(error)
        share.bad |= {job.row: share.refusal for job in todo}


def _tell(shares: list[Share], stream) -> int:
    """Prints to `stream`, if any, what became of all rows, and returns the exit status."""
    made, there = sum(share.made for share in shares), sum(share.there for share in shares)
    bad = {row: problem for share in shares for row, problem in share.bad.items()}
    refusal = next((share.refusal for share in shares if share.refusal), None)
    if refusal and not made:
        lines = [refusal]
    else:
        rows = [f"row {row}: {problem}" for row, problem in sorted(bad.items())]
        if refusal and refusal not in bad.values():  # of a process that did not get as far as its rows
            rows.append(refusal)
        lines = [f"{made} made, {there} there already, {len(bad)} failed.", *rows]
    for line in lines if stream else ():
        print(f"hellomeme: {' '.join(line.split())}", file=stream, flush=True)
    return 2 if refusal and not made else 1 if bad or refusal else 0


def _made(jobs: list[Job], options: argparse.Namespace, standard_error) -> Iterator[tuple[Job, str | None]]:
    """Draws the jobs and writes their pictures; yields each with None, or with what was wrong with it. Raises
    HelloMemeError, before the first, where there is something to draw and the model cannot be loaded."""
    if not jobs:
        return
    import torch

    from .jobs import draw, made_from

    own_gpu = (
        f"cuda:{os.environ['LOCAL_RANK']}"
        if torch.cuda.is_available() and "LOCAL_RANK" in os.environ
        else None
    )
    reenactor = common.load(options, standard_error, own_gpu)
    digests = {}

    def noted() -> Iterator[Job]:
        for job in jobs:  # before it is drawn: somebody may replace a file meanwhile
            with suppress(HelloMemeError):  # drawing will tell
                digests[job.row] = made_from(job, _drawn_with(options))
            yield job

    for job, result in draw(reenactor, noted()):
        try:
            if isinstance(result, HelloMemeError):
                raise result
            _make_folder(job.output.parent)
            common.write(result, job.output, options, digests.get(job.row))
            yield job, None
        except HelloMemeError as error:
            yield job, str(error)


def _drawn_with(options: argparse.Namespace) -> str:
    """The options that show in a picture or in its file, beside its settings and the release; paths as they
    were typed."""
    return str((options.base, options.lora, options.original_size, options.no_label))


def _place() -> tuple[int, int]:
    """(number of this process, number of all), as `accelerate launch` and `torchrun` set them."""
    try:
        rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if 0 <= rank < processes:
            return rank, processes
    except ValueError:
        pass
    raise HelloMemeError(
        "RANK and WORLD_SIZE in the environment do not fit together: unset them, or use accelerate launch."
    )


@contextmanager
def _meeting(mine: Share, processes: int) -> Iterator[list[Share]]:
    """Yields the shares of all processes, or our own alone where they do not know of each other.

    They wait for each other before and after: the launcher ends all of them as soon as one ends with a
    failure.
    """
    if processes == 1 or "MASTER_ADDR" not in os.environ:
        yield [mine]
        return
    from torch import distributed

    shares = [None] * processes
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    try:
        distributed.all_gather_object(shares, mine)
        yield shares
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HelloMemeError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
