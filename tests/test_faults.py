"""A full disk, a killed process, a damaged model: one sentence, nothing half-written, and the next request
works.

The disk is a limit on the size of files (RLIMIT_FSIZE), which fails as a full one does, in the middle of
writing.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hellomeme.cli.jobs import read_table
from hellomeme.cli.main import main
from hellomeme.errors import HelloMemeError
from hellomeme.face.motion import Motion
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import ClipWriter, probe
from hellomeme.io.metadata import Stamp
from hellomeme.releases.load import load
from hellomeme.settings import Settings

resource = pytest.importorskip("resource", reason="Windows has no limits of this kind")
ROOT = Path(__file__).parent.parent
NOISE = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), np.uint8)  # which does not compress
STAMP = Stamp(Settings(seed=7), "demo")


@contextlib.contextmanager
def full_disk(room=1000):
    """No file grows beyond `room` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def save_picture(path):
    metadata.save(Image.fromarray(NOISE[0]), path, STAMP, overwrite=True)


def save_clip(path):
    with ClipWriter(path, Fraction(25)) as writer:
        for frame in NOISE:
            writer.write(frame)


def save_motion(path):
    noise = np.random.default_rng(0)
    eye = np.tile(np.eye(3), (200, 1, 1))
    coefficients = noise.random((200, 51), np.float32)
    Motion(coefficients, eye, noise.random((200, 2)), np.full(200, 90.0), np.ones(200, bool)).save(path)


def decoded(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


WRITERS = {  # name of the file -> (what writes it, what reads it)
    "a.png": (save_picture, decoded),
    "a.jpg": (save_picture, decoded),
    "a.webp": (save_picture, decoded),
    "a.mp4": (save_clip, probe),
    "a.npz": (save_motion, Motion.load),
}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, beside the user's."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk(tmp_path, temporary, name, older):
    write, read = WRITERS[name]
    path = tmp_path / "mine" / name
    path.parent.mkdir()
    if older:
        path.write_text("mine")
    with full_disk(), pytest.raises(HelloMemeError) as caught:
        write(path)
    assert str(path) in str(caught.value) and "could not be" in str(caught.value)
    assert [file.read_text() for file in path.parent.iterdir()] == ["mine"] * older and not list(
        temporary.iterdir()
    )
    write(path)
    read(path)
    assert [file.name for file in path.parent.iterdir()] == [name] and not list(temporary.iterdir())


def test_a_full_disk_where_the_finished_clip_is_moved_to(tmp_path, temporary, monkeypatch):
    def move(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:100])
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patch,
        pytest.raises(HelloMemeError, match="could not be written: No space left on device.$"),
    ):
        patch.setattr("shutil.move", move)
        save_clip(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == [temporary] and not list(temporary.iterdir())


def test_no_folder_for_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(HelloMemeError, match="could not be encoded: No such file or directory.$"):
        save_clip(tmp_path / "a.mp4")


KILLED = """
import os, sys
sys.path[:0] = sys.argv[2:]
import test_faults

def killed(source, target):
    with open(target, "wb") as file:
        file.write(b"half a file")
    os.kill(os.getpid(), 9)

test_faults.Path.write_bytes = lambda path, data: killed(data, path)
test_faults.shutil.move = killed
test_faults.tempfile_in(sys.argv[1])
test_faults.WRITERS[os.path.basename(sys.argv[1])][0](sys.argv[1])
"""


def tempfile_in(path):
    import tempfile

    tempfile.tempdir = str(Path(path).parent.parent / "temporary")


@pytest.mark.parametrize("name", ["a.png", "a.mp4", "a.npz"])
def test_a_process_killed_while_writing(tmp_path, temporary, name):
    """Only a draft of another name is left, and the next one for the same place removes it."""
    path = tmp_path / "mine" / name
    path.parent.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(ROOT), str(ROOT / "tests")],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.returncode == -9, run.stderr
    left = list(path.parent.iterdir())
    assert (
        len(left) == 1
        and left[0].name.startswith(f".{name}-")
        and bool(list(temporary.iterdir())) == (name == "a.mp4")
    )
    another = path.parent / f".{name}-{os.getpid()}-b.part"  # of a process that is still at it
    another.touch()
    write, read = WRITERS[name]
    write(path)
    read(path)
    assert sorted(path.parent.iterdir()) == sorted([path, another]) and not list(temporary.iterdir())


def test_a_model_folder_damaged_anywhere(model_folder, tmp_path):
    """Weights and configurations are always missed; of other files some are not needed."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for damaged in (content[: len(content) // 2], None):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            try:
                load(str(folder), device="cpu")
                found = None
            except HelloMemeError as error:
                found = str(error)
            needed = file.suffix == ".safetensors" or file.name in ("config.json", "scheduler_config.json")
            assert found is not None or not needed, (
                f"{file} {'is missing' if damaged is None else 'is cut off'}"
            )
            assert found is None or ("\n" not in found and found.endswith(".")), found
            file.write_bytes(content)
    load(str(folder), device="cpu")


def test_a_batch_goes_on_after_a_full_disk_and_after_a_half_written_picture(model_folder, tmp_path, capfd):
    import photos

    for name, seed in (("toon.png", 3), ("face.png", 5)):
        Image.fromarray(photos.toon(seed)).save(tmp_path / name)
    table = tmp_path / "jobs.csv"
    table.write_text("reference,driver,output,seed\ntoon.png,face.png,a.png,1\ntoon.png,face.png,b.png,2\n")
    command = [
        "batch",
        str(table),
        str(tmp_path / "out"),
        "--release",
        str(model_folder),
        "--device",
        "cpu",
        "--steps",
        "1",
    ]
    with full_disk(3000):
        assert main(command) == 1
    received = capfd.readouterr().err
    assert "0 made, 0 there already, 2 failed" in received and received.count("could not be written") == 2
    assert not list((tmp_path / "out").iterdir())
    assert main(command) == 0 and "2 made" in capfd.readouterr().err
    jobs = read_table(table, tmp_path / "out").jobs
    assert [metadata.read(job.output).settings.seed for job in jobs] == [1, 2]
    (tmp_path / "out" / "b.png").unlink()
    (tmp_path / "out" / ".b.png-4194305-x.part").write_bytes(b"half")  # a number that no process has
    assert main(command) == 0 and "1 made, 1 there already" in capfd.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
