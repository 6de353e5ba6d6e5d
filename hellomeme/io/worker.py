"""Python processes that read and write clips: a file that damages a decoder ends such a process only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the folder of the package
# The current folder, which comes first otherwise, may hold anything
START = "import sys; sys.path[0] = sys.argv.pop(1); from hellomeme.io.{} import main; main()"


def start_worker(module: str, *arguments: object, **streams: int) -> subprocess.Popen:
    """Starts `main` of a module of this package; what it prints is to be read from `stdout`.

    streams: of `subprocess.Popen`, where they differ: no input, and errors are dropped.
    """
    command = [sys.executable, "-c", START.format(module), str(ROOT), *map(str, arguments)]
    defaults = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, bufsize=1 << 20, **defaults | streams)
