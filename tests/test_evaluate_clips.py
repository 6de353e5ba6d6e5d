"""`hellomeme evaluate`: the measures on frames whose figures are known, and whole runs with the demo model on
the example clips."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clips import H264, ffmpeg

from hellomeme.cli import evaluate, main, processes
from hellomeme.errors import HelloMemeError
from hellomeme.evaluation import figures, measures, networks
from hellomeme.evaluation.clips import DRAWN, SYSTEMS, batches, tasks
from hellomeme.evaluation.measures import WINDOW, Batch
from hellomeme.evaluation.networks import Unavailable
from hellomeme.face.motion import Motion
from hellomeme.releases.load import find

CLIPS = Path(__file__).parent.parent / "examples" / "clips"


def frames(seed=0, count=WINDOW, side=32):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def motion(count=WINDOW):
    turns = np.repeat(np.eye(3)[None], count, 0)
    return Motion(
        np.zeros((count, 51), np.float32), turns, np.zeros((count, 2)), np.ones(count), np.ones(count, bool)
    )


def batch(pictures, driver, first=0):
    return Batch(pictures, driver, first, motion(len(pictures)), pictures[0])


# Measures


def test_likeness_is_over_all_frames_but_the_first():
    driver = frames(side=32)
    pictures = driver.copy()
    pictures[0] = 0  # the reference's own frame counts nowhere
    pictures[1] = 255 - driver[1]
    expected = 10 * np.log10(255**2 / np.mean((pictures[1].astype(float) - driver[1]) ** 2))
    measured = measures.Likeness(measures.psnr)
    measured.add(batch(pictures, driver))
    highest = measures.HIGHEST_PSNR
    assert measured.value() == pytest.approx((expected + 14 * highest) / 15, rel=1e-4)
    measured.add(batch(driver[:1], driver[:1], first=WINDOW))  # the first of a batch, but not of the clip
    assert measured.value() == pytest.approx(highest)
    measured = measures.Likeness(measures.ssim)
    measured.add(batch(driver, driver))
    assert measured.value() == pytest.approx(1)
    measured.add(batch(pictures, driver))
    assert measured.value() < 0.97


class Colours(torch.nn.Module):
    """Stands in for Inception: the mean colour of a picture."""

    num_features = 3

    def forward(self, pictures):
        return pictures.float().mean((2, 3))


def test_fid_keeps_the_drivers_and_forgets_the_pictures():
    from torchmetrics.image.fid import FrechetInceptionDistance

    driver = frames(side=8)
    measured = measures.FrechetInception(FrechetInceptionDistance(Colours(), reset_real_features=False))
    measured.add(batch(driver, driver))
    assert measured.value() == pytest.approx(0, abs=1e-3)
    lighter = np.clip(driver.astype(int) // 2 + 64, 0, 255).astype(np.uint8)
    for _ in range(2):  # of the next system, and of the one after it: the same
        measured.add(batch(lighter, driver))
        assert measured.value() > 1
    assert measured.metric.real_features_num_samples == len(driver)


class Windows:
    """Stands in for cd-fvd's object."""

    def __init__(self):
        self.real, self.fake = [], []

    def add_real_stats(self, windows):
        self.real.append(windows.shape)

    def add_fake_stats(self, windows):
        self.fake.append(windows.shape)

    def compute_fvd_from_stats(self):
        return float(len(self.fake))

    def empty_fake_stats(self):
        self.fake = []


def test_fvd_takes_whole_windows():
    measured, driver = measures.FrechetVideo(Windows()), frames(side=8)
    measured.add(batch(driver, driver))
    with pytest.raises(Unavailable, match="two windows of 16 frames"):
        measured.value()
    for _ in range(2):
        measured.add(batch(driver, driver))
        measured.add(batch(driver[:5], driver[:5], first=WINDOW))  # a rest
    assert measured.value() == 3 and measured.metric.real == [(1, WINDOW, 8, 8, 3)]


