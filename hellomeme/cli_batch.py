"""`python -m hellomeme batch JOBS.csv OUTDIR`: a picture for each row of a table.

Over several GPUs: `accelerate launch --num_processes 4 -m hellomeme batch JOBS.csv OUTDIR`. Exit status 0: all pictures
are there. 1: some rows failed, they are listed at the end. 2: the table or an option is unusable, nothing was done.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from . import cli
from .errors import HelloMemeError
from .settings import Settings

if TYPE_CHECKING:
    from .batch import Job


def add(commands) -> None:
    """Adds the command to argparse's subparsers."""
    command = commands.add_parser(
        "batch",
        help="make a picture for each row of a table",
        description="Makes a picture for each row of a CSV table with the columns reference, driver and, if you like, "
        "output and any setting by name. Pictures that are there already are passed over, rows that fail are listed at "
        "the end. Settings given here are for rows that leave them empty.",
    )
    command.set_defaults(command=batch)
    command.add_argument("table", metavar="JOBS.csv", help="the table; its paths are relative to its folder")
    command.add_argument("folder", metavar="OUTDIR", help="folder for the pictures; made if it does not exist")
    cli.add_model_options(command)
    cli.add_result_options(command)
    cli.add_settings(command)


def batch(options: argparse.Namespace, standard_error) -> int:
    """Draws what the table asks for, or this process's share of it, and returns the exit status."""
    from . import releases
    from .batch import is_done, read_table

    rank, processes = _place()
    settings = Settings(**{field.name: getattr(options, field.name) for field in cli.FIELDS})
    plan = read_table(options.table, options.folder, settings)
    release = releases.find(options.release)
    _make_folder(Path(options.folder))

    todo, there, bad = [], 0, plan.bad if rank == 0 else {}
    for job in plan.jobs[rank::processes]:
        try:
            if is_done(job, release):
                there += 1
            else:
                todo.append(job)
        except HelloMemeError as error:
            bad[job.row] = str(error)
    made = 0
    try:
        for job, problem in _made(todo, options):
            if problem is None:
                made += 1
                print(job.output, flush=True)
            else:
                bad[job.row] = problem
    except KeyboardInterrupt:
        print(f"hellomeme: interrupted, {made} pictures were made; start again to go on.", file=standard_error)
        return 130
    shares = _shares((made, there, bad), processes)
    bad = {row: problem for *_, share in shares for row, problem in share.items()}
    if rank == 0 or len(shares) < processes:
        made, there = (sum(share[i] for share in shares) for i in range(2))
        print(f"hellomeme: {made} made, {there} there already, {len(bad)} failed.", file=standard_error)
        for row in sorted(bad):
            print(f"hellomeme: row {row}: {' '.join(bad[row].split())}", file=standard_error, flush=True)
    return 1 if bad else 0


def _made(jobs: list[Job], options: argparse.Namespace) -> Iterator[tuple[Job, str | None]]:
    """Draws the jobs and writes their pictures; yields each with None, or with what was wrong with it."""
    if not jobs:
        return
    import torch

    from .batch import draw
    from .reenactor import Reenactor

    device = options.device
    if device is None and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    reenactor = Reenactor.from_release(options.release, base=options.base, device=device, loras=options.lora)
    for job, result in draw(reenactor, jobs):
        try:
            if isinstance(result, HelloMemeError):
                raise result
            _make_folder(job.output.parent)
            cli.write(result, job.output, options)
            yield job, None
        except HelloMemeError as error:
            yield job, str(error)


def _place() -> tuple[int, int]:
    """(number of this process, number of all), as `accelerate launch` and `torchrun` set them."""
    try:
        rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if 0 <= rank < processes:
            return rank, processes
    except ValueError:
        pass
    raise HelloMemeError("RANK and WORLD_SIZE in the environment do not fit together: unset them, or use accelerate "
                         "launch.")


def _shares(mine: tuple, processes: int) -> list[tuple]:
    """What every process has to tell, or only our own where they do not know of each other.

    It is also where they wait for each other: the launcher ends all of them as soon as one ends with a failure.
    """
    if processes == 1 or "MASTER_ADDR" not in os.environ:
        return [mine]
    from torch import distributed

    shares = [None] * processes
    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.all_gather_object(shares, mine)
    distributed.destroy_process_group()
    return shares


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HelloMemeError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
