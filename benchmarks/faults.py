"""What happens when the disk is full, the model damaged or the process killed: `python benchmarks/faults.py`.

All through the command line, with the demo model on the CPU. Whatever the fault: one sentence at most,
nothing half-written under a name of the user's, no file of before lost, and the same command works once the
fault is gone.

The full disk is a small tmpfs where one may be mounted, otherwise a limit on the size of files
(RLIMIT_FSIZE).
"""

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from common import ROOT, head, machine
from PIL import Image

from hellomeme.cli import main
from hellomeme.face.motion import Motion
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import probe, read_frames

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--only", choices=("disk", "model", "killed"), help="only these faults")
options = parser.parse_args()

REFERENCE, DRIVER = (str(ROOT / "examples" / name) for name in ("references/mila.png", "drivers/laugh.png"))
DISK = 256 << 10  # bytes
QUICK = ["--device", "cpu", "--steps", "1"]
# Without it a folder is one of a model that was trained without, and is drawn with like that
OPTIONAL = "face_basis.safetensors"
failures = 0


def run(*arguments) -> tuple[int, str]:
    """(exit status, what was said on standard error) of a command."""
    with tempfile.TemporaryFile("w+", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as said, kept(2):
        os.dup2(said.fileno(), 2)
        with contextlib.redirect_stdout(None):
            status = main.main([str(argument) for argument in arguments])
        said.seek(0)
        return status, said.read().strip()


@contextlib.contextmanager
def kept(descriptor: int) -> Iterator[None]:
    """A file descriptor that is afterwards what it was before."""
    copy = os.dup(descriptor)
    try:
        yield
    finally:
        os.dup2(copy, descriptor)
        os.close(copy)


def report(fault: str, passed: bool, said: str) -> None:
    global failures
    failures += not passed
    print(f"{'pass' if passed else 'FAIL'}  {fault}: {said}", flush=True)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# The disk


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """Yields ("tmpfs" or "limit"); meanwhile the folder has room for `DISK` bytes, or no file may grow
    larger."""
    folder.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)],
            stderr=subprocess.DEVNULL,
            check=False,
        ).returncode
        == 0
    )
    try:
        yield "tmpfs" if mounted else "limit"
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path, kind: str) -> Iterator[None]:
    """The disk is full, until the end of the block."""
    if kind == "limit":
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        return
    filler = folder / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        yield
    finally:
        filler.unlink()


def whole(path: Path) -> bool:
    """Whether a picture, clip or motion file can be read to its end."""
    if path.suffix == ".npz":
        return len(Motion.load(path)) > 0
    if path.suffix == ".mp4":
        return len(list(read_frames(path, probe(path).rate))) == probe(path).frames
    with Image.open(path) as picture:
        picture.load()
    return metadata.read(path) is not None


def disk(folder: Path) -> None:
    clip = head(folder / "driver.mp4", 1, 12)
    table = folder / "jobs.csv"
    table.write_text(
        f"reference,driver,output,seed\n{REFERENCE},{DRIVER},a.png,1\n{REFERENCE},{DRIVER},b.png,2\n"
    )
    with small_disk(folder / "disk") as kind:
        print(f"# disk full ({kind})")
        place = folder / "disk"
        cases = {
            "an image": ("image", REFERENCE, DRIVER, place / "a.png", *QUICK),
            "a clip": ("video", REFERENCE, clip, place / "a.mp4", *QUICK),
            "a motion file": ("motion", clip, place / "a.npz"),
            "a batch": ("batch", table, place, *QUICK),
        }
        for name, command in cases.items():
            disk_case(f"{name}, its folder full", command, place, kind)
        home = tempfile.tempdir
        tempfile.tempdir = str(place)
        (folder / "out").mkdir()
        command = ("video", REFERENCE, clip, folder / "out" / "a.mp4", *QUICK)
        disk_case("a clip, the folder for temporary files full", command, place, kind, folder / "out")
        tempfile.tempdir = home


def disk_case(name: str, command: tuple, place: Path, kind: str, results: Path | None = None) -> None:
    results = results or place
    with full(place, kind):
        status, said = run(*command)
        left = [name for name in {*names(place), *names(results)} if name != "filler"]
    again, error = run(*command)
    good = all(whole(results / name) for name in names(results)) and names(results)
    one = len(said.splitlines()) == 1 or command[0] == "batch"
    report(
        name,
        bool(status in (1, 2) and one and not left and again == 0 and good),
        f"{status}, {said!r}, left {left}; with room: {again}, {names(results)} {error if again else ''}",
    )
    for made in names(results):
        (results / made).unlink()