def face(jaw=0.0, yaw=0.0):
    blendshapes = np.zeros(51)
    blendshapes[0] = jaw
    sine, cosine = np.sin(np.radians(yaw)), np.cos(np.radians(yaw))
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    where = {"extent": 16.0, "centre": np.array([16.0, 16.0])}
    return SimpleNamespace(blendshapes=blendshapes, rotation=rotation, **where)


def test_readings_are_those_of_the_faces_that_are_found():
    found = iter([[face(jaw=0.51)], [], [face(yaw=6)], [face(yaw=3)]])
    readings = measures.Readings(SimpleNamespace(faces=lambda picture: next(found)))
    pictures = frames(count=3)
    readings.add(batch(pictures, pictures))
    assert readings.value("faces") == pytest.approx(2 / 3)
    assert readings.value("aed") == pytest.approx(0.51 / 51 / 2)
    assert readings.value("apd") == pytest.approx(6 / 3 / 2)
    with pytest.raises(Unavailable, match="no frame shows a face"):
        readings.value("apd")

    def codes(faces):  # of the reference first
        assert faces.shape == (3, 3, 160, 160) and faces.abs().max() <= 1
        return torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])

    identity = measures.Identity(codes, readings, "cpu")
    identity.add(batch(pictures, pictures))
    assert identity.value() == pytest.approx(0.8)


def test_a_network_that_cannot_be_had_says_why(tmp_path, monkeypatch):
    with pytest.raises(Unavailable, match="nonesuch is missing"):
        networks.obtain(dict, ("nonesuch",), tmp_path / "weights")
    with pytest.raises(Unavailable, match="weights, are not on this computer, and HF_HUB_OFFLINE is set"):
        networks.obtain(dict, (), tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"")

    def broken():
        raise OSError("<urlopen error>\nmore")

    with pytest.raises(Unavailable, match=r"weights, could not be had: <urlopen error>\.$"):
        networks.obtain(broken, (), tmp_path / "weights")
    assert networks.obtain(dict, (), tmp_path / "weights") == {}


