"""Styles and few steps on the command line: what they draw, what the file says of them, and wrong ones."""

import argparse

import numpy as np
import pytest
from hub import serve
from PIL import Image
from safetensors.torch import load_file, save_file
from styled import CASE, use_hub, write_inputs, write_lora, write_release

from hellomeme.cli import common, main
from hellomeme.io import metadata
from hellomeme.releases.few_steps import PRESETS
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def row(folder):
    return write_release(folder)


@pytest.fixture
def run(folder, row, tmp_path, monkeypatch, capfd):
    """Runs a command with the tiny release as v1; returns status, the output's path and standard error."""
    monkeypatch.setattr("hellomeme.releases.load.RELEASES", (find("demo"), row))
    (tmp_path / "hub").mkdir()
    write_lora(tmp_path / "loras" / "Drawing.safetensors", 2)
    write_lora(tmp_path / "tcd" / "pytorch_lora_weights.safetensors", 3, text=False)
    repositories = {
        "songkey/toonyou_beta6": CASE / "checkpoint",
        "songkey/loras_sd_1_5": tmp_path / "loras",
        PRESETS[0].lora: tmp_path / "tcd",
    }

    def run(command, *options, output="new.png", release="v1"):
        inputs = ["reference.png"] if command == "restyle" else ["reference.png", "face.png"]
        inputs = [str(folder / name) for name in inputs]
        more = ["--release", release, "--device", "cpu", "--guidance", "1"]
        try:
            status = main.main([command, *inputs, str(tmp_path / output), *more, *map(str, options)])
        except SystemExit as exit:
            status = exit.code
        return status, tmp_path / output, capfd.readouterr().err.strip().rpartition("\r")[2]

    with serve(repositories) as (endpoint, _):
        use_hub(monkeypatch, endpoint, tmp_path / "cache")
        yield run


def test_presets_files_and_strengths_reach_the_drawing_and_the_file(run, folder):
    pictures = []
    for i, options in enumerate(
        (
            (),
            ("--base", "toonyou_beta6"),
            ("--base", "toonyou_beta6", "--stylize", "x1"),
            ("--lora", "Drawing:0.5", "--lora", folder / "own.safetensors", "--vae", "toonyou_beta6"),
            ("--few-steps", "tcd"),
        )
    ):
        status, path, error = run("image", *options, output=f"{i}.png")
        assert status == 0, error
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture).tobytes())
    assert len(set(pictures)) == len(pictures)
    stamps = [metadata.read(path.with_name(f"{i}.png")) for i in range(len(pictures))]
    assert [stamp.style for stamp in stamps] == [
        Style(),
        Style("toonyou_beta6"),
        Style("toonyou_beta6", reference_base="official"),
        Style(vae="toonyou_beta6", loras=("Drawing:0.5", "own.safetensors")),
        Style(),
    ]
    assert [stamp.settings.few_steps for stamp in stamps] == ["off"] * 4 + ["tcd"]
    assert [stamp.settings.steps for stamp in stamps] == [2] * 4 + [4]


def test_a_picture_drives_itself(run):
    assert run("restyle", "--base", "toonyou_beta6", output="own.png")[0] == 0
    status, path, _ = run("restyle", "--base", "toonyou_beta6", "--expression", "0", output="still.png")
    assert status == 0 and metadata.read(path).style == Style("toonyou_beta6")
    with Image.open(path) as still, Image.open(path.with_name("own.png")) as own:
        assert np.array_equal(still, own)  # its own expression is the reference's


@pytest.mark.parametrize(
    "options, release, sentence",
    [
        (["--lora", "Drawing:30"], "v1", "The strength of a LoRA must be a number from -10 to 10."),
        (["--lora", "None"], "v1", "There is no folder or file None: check the path, or give the id of..."),
        (["--base", "dreamshaper"], "v1", "There is no folder or file dreamshaper: check the path..."),
        (
            ["--base", "dreamshaper_8"],
            "v1",
            "There is no folder and no public hub repository songkey/dream...",
        ),
        (["--vae", "loras.bin"], "v1", "There is no file loras.bin: check the path."),
        (
            ["--few-steps", "lcm"],
            "demo",
            "The few-step preset lcm is made for Stable Diffusion 1.5, on which...",
        ),
        (["--stylize", "x3"], "v1", "argument --stylize: invalid choice: 'x3'..."),
    ],
)
def test_wrong_ones_get_a_sentence(run, options, release, sentence):
    status, path, error = run("image", *options, release=release)
    assert status == 2 and not path.exists()
    assert error.startswith(f"hellomeme: {sentence.removesuffix('...')}") and "\n" not in error


def test_a_batch_goes_on_only_with_the_same_style(run, folder, tmp_path, capfd, row):
    (tmp_path / "jobs.csv").write_text(
        f"reference,driver,few_steps\n{folder / 'reference.png'},{folder / 'face.png'},off\n"
    )

    def batch(*options):
        paths = ["batch", str(tmp_path / "jobs.csv"), str(tmp_path / "out")]
        status = main.main([*paths, "--release", row.name, "--device", "cpu", "--guidance", "1", *options])
        return status, capfd.readouterr().err

    style = ("--base", "toonyou_beta6", "--stylize", "x1")
    assert batch(*style)[0] == 0
    assert "0 made, 1 there already" in batch(*style)[1]
    for other in (
        style[:2],
        (*style, "--prediction-type", "v_prediction"),
        (*style, "--few-steps-lora", "none"),
    ):
        status, error = batch(*other)
        assert status == 1 and "was not made from these pictures" in error


def test_the_style_of_options():
    parser = argparse.ArgumentParser()
    common.add_style_options(parser)
    assert common.style_from(parser.parse_args([])) == Style()
    assert common.style_from(parser.parse_args(["--stylize", "x1", "--lora", "a/b:0.5"])) == Style(
        loras=(("a/b", 0.5),), reference_base="official"
    )


def test_what_is_left_out_of_a_lora_is_told(run, folder, tmp_path):
    tensors = load_file(folder / "own.safetensors")
    more = {name.replace("down_blocks.0", "down_blocks.9"): x.clone() for name, x in tensors.items()}
    save_file(tensors | more, tmp_path / "half.safetensors")
    status, _, error = run("image", "--lora", tmp_path / "half.safetensors", "--steps", "1")
    assert status == 0 and "hellomeme: half.safetensors: 4 of its " in error and "were left out" in error
