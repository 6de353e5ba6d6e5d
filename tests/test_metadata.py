"""The settings travel in the file: written, read back, and refused where they are damaged."""

import dataclasses
import json
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from hellomeme.errors import HelloMemeError
from hellomeme.face.edit import Edit, Turn, preset
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import ClipWriter
from hellomeme.io.metadata import LABEL, Stamp
from hellomeme.settings import ClipSettings, Settings

SETTINGS = Settings(
    expression=1.35, guidance=2.5, steps=7, seed=123456789, driver_face=2, prompt='héllo "wörld"; #1=\\\n猫'
)
STAMP = Stamp(SETTINGS, "demo")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3)).astype(np.uint8))
DAMAGED = "The settings in this file are damaged or of another version: set them by hand."


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp"])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_picture_brings_its_settings_back(tmp_path, name, labelled):
    stamp = dataclasses.replace(STAMP, labelled=labelled)
    metadata.save(PICTURE, tmp_path / name, stamp)
    assert metadata.read(tmp_path / name) == stamp
    assert (LABEL.encode() in (tmp_path / name).read_bytes()) == labelled
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Image.open(tmp_path / name) as picture:
        assert picture.size == PICTURE.size
        if name.endswith("png"):
            assert np.array_equal(np.asarray(picture), np.asarray(PICTURE))
            assert picture.text.get("Comment") == (LABEL if labelled else None)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize(
    "edit",
    [
        Edit(),
        Edit(Turn(-12.5, 0, 45), {"jawOpen": 0.7, "eyeBlinkLeft": 1}),
        Edit(coefficients=preset("laugh")),
    ],
)
def test_an_edited_face_comes_back(tmp_path, name, edit):
    stamp = dataclasses.replace(STAMP, edit=edit)
    metadata.save(PICTURE, tmp_path / name, stamp)
    assert metadata.read(tmp_path / name) == stamp


def test_of_an_edited_face_only_what_differs_from_0_is_written():
    stamp = dataclasses.replace(STAMP, edit=Edit(Turn(yaw=20), {"jawOpen": 0.7, "cheekPuff": 0}))
    assert json.loads(stamp.text)["edit"] == {"yaw": 20, "jawOpen": 0.7}
    assert json.loads(dataclasses.replace(STAMP, edit=Edit()).text)["edit"] == {}


def test_files_from_before_faces_could_be_edited(tmp_path):
    old = (
        '{"hellomeme": 1, "release": "demo", "settings": {"expression": 1.0, "head": 1.0, "translation": '
        '0.0, "guidance": 2.0, '
        '"steps": 4, "seed": 7, "reference_face": null, "driver_face": null, "feather": 0.5, "prompt": "", '
        '"negative_prompt": ""}, "label": "AI-generated"}'
    )
    assert metadata.read(with_text(tmp_path / "a.png", old)) == Stamp(
        Settings(guidance=2, steps=4, seed=7), "demo"
    )
    assert Stamp(Settings(guidance=2, steps=4, seed=7), "demo").text == old  # others' stamps are as they were


def test_nothing_but_settings_is_told(tmp_path):
    metadata.save(PICTURE, tmp_path / "secret name.png", STAMP)
    assert json.loads(STAMP.text).keys() == {"hellomeme", "release", "settings", "label"}
    assert b"secret" not in (tmp_path / "secret name.png").read_bytes()


def test_a_picture_without_a_stamp(tmp_path):
    metadata.save(PICTURE, tmp_path / "plain.png", None)
    assert metadata.read(tmp_path / "plain.png") is None


@pytest.fixture
def clip(tmp_path):
    """Writes a clip of two frames with the arguments given to ffmpeg."""
    import imageio_ffmpeg

    def write(*arguments):
        path = tmp_path / "clip.mp4"
        source = ["-f", "lavfi", "-i", "color=s=64x64:r=25:d=0.08"]
        subprocess.run(
            [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *arguments, str(path)], check=True
        )
        return path

    return write


@pytest.mark.parametrize("labelled", [True, False])
def test_a_clip_brings_its_settings_back(tmp_path, labelled):
    stamp = Stamp(SETTINGS, "v1", ClipSettings(frames=12, rate="25", relative=True), labelled)
    path = tmp_path / "clip.mp4"
    with ClipWriter(path, Fraction(25), tags=stamp.clip_tags) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    assert metadata.read(path) == stamp
    assert (LABEL.encode() in path.read_bytes()) == labelled


