"""How soon the program is there: `python benchmarks/start.py [--rounds 3]`.

CPU time, and time by the clock: of `import hellomeme`; until the page answers in a process of its own; from
then on until the first visitor has a picture, with the import of the networks, their loading, and what else
the page does after its start; and of a picture of a loaded model on one thread, from the driver's file to
pixels. On a busy machine only the CPU time says much.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence

import psutil
from common import ROOT, machine, model
from gradio_client import Client, handle_file

IMPORT = """
import sys, time
sys.path.insert(0, sys.argv[1])
cpu, clock = time.process_time(), time.perf_counter()
import hellomeme
print(time.process_time() - cpu, time.perf_counter() - clock)
"""
TARGETS = {  # s of CPU time
    "import hellomeme": 0.05,
    "the page answers": 3.0,
    "the first picture after that": 1.5,
    "a picture": 0.12,
}
PICTURES = 12
PAIR = (ROOT / "examples/references/mila.png", ROOT / "examples/drivers/laugh.png")
LONGEST = 600.0  # s until the page answers, on a busy machine


def import_times() -> tuple[float, float]:
    """Seconds of CPU time and by the clock."""
    command = [sys.executable, "-c", IMPORT, str(ROOT)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cpu, clock = map(float, output.split())
    return cpu, clock


def page_times(release: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """The same until the page answers, and from then on until there is a picture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--device", "cpu"]
        command += ["--release", release]
        environment = os.environ | {"GRADIO_TEMP_DIR": folder}
        began = time.perf_counter()
        page = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            process = psutil.Process(page.pid)
            while not answers(url):
                if page.poll() is not None or time.perf_counter() - began > LONGEST:
                    raise SystemExit("FAIL  the page does not start")
                time.sleep(0.02)
            there, there_cpu = time.perf_counter(), cpu_time(process)
            client = Client(url, verbose=False, httpx_kwargs={"timeout": LONGEST})
            reference, driver = map(handle_file, PAIR)
            client.predict(reference=reference, driver=driver, api_name="/image")
            drawn, drawn_cpu = time.perf_counter(), cpu_time(process)
        finally:
            page.terminate()
            page.wait()
    return (there_cpu, there - began), (drawn_cpu - there_cpu, drawn - there)


def picture_times(release: str) -> list[tuple[float, float]]:
    """The same of pictures, after the first ones."""
    import torch

    from hellomeme import Reenactor

    torch.set_num_threads(1)
    reenactor = Reenactor.from_release(release, device="cpu")
    reenactor.set_reference(PAIR[0])
    times = []
    for _ in range(2 + PICTURES):
        cpu, clock = time.process_time(), time.perf_counter()
        reenactor.image(PAIR[1])
        times.append((time.process_time() - cpu, time.perf_counter() - clock))
    return times[2:]


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=LONGEST).status == 200
    except OSError:
        return False


def cpu_time(process: psutil.Process) -> float:
    """s, with that of the processes it has started and ended."""
    return sum(process.cpu_times()[:4])


def show(name: str, measured: Sequence[tuple[float, float]]) -> bool:
    """Prints a line; returns whether the target is met."""
    cpu, clock = (statistics.median(times) for times in zip(*measured, strict=True))
    good = cpu <= TARGETS[name]
    print(
        f"{'pass' if good else 'FAIL'}  {name}: {cpu:.3f} s of CPU time (target: {TARGETS[name]:g}), "
        f"{clock:.3f} s by the clock"
    )
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description="How soon the program is there.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--release", default="demo", help='a release, a folder, or "tiny"')
    options = parser.parse_args()
    print(machine())
    print(f"load average {os.getloadavg()[0]:.1f}")
    imports = [import_times() for _ in range(options.rounds)]
    release = model(options.release)
    there, drawn = zip(*(page_times(release) for _ in range(options.rounds)), strict=True)
    measured = dict(zip(TARGETS, (imports, there, drawn, picture_times(release)), strict=True))
    good = [show(name, times) for name, times in measured.items()]
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
