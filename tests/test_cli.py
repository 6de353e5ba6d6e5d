"""The command line: what it draws, and for bad input status 2, one line on standard error, no file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import photos
import pytest
from PIL import Image

from hellomeme.cli import main
from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import find

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def run(model_folder, pictures, tmp_path, capfd):
    """Runs `image` on files of `pictures`, or on other paths; returns status, the output's path and both
    streams."""

    def run(driver="face.png", *options, reference="reference.png", output="new.png"):
        output = tmp_path / output
        quick = ["--release", str(model_folder), "--device", "cpu", "--steps", "1", "--guidance", "1"]
        try:
            status = main.main(
                ["image", str(pictures / reference), str(pictures / driver), str(output), *quick, *options]
            )
        except SystemExit as exit:
            status = exit.code
        return status, output, *capfd.readouterr()

    return run


def refused(outcome, sentence):
    status, output, out, err = outcome
    assert (status, out, err) == (2, "", f"hellomeme: {sentence}\n")
    assert not output.exists()


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_picture_is_written_and_its_path_printed(run):
    status, output, out, err = run()
    assert (status, out, err) == (0, f"{output}\n", "")
    assert pixels(output).shape == (128, 128, 3)
    assert [path.name for path in output.parent.iterdir()] == ["new.png"]  # no draft is left


@pytest.mark.parametrize("name", photos.BAD)
def test_bad_pictures(run, pictures, name):
    refused(run(name), photos.BAD[name].format(path=pictures / name))


def test_the_sentence_names_the_reference_picture(run):
    refused(run(reference="no face.png"), photos.NO_FACE.replace("driver", "reference"))


@pytest.mark.parametrize("name", photos.ODD)
def test_odd_pictures_count_as_what_they_show(run, name):
    odd, plain = (
        pixels(run(driver, output=f"{i}.png")[1]) for i, driver in enumerate([name, photos.ODD[name]])
    )
    np.testing.assert_array_equal(odd, plain)


def test_a_12000_x_9000_picture(run):
    status, output, *_ = run(photos.LARGE)
    assert status == 0 and output.exists()


def test_settings_reach_the_drawing(run):
    plain = pixels(run(output="a.png")[1])
    again = pixels(run(output="b.png")[1])
    other = pixels(run("face.png", "--seed", "1", output="c.png")[1])
    calm = pixels(run("face.png", "--expression", "0", "--head", "0", output="d.png")[1])
    np.testing.assert_array_equal(plain, again)
    assert (plain != other).any() and (plain != calm).any()


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--steps", "51"], "Steps must be a whole number from 1 to 50, not 51."),
        (["--expression", "nan"], "Expression must be a number from 0 to 2, not nan."),
        (["--head", "-1"], "Head turn must be a number from 0 to 1.5, not -1.0."),
        (
            ["--steps", "many"],
            "argument --steps: invalid int value: 'many'; try python -m hellomeme image --help",
        ),
        (["--colour"], "unrecognized arguments: --colour; try python -m hellomeme --help"),
        (["--device", "tpu"], "There is no device called tpu: choose cpu, cuda, cuda:1 or mps."),
        (
            ["--driver-face", "3"],
            "Face 3 was asked for, but there is only one face in the driver picture: "
            "choose a number from 0 (the largest) to 0.",
        ),
    ],
)
def test_bad_options(run, options, sentence):
    refused(run("face.png", *options), sentence)


def test_an_unknown_release(run):
    with pytest.raises(HelloMemeError) as error:
        find("v9")
    refused(run("face.png", "--release", "v9"), str(error.value))


def test_the_output_must_be_a_picture_in_a_folder(run):
    refused(
        run(output="new.txt"),
        f"The output {run(output='new.txt')[1]} must end in one of .png, .jpg, .jpeg, .webp.",
    )
    _, nowhere, _, err = run(output="none/new.png")
    assert err == f"hellomeme: The folder {nowhere.parent} for the output does not exist: make it first.\n"


def test_no_file_of_the_user_is_overwritten(run, pictures):
    mine = run(output="mine.png")[1]
    before = mine.read_bytes()
    status, _, out, err = run("face.png", "--seed", "1", output="mine.png")
    assert (status, out) == (2, "")
    assert err == f"hellomeme: The output {mine} exists: choose another name or add --overwrite.\n"
    assert mine.read_bytes() == before
    assert run("face.png", "--seed", "1", "--overwrite", output="mine.png")[0] == 0
    assert mine.read_bytes() != before

    # an input is never replaced, under another name of the same file neither
    link = mine.with_name("link.png")
    os.link(pictures / "face.png", link)
    before = link.read_bytes()
    status, _, _, err = run("face.png", "--overwrite", output="link.png")
    assert (
        status == 2
        and err == f"hellomeme: The output {link} is one of the input files: choose another name.\n"
    )
    assert link.read_bytes() == before


def test_a_failed_write_leaves_nothing(run, monkeypatch):
    def full(self, file, **options):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    status, output, out, err = run()
    assert (status, out) == (2, "")
    assert err == f"hellomeme: The output {output} could not be written: No space left on device.\n"
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("suffix, kind", [(".jpg", "JPEG"), (".JPEG", "JPEG"), (".webp", "WEBP")])
def test_formats(run, suffix, kind):
    with Image.open(run(output=f"new{suffix}")[1]) as picture:
        assert picture.format == kind and picture.size == (128, 128)


def test_as_a_process_of_its_own(model_folder, pictures, tmp_path):
    """Native code logs while MediaPipe runs and ends: of that nothing shows."""
    output = tmp_path / "new.png"
    command = [
        sys.executable,
        "-m",
        "hellomeme",
        "image",
        pictures / "reference.png",
        pictures / "no face.png",
        output,
    ]
    done = subprocess.run([*command, "--release", model_folder], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"hellomeme: {photos.NO_FACE}\n")
    assert not output.exists()


def test_help_names_every_setting(capsys):
    with pytest.raises(SystemExit) as exit:
        main.main(["image", "--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    assert all(
        f"--{name}" in shown
        for name in ("expression", "head", "guidance", "steps", "seed", "release", "base", "device")
    )
