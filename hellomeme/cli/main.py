"""The command line, `python -m hellomeme`: modules for `image` and `restyle`, `batch`, `video` and `motion`.

Exit status 0: the output is written and its path printed. 1: some rows of a batch failed, the others are
written. 2: bad input, with one line on standard error and no output file. 130: interrupted; a batch keeps
the pictures it has written. An internal error ends with a traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, TextIO

from ..errors import HelloMemeError
from ..io.quiet import silenced
from ..releases.hub import offline
from ..threads import wait_without_spinning
from . import batch, evaluate, fetch, image, video
from .launch import launched

# In the order of the help; `add` of each module extends the parser
COMMANDS = (image, batch, video, evaluate, fetch)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status. arguments: sys.argv[1:] if None."""
    options = _parser().parse_args(arguments)
    if getattr(options, "processes", 1) > 1 and "RANK" not in os.environ:
        return launched(options.processes, sys.argv[1:] if arguments is None else arguments)
    wait_without_spinning()
    with contextlib.nullcontext(sys.stderr) if options.verbose else _quiet() as standard_error:
        try:
            with _told(standard_error), offline() if options.offline else contextlib.nullcontext():
                return options.command(options, standard_error) or 0
        except HelloMemeError as error:
            print(f"hellomeme: {' '.join(str(error).split())}", file=standard_error, flush=True)
            return 2
        except KeyboardInterrupt:
            print("hellomeme: interrupted, nothing was written.", file=standard_error, flush=True)
            return 130


def _parser() -> argparse.ArgumentParser:
    script = Path(sys.argv[0]).stem == "hellomeme"  # the installed command, and not the module
    prog = "hellomeme" if script else "python -m hellomeme"
    parser = _OneLineParser(prog=prog, description="One face drives another.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


class _OneLineParser(argparse.ArgumentParser):
    """argparse, but errors are one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with status 2."""
        self.exit(2, f"hellomeme: {message}; try {self.prog} --help\n")


@contextlib.contextmanager
def _told(standard_error: TextIO) -> Iterator[None]:
    """What the package warns of goes to standard error, a line each."""
    handler = logging.StreamHandler(standard_error)
    handler.setFormatter(logging.Formatter("hellomeme: %(message)s"))
    log = logging.getLogger(__package__.split(".")[0])
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


@contextlib.contextmanager
def _quiet() -> Iterator[TextIO]:
    """Keeps libraries off standard error, and yields it for our own messages."""
    sys.stderr.flush()
    with (
        silenced(2) as kept,
        open(kept, "w", encoding="utf-8", errors="replace", closefd=False) as ours,
        open(os.devnull, "w") as nowhere,
    ):
        try:
            with contextlib.redirect_stderr(nowhere):
                yield ours
        finally:
            sys.stderr.flush()
