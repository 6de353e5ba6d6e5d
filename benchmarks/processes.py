"""A clip drawn by one process and by two: `python benchmarks/processes.py [--processes 1 2] [--release v1]`.

The processes are on the CPU with one thread each, or on a GPU each. They take turns, so that what else the
machine does falls on all of them. Printed are the time of the clip by the clock, and the CPU time of the
busiest process, which other work on the machine does not change; both against one process, by rounds. That
all draw the same frames is checked.

The demo has no first pass (see exact_vs_fast.py); it is given one here, so that exact and fast can be told
apart: in the exact first pass each frame begins from the one before it, and one process draws it while the
others wait.
"""

import argparse
import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from common import machine

STEPS, FRAMES = 4, 28
WAYS = {"exact": {"fast": False}, "fast": {"fast": True}}


def draw(release: str, frames: int, steps: int) -> None:
    """One of the processes: draws the clip in a way for each line of standard input. The first process prints
    seconds by the clock, CPU seconds of the busiest process, and a digest of the frames."""
    import numpy as np
    import torch
    from exact_vs_fast import with_first_pass
    from photos import toon

    from hellomeme.cli.processes import joined, own_gpu, place
    from hellomeme.face.motion import Motion
    from hellomeme.sampling.sharing import ALONE
    from hellomeme.settings import ClipSettings, Settings

    torch.set_num_threads(1)
    reenactor, _ = with_first_pass(release, own_gpu() or "cpu")
    reference = reenactor.set_reference(toon(3))
    motion = reference.motion.at([0] * frames)
    turn = np.linspace(0.8, 1, frames)[:, None].astype(np.float32)
    motion = Motion(**{**vars(motion), "blendshapes": motion.blendshapes * turn})
    settings = reenactor.resolved(Settings(steps=steps, guidance=1.5))
    with joined(sys.stderr) as team:
        for line in sys.stdin:
            clip = ClipSettings(**WAYS[line.strip()])
            if team is not None:
                team.exchange(None)  # all begin together
            began, used, digest = time.perf_counter(), time.process_time(), hashlib.sha256()
            own = reference, motion, settings, clip, lambda *_: None
            for frame in reenactor.frames(*own, share=team or ALONE):
                digest.update(np.ascontiguousarray(frame))
            passed, used = time.perf_counter() - began, time.process_time() - used
            every = [torch.tensor(used)] if team is None else team.exchange(torch.tensor(used))
            if place()[0] == 0:
                print(json.dumps([passed, max(map(float, every)), digest.hexdigest()]), flush=True)


def started(count: int, options: argparse.Namespace) -> list[subprocess.Popen]:
    """So many processes that wait for a line each."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, __file__, "--release", options.release, "--draw"]
    command += ["--frames", str(options.frames), "--steps", str(options.steps)]
    shared = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            command,
            env=os.environ | {k: str(v) for k, v in (shared | {"RANK": rank, "LOCAL_RANK": rank}).items()},
            **pipes,
        )
        for rank in range(count)
    ]


def turn(processes: list[subprocess.Popen], way: str) -> list:
    for process in processes:
        process.stdin.write(f"{way}\n")
        process.stdin.flush()
    line = processes[0].stdout.readline()
    if not line:
        raise SystemExit("A process has ended.")
    return json.loads(line)


def measured(options: argparse.Namespace) -> Iterator[tuple[str, int, list[float], list[float]]]:
    """Yields for each way and number of processes the seconds of each round, by the clock and of CPU time."""
    groups = {count: started(count, options) for count in options.processes}
    try:
        for way in WAYS:
            for group in groups.values():
                turn(group, way)  # not counted
            rounds = [
                {count: turn(group, way) for count, group in groups.items()} for _ in range(options.rounds)
            ]
            if len({digest for one in rounds for *_, digest in one.values()}) > 1:
                raise SystemExit(f"FAIL  {way}: the processes draw other frames than one process.")
            for count in groups:
                yield way, count, *([one[count][k] for one in rounds] for k in (0, 1))
    finally:
        for process in (process for group in groups.values() for process in group):
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="demo", help="a release, or a folder")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--draw", action="store_true", help="be one of the processes")
    options = parser.parse_args()
    if options.draw:
        draw(options.release, options.frames, options.steps)
        return
    print(f"{machine()}; {options.frames} frames, {options.steps} steps, {options.rounds} rounds")
    first = {}
    for way, count, *times in measured(options):
        first.setdefault(way, times)
        told = []
        for k, what in enumerate(("by the clock", "CPU of the busiest")):
            ratios = [one / other for one, other in zip(first[way][k], times[k], strict=True)]
            told.append(
                f"{statistics.median(times[k]):7.2f} s {what}, speed {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
        print(f"{way:<6} {count} {'process ' if count == 1 else 'processes'}: {'; '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
