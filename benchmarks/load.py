"""Many visitors at once: `python benchmarks/load.py [--clients 20] [--minutes 5]`.

The page is started as its users start it, with the demo model on the CPU and in a process of its own. Each
client has a reference, a driver and a seed that no other has, and goes on asking for that picture, twice at a
time, so that the queue overflows. An answer counts as right if its seed and its pixels are those of the
picture that the same request got when nobody else was there. At the end one more client leaves in the middle
of a clip, while another waits behind it.
"""

import argparse
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from common import ROOT, head, machine
from gradio_client import Client, handle_file
from gradio_client.utils import QueueError
from PIL import Image

from hellomeme.io import metadata

FULL = "Queue is full! Please try again."  # what gradio_client says for the server's refusal
STEPS, LEFT_STEPS = 2, 50
SLACK = 5.0  # s: of two requests made closer together than this either may have reached the queue first
AGAIN = 1.0  # s before one who was refused asks again
FLAT = 1.05  # at most so many times the memory of the second minute in the last
NOTICED = 15.0  # s: Gradio looks that often whether a client is there still

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--clients", type=int, default=20)
parser.add_argument("--minutes", type=float, default=5)
parser.add_argument("--at-once", type=int, default=2, help="requests that each client has under way")
parser.add_argument("--leave", nargs=2, metavar=("URL", "CLIP"), help="be the client that will be killed")
options = parser.parse_args()


@dataclass
class Tally:
    """What came of all requests. answered: (asked, answered), s."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def request(client: int) -> dict:
    """The arguments of the picture that only this client asks for."""
    references, drivers = (
        sorted((ROOT / "examples" / kind).glob("*.png")) for kind in ("references", "drivers")
    )
    number, shift = client % len(references), client // len(references)
    return {
        "reference": handle_file(references[number]),
        "driver": handle_file(drivers[(number + shift) % len(drivers)]),
        "seed": 1000 + client,
        "steps": STEPS,
        "expression": 1.0 + 0.05 * (client % 20),
    }


def visitor(url: str) -> Client:
    """A client that waits: the clients share the machine with the page."""
    return Client(url, verbose=False, httpx_kwargs={"timeout": 120})


def pixels(path: str) -> np.ndarray:
    return np.array(Image.open(path)).astype(int)


def draw(client: Client, asked: dict) -> tuple[int, np.ndarray]:
    """(seed in the file, pixels) of an answer."""
    path = client.predict(**asked, api_name="/image")[0]
    return metadata.read(path).settings.seed, pixels(path)


def ask(client: Client, asked: dict, alone: np.ndarray, until: float, tally: Tally) -> None:
    while (began := time.monotonic()) < until:
        try:
            seed, picture = draw(client, asked)
        except QueueError as error:
            if str(error) == FULL:
                tally.refused.append(began)
            else:
                tally.failed.append(f"refused with: {error}")
            time.sleep(AGAIN)
            continue
        except Exception as error:
            tally.failed.append(f"{type(error).__name__}: {error}")
            time.sleep(AGAIN)
            continue
        tally.answered.append((began, time.monotonic()))
        if seed != asked["seed"] or not np.array_equal(picture, alone):
            tally.wrong.append(
                f"seed {seed} for {asked['seed']}, pixels differ by up to {abs(picture - alone).max()}"
            )


@contextlib.contextmanager
def page(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """(process, address) of the page, which keeps its temporary files in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = {name: str(folder) for name in ("TMPDIR", "TEMP", "TMP")} | {
        "GRADIO_TEMP_DIR": str(folder / "gradio")
    }
    with open(folder / "log", "w") as log:
        command = [
            sys.executable,
            str(ROOT / "app.py"),
            "--device",
            "cpu",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **home}, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5).close()
                break
            if process.poll() is not None:
                sys.exit((folder / "log").read_text())
            time.sleep(1)
        yield psutil.Process(process.pid), url
    finally:
        process.terminate()
        process.wait()


def overtaken(answered: list[tuple[float, float]]) -> int:
    """How many were answered before one who had asked at least `SLACK` earlier."""
    return sum(
        any(done < other_done for other_asked, other_done in answered if other_asked < asked - SLACK)
        for asked, done in answered
    )


def memory(process: psutil.Process, until: float) -> list[float]:
    """MiB resident in the mean of each minute, a sample a second."""
    minutes, began = {}, time.monotonic()
    while (now := time.monotonic()) < until:
        minutes.setdefault(int((now - began) / 60), []).append(process.memory_info().rss / 2**20)
        time.sleep(1)
    return [statistics.mean(samples) for samples in minutes.values()]