# The model


def model(folder: Path) -> None:
    print("# model folder damaged")
    release = Path(shutil.copytree(ROOT / "assets" / "demo", folder / "model"))
    output = folder / "a.png"
    command = ("image", REFERENCE, DRIVER, output, "--release", release, "--overwrite", *QUICK)
    run(*command)
    right = output.read_bytes()
    for file in sorted(
        path
        for path in release.rglob("*")
        if path.is_file() and path.name not in ("README.md", "model_index.json")
    ):
        content, outcomes = file.read_bytes(), {}
        damages = {
            "cut off": content[: len(content) // 2],
            "emptied": b"",
            "zeros": bytes(len(content)),
            "missing": None,
        }
        for kind, damaged in damages.items():
            file.unlink() if damaged is None else file.write_bytes(damaged)
            status, said = run(*command)
            # refused in a line, or not needed at all
            kept = output.read_bytes() == right
            fine = kept and ((status == 2 and len(said.splitlines()) == 1) or status == 0)
            without = damaged is None and file.name == OPTIONAL and status == 0
            said = "drawn without it" if without else "not needed" if status == 0 else said
            outcomes[kind] = (fine or without, said.replace(str(release), "FOLDER"))
            file.write_bytes(content)
            output.write_bytes(right)
        for said in dict.fromkeys(said for _, said in outcomes.values()):
            kinds = [kind for kind in outcomes if outcomes[kind][1] == said]
            report(
                f"{file.relative_to(release)} {', '.join(kinds)}",
                all(outcomes[kind][0] for kind in kinds),
                repr(said),
            )
    status, said = run(*command)
    report("repaired", status == 0 and output.read_bytes() == right, f"{status} {said}")


# The process


def killed(folder: Path) -> None:
    print("# process killed (SIGKILL)")
    clip = head(folder / "driver.mp4", 4, 12)
    temporary, out = folder / "temporary", folder / "out"
    temporary.mkdir(), out.mkdir()

    def drafts() -> list[Path]:
        return [path for path in temporary.rglob("clip.mp4") if path.stat().st_size]

    command = ["video", REFERENCE, clip, out / "a.mp4", *QUICK]
    kill_case("while a clip is written", command, temporary, out, drafts, 1)

    table = folder / "jobs.csv"
    rows = [f"{REFERENCE},{DRIVER},{seed}.png,{seed}\n" for seed in range(6)]
    table.write_text("reference,driver,output,seed\n" + "".join(rows))
    command = ["batch", table, out, "--device", "cpu", "--steps", "20"]
    kill_case("while a batch is written", command, temporary, out, lambda: sorted(out.glob("*.png"))[2:], 6)


def kill_case(
    name: str, command: list, temporary: Path, out: Path, ripe: Callable[[], object], files: int
) -> None:
    command = [sys.executable, "-m", "hellomeme", *map(str, command)]
    settings = {
        "cwd": ROOT,
        "env": {**os.environ, "TMPDIR": str(temporary)},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
    }
    process = subprocess.Popen(command, **settings)
    while not ripe() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    early = process.wait() == -9
    there = names(out)
    good = all(whole(out / name) for name in there)
    again = subprocess.run(command, **settings, text=True, check=False)
    done = names(out)
    left = names(temporary)
    good = good and len(done) == files and all(whole(out / name) for name in done) and not left
    said = (again.stderr.strip().splitlines() or [""])[-1]
    report(
        name,
        early and good and again.returncode == 0,
        f"killed with {there} there; again: {again.returncode} {said!r}, {done}; "
        f"left among the temporary files: {left or 'nothing'}",
    )
    for made in done:
        (out / made).unlink()


if __name__ == "__main__":
    print(machine())
    for fault in (disk, model, killed):
        if options.only in (None, fault.__name__):
            with tempfile.TemporaryDirectory(prefix="faults-") as name:
                fault(Path(name))
    print(f"{failures} failed" if failures else "all pass")
    sys.exit(bool(failures))
