"""Threads of torch on the CPU: `python benchmarks/threads.py`.

The same picture is drawn by processes with one thread, with one for each core whose threads spin while they
wait, and with as many whose threads sleep; with the demo model, and with a UNet of a quarter of Stable
Diffusion's size. They take turns, first on the machine as it is, then beside processes that keep every core
busy. Wall clock and CPU time in the median, and against one thread.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from common import ROOT, machine

from hellomeme.threads import usable_cores

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rounds", type=int, default=5, help="turns of each process")
parser.add_argument("--model", choices=("demo", "large"), help="only this one")
parser.add_argument("--draw", nargs=2, metavar=("MODEL", "THREADS"), help="be one of the processes")
options = parser.parse_args()

CORES = max(2, usable_cores())
# name -> (threads, OMP_WAIT_POLICY; None for the default of OpenMP)
WAYS = {"1 thread": (1, None), f"{CORES} that spin": (CORES, None), f"{CORES} that sleep": (CORES, "PASSIVE")}
PICTURES = {"demo": 2, "large": 1}  # of one turn


def picture(model: str) -> Callable[[], object]:
    """What draws one picture; for "large" one prediction of a UNet of random weights."""
    import torch

    if model == "demo":
        from hellomeme import Reenactor, Settings

        reenactor = Reenactor.from_release("demo", device="cpu")
        reenactor.set_reference(ROOT / "examples/references/mila.png")
        driver = reenactor.portrait(ROOT / "examples/drivers/laugh.png")
        return lambda: reenactor.image(driver, Settings())
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(block_out_channels=(160, 320, 640, 640), cross_attention_dim=768).eval()
    inputs = torch.randn(1, 4, 32, 32), torch.tensor(0), torch.randn(1, 77, 768)

    def predict():
        with torch.inference_mode():
            unet(*inputs)

    return predict


def draw(model: str, threads: int) -> None:
    """Draws a turn for each line of standard input, and writes the seconds of a picture: wall clock, CPU."""
    import torch

    torch.set_num_threads(threads)
    make = picture(model)
    make()
    for _ in sys.stdin:
        began, used = time.perf_counter(), time.process_time()
        for _ in range(PICTURES[model]):
            make()
        passed = time.perf_counter() - began, time.process_time() - used
        print(json.dumps([seconds / PICTURES[model] for seconds in passed]), flush=True)


@contextlib.contextmanager
def started(commands: list[list[str]], environments: list[dict], **pipes):
    """Processes, which are ended afterwards."""
    processes = [
        subprocess.Popen(command, env=os.environ | environment, text=True, **pipes)
        for command, environment in zip(commands, environments, strict=True)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def turn(process: subprocess.Popen) -> list[float]:
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def compare(model: str) -> None:
    os.environ.pop("OMP_NUM_THREADS", None)
    commands = [[sys.executable, __file__, "--draw", model, str(threads)] for threads, _ in WAYS.values()]
    policies = [{"OMP_WAIT_POLICY": policy} if policy else {} for _, policy in WAYS.values()]
    busy = [[sys.executable, "-c", "while True: pass"]] * usable_cores()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started(commands, policies, **pipes) as processes:
        for process in processes:
            turn(process)
        for beside in (0, len(busy)):
            with started(busy[:beside], [{}] * beside):
                taken = [[turn(process) for process in processes] for _ in range(options.rounds)]
            about = f"load average {os.getloadavg()[0]:.1f}"
            print(f"{model}, beside {beside} busy processes of this script ({about}):")
            walls, used = ([[each[k] for each in row] for row in taken] for k in (0, 1))
            for way, name in enumerate(WAYS):
                wall, cpu = (statistics.median(row[way] for row in rows) for rows in (walls, used))
                ratios = [statistics.median(row[way] / row[0] for row in rows) for rows in (walls, used)]
                print(
                    f"  {name:<14} {wall:7.3f} s a picture, {cpu:7.3f} s of CPU time;"
                    f" {ratios[0]:.2f} and {ratios[1]:.2f} times that of one thread",
                    flush=True,
                )


if __name__ == "__main__":
    if options.draw:
        draw(options.draw[0], int(options.draw[1]))
    else:
        print(machine())
        for model in [options.model] if options.model else PICTURES:
            compare(model)
