"""The commands for clips: what they write, and for bad input status 2, one line on standard error, no
file."""

import numpy as np
import pytest
from clips import H264, ffmpeg, has_sound, stamps
from photos import toon
from PIL import Image

from hellomeme.cli import main
from hellomeme.face.motion import Motion


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A drawn head as reference and, turning from side to side, as a driver of six frames with sound."""
    folder = tmp_path_factory.mktemp("clips")
    Image.fromarray(toon(3)).save(folder / "reference.png")
    for k, yaw in enumerate((0, 8, 16, 16, 8, 0)):
        Image.fromarray(toon(5, yaw=yaw)).save(folder / f"{k}.png")
    ffmpeg(
        "-framerate",
        "12",
        "-i",
        folder / "%d.png",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=1",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        folder / "driver.mp4",
    )
    return folder


@pytest.fixture
def run(model_folder, capfd):
    def run(*arguments):
        quick = ["--release", str(model_folder), "--device", "cpu"]
        quick += ["--steps", "1", "--guidance", "1"] if arguments[0] == "video" else []
        try:
            status = main.main([*map(str, arguments), *quick])
        except SystemExit as exit:
            status = exit.code
        return status, *capfd.readouterr()

    return run


def test_a_clip_is_written_and_its_path_printed(run, folder, tmp_path):
    output = tmp_path / "new.mp4"
    command = "video", folder / "reference.png", folder / "driver.mp4", output
    assert run(*command, "--side-by-side", "--no-motion", "--region", "head") == (0, f"{output}\n", "")
    assert len(stamps(output)[0]) == 6 and has_sound(output)
    assert [path.name for path in tmp_path.iterdir()] == ["new.mp4"]
    refused = (2, "", f"hellomeme: The output {output} exists: choose another name or add --overwrite.\n")
    assert run(*command) == refused


def test_a_motion_file_drives(run, folder, tmp_path):
    file, output = tmp_path / "turn.npz", tmp_path / "new.mp4"
    assert run("motion", folder / "driver.mp4", file) == (0, f"{file}\n", "")
    motion = Motion.load(file)
    assert len(motion) == 6 and motion.rate == 12 and motion.valid.all()
    yaw = np.degrees(np.arcsin(motion.rotation[:, 0, 2]))
    assert abs(yaw[2] - yaw[0]) > 5 and abs(yaw[5] - yaw[0]) < 3
    assert run("video", folder / "reference.png", file, output, "--frames", "2", "--start", "0") == (
        0,
        f"{output}\n",
        "",
    )
    assert len(stamps(output)[0]) == 2


def test_bad_input_is_one_line_and_no_file(run, folder, tmp_path):
    output = tmp_path / "new.mp4"
    empty = tmp_path / "empty.mp4"
    ffmpeg("-f", "lavfi", "-i", "color=teal:size=64x64:rate=5:duration=1", *H264, empty)
    (tmp_path / "text.mp4").write_text("This is not a clip.")
    cases = {
        ("missing.mp4",): f"The driver clip {tmp_path / 'missing.mp4'} does not exist: check the path.",
        (
            "text.mp4",
        ): "The driver clip text.mp4 is not a clip that can be read: choose an MP4, MOV, WebM or GIF file.",
        (
            "empty.mp4",
        ): "No face found in the first second of the driver clip: choose one that begins with a face, or a "
        "later start.",
        ("empty.mp4", "--overlap", "9"): "Overlap must be a whole number from 0 to 8, not 9.",
    }
    for (driver, *options), sentence in cases.items():
        outcome = run("video", folder / "reference.png", tmp_path / driver, output, *options)
        assert outcome == (2, "", f"hellomeme: {sentence}\n")
    status, out, err = run("video", folder / "reference.png", empty, output.with_suffix(".avi"))
    assert (status, out) == (2, "") and err.endswith("must end in .mp4.\n")
    status, out, err = run("video", folder / "reference.png", empty, output, "--rate", "13")
    assert (status, out) == (2, "") and err.startswith("hellomeme: argument --rate: invalid choice: '13'")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.mp4", "text.mp4"]