def leaves(url: str, clip: str) -> None:
    """Asks for a long clip, says how far it is, and waits to be killed."""
    arguments = {"reference": request(0)["reference"], "driver": handle_file(clip)}
    job = visitor(url).submit(**arguments, frames=0, steps=LEFT_STEPS, api_name="/video")
    while not job.done():
        progress = (job.status().progress_data or [None])[0]
        if progress is not None and progress.length and progress.index and "rawing" in (progress.desc or ""):
            print(progress.index, progress.length, flush=True)
        time.sleep(0.5)
    print("ended", job.exception(), flush=True)


def left(url: str, folder: Path) -> tuple[float, str, list[str]]:
    """(s from the end of a client in the middle of a clip to the next one's picture; how far the clip was;
    its remains)."""
    clip = head(folder / "long.mp4", 6)
    waiting = visitor(url)
    leaver = subprocess.Popen(
        [sys.executable, __file__, "--leave", url, str(clip)], stdout=subprocess.PIPE, text=True
    )
    fields = leaver.stdout.readline().split()
    if not fields or fields[0] == "ended":
        sys.exit(f"the clip that was to be left ended by itself: {' '.join(fields)}")
    job = waiting.submit(**request(1), api_name="/image")
    time.sleep(2)
    if job.done():
        sys.exit("the one who waited was served beside the clip")
    leaver.send_signal(signal.SIGKILL)
    began = time.monotonic()
    leaver.wait()
    job.result()
    seconds = time.monotonic() - began
    return seconds, f"{fields[0]} of {fields[1]} frames", [path.name for path in folder.glob("hellomeme-*")]


def main() -> bool:
    print(machine())
    with tempfile.TemporaryDirectory(prefix="load-") as name, page(Path(name)) as (process, url):
        first = visitor(url)
        alone = [draw(first, request(i))[1] for i in range(options.clients)]
        if any(np.array_equal(a, b) for i, a in enumerate(alone) for b in alone[:i]):
            sys.exit("two clients' pictures are alike: a wrong answer would not show")
        began = time.monotonic()
        draw(first, request(0))
        one = time.monotonic() - began
        clients = [visitor(url) for _ in range(options.clients)]

        tally, until = Tally(), time.monotonic() + 60 * options.minutes
        threads = [
            threading.Thread(target=ask, args=(client, request(i), alone[i], until, tally))
            for i, client in enumerate(clients)
            for _ in range(options.at_once)
        ]
        for thread in threads:
            thread.start()
        used = memory(process, until)
        for thread in threads:
            thread.join()
        freed, far, remains = left(url, Path(name))

    waits = [done - asked for asked, done in tally.answered]
    print(f"alone: {len(alone)} different pictures, one in {one:.2f} s")
    print(
        f"{options.clients} clients with {options.at_once} requests each at once for {options.minutes:g} "
        "min: "
        f"{len(waits)} answered, {len(tally.refused)} refused with {FULL!r}, {len(tally.failed)} failed"
    )
    print(f"waiting: {statistics.median(waits):.1f} s in the median, {max(waits):.1f} s at most")
    print(
        f"wrong pictures: {len(tally.wrong)}; answered before one who asked {SLACK:g} s earlier: "
        f"{overtaken(tally.answered)}"
    )
    print("memory of the server by minute, MiB:", " ".join(f"{mean:.0f}" for mean in used))
    print(
        f"a client left at {far} of a clip: the next one had its picture {freed:.1f} s later, remains: "
        f"{remains or 'none'}"
    )
    for line in (tally.wrong + tally.failed)[:10]:
        print(" ", line)

    checks = {
        "every request answered or refused with the queue's sentence": bool(waits) and not tally.failed,
        "no wrong picture": not tally.wrong,
        "in order": not overtaken(tally.answered),
        "the slot of one who left is free, nothing of the clip remains": freed < NOTICED + 10 * one
        and not remains,
    }
    if len(used) > 2:
        ratio = used[-1] / used[1]
        print(f"last minute against second: {ratio:.3f}")
        checks["memory flat"] = 1 / FLAT <= ratio <= FLAT
    else:
        print("memory flat: not measured in less than three minutes")
    for check, passed in checks.items():
        print(f"{'pass' if passed else 'FAIL'}: {check}")
    return all(checks.values())


if __name__ == "__main__":
    if options.leave:
        leaves(*options.leave)
    else:
        sys.exit(not main())