# Whole runs


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))  # no metric network is there

    def run(folder, *arguments, frames=3):
        options = ["--output", str(tmp_path / "out"), "--device", "cpu", "--frames", str(frames)]
        status = main.main(["evaluate", str(folder), *options, *arguments])
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def drawn(tmp_path):
    """When each picture of an output folder was written."""
    return lambda: {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/*/*/*.png")}


def test_self_reenactment_of_the_example_clips(run, drawn, tmp_path):
    status, table, told = run(CLIPS)
    assert status == 0 and told.splitlines() == [
        "hellomeme: look.mp4 is drawn, 1 of 2.",
        "hellomeme: talk.mp4 is drawn, 2 of 2.",
    ]
    facts = json.loads((tmp_path / "out" / "demo-self" / "figures.json").read_text())
    assert facts["clips"] == ["look.mp4", "talk.mp4"] and facts["frames"] == 6 and facts["left_out"] == {}
    assert facts["settings"]["translation"] == 1 and set(facts["reasons"]) == {"FID", "FVD", "LPIPS"}
    for system in ("copied reference", "warped reference", "demo"):
        row = facts["values"][system]
        assert 10 < row["PSNR"] < 60 and 0.3 < row["SSIM"] < 1
        assert [row[name] for name in ("FID", "FVD", "LPIPS")] == [None] * 3
        line = next(line for line in table.splitlines() if line.startswith(f"| {system} |"))
        assert line.count(figures.MISSING) == 3 and f"{row['PSNR']:.4g}" in line
    assert re.search(r"^FID could not be had: .*\.$", table, re.M)
    # The drawn head lies where the driver's does: nearer to its own driver than to the other clip's
    folders = [tmp_path / "out" / "demo-self" / name for name in facts["clips"]]
    read = {
        (folder, system): next(batches(folder, system, 3, 3)).astype(float)
        for folder in folders
        for system in SYSTEMS
    }
    side = find("demo").size
    assert all(pictures.shape == (3, side, side, 3) for pictures in read.values())
    first, second = (np.abs(read[folders[0], DRAWN] - read[folder, "driver"]).mean() for folder in folders)
    assert first < second

    before = drawn()
    assert run(CLIPS)[:3] == (0, table, "")  # nothing is drawn anew
    assert drawn() == before
    assert run(CLIPS, "--seed", "1")[2].count("is drawn") == 2  # other settings, other pictures
    assert all(before[path] != time for path, time in drawn().items())


def test_pictures_of_another_number_type_are_drawn_anew(tmp_path):
    def digests(*arguments):
        command = ["evaluate", str(CLIPS), "--output", str(tmp_path), *arguments]
        drawing = evaluate._Drawing.of(main._parser().parse_args(command), sys.stderr)
        return [drawing.frames(task)[1] for task in drawing.tasks]

    found = [digests(), digests("--dtype", "float32"), digests("--dtype", "bfloat16")]
    assert found[0] == digests() and len(set(sum(found, []))) == 6


def test_cross_reenactment_and_a_clip_that_cannot_be_used(run, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    for path in CLIPS.iterdir():
        (clips / path.name).symlink_to(path)
    (clips / "notes.txt").write_text("no clip")
    (clips / "wrong.mp4").write_text("no clip")
    ffmpeg("-f", "lavfi", "-i", "color=teal:size=64x64:rate=5:duration=1", *H264, clips / "empty.mp4")
    status, table, told = run(clips, "--cross", frames=2)
    assert status == 1
    facts = json.loads((tmp_path / "out" / "demo-cross" / "figures.json").read_text())
    # Each is driven onto the next by name: empty, look, talk, wrong, and empty again
    assert facts["clips"] == ["look.mp4"] and list(facts["left_out"]) == [
        "empty.mp4",
        "talk.mp4",
        "wrong.mp4",
    ]
    assert facts["left_out"]["empty.mp4"].startswith("No face found in")
    assert facts["left_out"]["talk.mp4"].startswith("The reference clip wrong.mp4 is not a clip")
    assert "\nwrong.mp4 is left out: The driver clip wrong.mp4 is not a clip" in table
    for row in facts["values"].values():
        assert row["FID"] is None and row["identity"] is None and row["faces"] == 1
        assert 0 < row["AED"] < 0.3 and 0 < row["APD"] < 30
    assert "as MediaPipe reads both" in table and set(facts["reasons"]) == {"FID", "identity"}


def test_processes_share_the_clips(run, monkeypatch, tmp_path):
    told = []

    class Connected:
        """Stands in for the group of processes: what the other one found is known."""

        def __init__(self, own, count):
            self.own = own

        def __enter__(self):
            told.append(self.own)
            return told

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("hellomeme.cli.evaluate.gathered", Connected)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(CLIPS, frames=2) == (0, "", "hellomeme: talk.mp4 is drawn, 1 of 1.\n")
    monkeypatch.setenv("RANK", "0")
    status, table, err = run(CLIPS, frames=2)
    assert (status, err) == (0, "hellomeme: look.mp4 is drawn, 1 of 1.\n") and "2 clips, 4 frames" in table
    assert processes.place() == (0, 2)


@pytest.mark.parametrize(
    "make, cross, sentence",
    [
        (None, False, "There is no folder"),
        ([], False, "has no clips: put files in it that end in .mp4"),
        (["a.mp4"], True, "Cross-reenactment needs two clips"),
    ],
)
def test_a_folder_without_clips(tmp_path, make, cross, sentence):
    folder = tmp_path / "clips"
    for name in make if make is not None else ():
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    if make == []:
        folder.mkdir()
    with pytest.raises(HelloMemeError, match=sentence):
        tasks(folder, cross)


def test_nothing_to_measure_and_a_foreign_folder(run, tmp_path):
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "wrong.mp4").write_text("no clip")
    status, out, err = run(clips)
    assert (status, out) == (2, "") and err.startswith(
        "hellomeme: None of the clips can be measured; wrong.mp4"
    )
    foreign = tmp_path / "out" / "demo-self" / "wrong.mp4"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert "is no result of an evaluation: choose another output folder" in run(clips)[2]
    assert (foreign / "thesis.txt").read_text() == "mine"
