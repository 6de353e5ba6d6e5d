"""`--processes N`: the same command in several processes, each with a GPU or some of the cores of its own.

They are started as `accelerate launch` starts them, and end together.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from ..threads import CHOSEN_BY_USER, usable_cores

PATIENCE = 10.0  # s that processes have to end by themselves when one has failed, or after Ctrl-C


def launched(processes: int, arguments: Sequence[str]) -> int:
    """Runs `python -m hellomeme` with these arguments in so many processes, and returns the exit status: that
    of the process that failed first, or 0."""
    shared = {"WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    shared |= {CHOSEN_BY_USER: os.environ.get(CHOSEN_BY_USER) or max(1, usable_cores() // processes)}
    command = [sys.executable, "-m", __package__.split(".")[0], *arguments]
    # A termination is as Ctrl-C, which a terminal sends to all processes
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    children: list[subprocess.Popen] = []
    try:
        for rank in range(processes):
            own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
            children.append(subprocess.Popen(command, env=os.environ | own))
        return _ended(children)
    except KeyboardInterrupt:
        return 130
    finally:
        _end(children)
        signal.signal(signal.SIGTERM, before)


def _ended(children: list[subprocess.Popen]) -> int:
    """The status of the first that failed, or 0, when all have ended or their patience is over."""
    status, deadline = 0, float("inf")
    while any(child.poll() is None for child in children) and time.monotonic() < deadline:
        failed = [child.returncode for child in children if child.returncode]
        if failed and not status:
            status, deadline = failed[0], time.monotonic() + PATIENCE
        time.sleep(0.05)
    status = status or next((child.returncode for child in children if child.returncode), 0)
    return status if status >= 0 else 128 - status


def _end(children: list[subprocess.Popen]) -> None:
    """Waits for the children; those that do not end by themselves are interrupted, and killed at last."""
    for wait, end in ((1.0, _interrupt), (PATIENCE, _kill)):
        deadline = time.monotonic() + wait
        while any(child.poll() is None for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        for child in children:
            if child.poll() is None:
                end(child)
    for child in children:
        child.wait()


def _interrupt(child: subprocess.Popen) -> None:
    """As Ctrl-C does, where one process can send that to another and it is heard: processes that a script has
    begun in the background ignore it."""
    if os.name == "nt" or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        child.terminate()
    else:
        child.send_signal(signal.SIGINT)


def _kill(child: subprocess.Popen) -> None:
    child.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
