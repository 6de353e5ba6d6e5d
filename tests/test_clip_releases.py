"""Clips of releases from v3 on by the command line and on the page, from folders in the released layout on a
stand-in for the hub."""

import dataclasses

import hub
import imageio.v3 as iio
import numpy as np
import pytest
from clips import stamps
from photos import toon
from PIL import Image
from tiny_releases import tiny, write_repositories

from hellomeme.cli import main
from hellomeme.face.motion import Motion
from hellomeme.releases import load
from hellomeme.releases.table import RELEASES
from hellomeme.settings import ClipSettings
from page import state as states, video_tab


@pytest.fixture
def run(tmp_path, monkeypatch, online, capfd):
    """run(release, frames, *options) -> (pictures (T, H, W, 3) of a clip, what was asked of the hub)."""
    Image.fromarray(toon(3)).save(tmp_path / "reference.png")

    def run(name, frames, *options):
        row = tiny(next(row for row in RELEASES if row.name == name))
        monkeypatch.setattr(load, "RELEASES", (row,))
        t = np.linspace(0, 0.4, frames)
        cos, sin, zero, one = np.cos(t), np.sin(t), np.zeros(frames), np.ones(frames)
        rotation = np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).reshape(frames, 3, 3)
        Motion(
            np.tile(t[:, None], 51).astype(np.float32),
            rotation,
            np.full((frames, 2), 256.0),
            np.full(frames, 90.0),
            np.ones(frames, bool),
        ).save(tmp_path / "turn.npz")
        output = tmp_path / "new.mp4"
        command = "video", tmp_path / "reference.png", tmp_path / "turn.npz", output, "--overwrite"
        quick = "--release", name, "--device", "cpu", "--steps", "1", "--guidance", "1", *options
        with hub.serve(write_repositories(row, tmp_path / name)) as (endpoint, asked):
            online(endpoint)
            status = main.main([*map(str, command), *map(str, quick)])
        assert (status, capfd.readouterr().out) == (0, f"{output}\n")
        assert len(stamps(output)[0]) == frames
        return iio.imread(output), asked

    return run


def on_the_page(name, folder):
    """The first three frames of the same clip, from what is now on this computer."""
    clip = {field.name: field.default for field in dataclasses.fields(ClipSettings)} | {"frames": 3}
    values = dict(
        expression=1, head=1, translation=0, guidance=1, steps=1, seed=0, prompt="", negative_prompt=""
    )
    values |= clip | dict(reference_face=None, driver_face=None, driver=None)
    files = {"reference": str(folder / "reference.png"), "motion_file": str(folder / "turn.npz")}
    return iio.imread(video_tab.make_video(name, **values, **files)[0])


@pytest.mark.parametrize("name, frames", [("v3", 3), ("v4", 23), ("v5", 3), ("v5b", 3)])
def test_a_clip_of_a_release_from_the_hub(run, name, frames, online, model_folder, tmp_path, monkeypatch):
    """23 frames are a number at which the released code crashes."""
    pictures, asked = run(name, frames)
    assert pictures.shape == (frames, 128, 128, 3) and pictures.std() > 1
    assert any("motion" in path for path in asked)

    online(None)
    monkeypatch.setattr(states, "STATE", states.State(str(model_folder), device="cpu"))
    shown = on_the_page(name, tmp_path)
    assert shown.shape == (3, 128, 128, 3)
    if frames == 3:
        np.testing.assert_array_equal(shown, pictures)


def test_without_motion_networks_each_frame_is_drawn_alone(run):
    pictures, asked = run("v5", 2, "--no-motion")
    assert pictures.shape == (2, 128, 128, 3) and not any("motion" in path for path in asked)