def test_foreign_clips_have_no_stamp(clip, tmp_path):
    assert metadata.read(clip()) is None
    assert metadata.read(clip("-metadata", "comment=holiday=1; 2")) is None
    (tmp_path / "text.mp4").write_text("comment=" + STAMP.text)
    assert metadata.read(tmp_path / "text.mp4") is None


def with_text(path, text):
    info = PngImagePlugin.PngInfo()
    info.add_text("hellomeme", text, zip=len(text) > 10_000)
    PICTURE.save(path, pnginfo=info)
    return path


def changed(**facts):
    return json.dumps({**json.loads(STAMP.text), **facts})


@pytest.mark.parametrize(
    "text",
    [
        '{"hellomeme": 1}',
        '{"hellomeme": ',
        STAMP.text[:-5],
        changed(hellomeme=2),
        changed(settings=[]),
        changed(settings=None),
        changed(settings={"steps": 1000}),
        changed(settings={"expression": float("nan")}),
        changed(settings={"prompt": 5}),
        changed(settings={"seed": "1"}),
        changed(release=7),
        changed(release="x" * 201),
        changed(clip=[1]),
        changed(clip={"rate": "13"}),
        changed(settings={"prompt": "a" * 70_000}),
        '{"hellomeme":' + "[" * 60_000,
        '{"hellomeme":' + "9" * 60_000 + "}",
        *(
            changed(edit=edit)
            for edit in (
                [],
                "jawOpen",
                0.5,
                False,
                {"jaw": 0.5},
                {"": 0.5},
                {"turn": {"yaw": 5}},
                {"jawOpen": 1.01},
                {"jawOpen": -0.1},
                {"jawOpen": float("nan")},
                {"jawOpen": float("inf")},
                {"jawOpen": 10**400},
                {"jawOpen": "0.5"},
                {"jawOpen": True},
                {"jawOpen": None},
                {"jawOpen": [0.5]},
                {"yaw": 61},
                {"pitch": -41},
                {"roll": float("nan")},
                {"yaw": "5"},
                {"yaw": None},
                {"yaw": True},
                {"yaw": {"yaw": 5}},
            )
        ),
    ],
)
def test_damaged_settings_get_one_sentence(tmp_path, text):
    with pytest.raises(HelloMemeError) as caught:
        metadata.read(with_text(tmp_path / "a.png", text))
    assert str(caught.value) == DAMAGED


def test_settings_of_a_later_version_are_passed_over(tmp_path):
    text = changed(settings={**dataclasses.asdict(SETTINGS), "sparkle": 3}, mood="good")
    assert metadata.read(with_text(tmp_path / "a.png", text)) == STAMP


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"\x89PNG\r\n\x1a\n", b"\x80\x04K\x01.", STAMP.text.encode(), b"GIF89a" + bytes(100)],
)
def test_files_of_another_kind_have_no_stamp(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert metadata.read(tmp_path / "a.png") is None


def test_foreign_texts_and_bombs_have_no_stamp(tmp_path):
    for text in ("{}", "[]", "parameters: steps 20", '{"prompt": {"1": 2}}', "a" * 100_000_000):
        assert metadata.read(with_text(tmp_path / "a.png", text)) is None
    for comment in (b"", b"ASCII\0\0\0", b"UNICODE\0" + "{".encode("utf-16"), bytes(range(256))):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = comment
        PICTURE.save(tmp_path / "a.jpg", exif=exif)
        assert metadata.read(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_no_pixels_are_decoded(tmp_path, monkeypatch, name):
    """A small file may hold an enormous picture, and anybody may drop one."""
    metadata.save(PICTURE, tmp_path / name, STAMP)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert metadata.read(tmp_path / name) == STAMP


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "none.png", tmp_path, tmp_path / ("a" * 300), tmp_path / "a\0b.png"):
        with pytest.raises(HelloMemeError) as caught:
            metadata.read(path)
        assert str(caught.value) == f"There is no file {path}: check the path."


def test_files_are_overwritten_only_when_asked(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("mine")
    with pytest.raises(HelloMemeError) as caught:
        metadata.save(PICTURE, path, STAMP)
    assert str(caught.value) == f"The output {path} exists: choose another name."
    assert path.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    metadata.save(PICTURE, path, STAMP, overwrite=True)
    assert metadata.read(path) == STAMP
    with pytest.raises(HelloMemeError, match="could not be written: No such file or directory.$"):
        metadata.save(PICTURE, tmp_path / "none" / "a.png", STAMP)
