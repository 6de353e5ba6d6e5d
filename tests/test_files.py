"""Pictures in Gradio's cache: alike ones are one file, which others may be downloading when it is handed out
again."""

import errno
from pathlib import Path

import gradio as gr
import photos
import pytest
from PIL import Image

from page import gradio_patches


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Where components made from now on keep their files."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def picture():
    return Image.fromarray(photos.toon(1))


def written(cache):
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "kind, value",
    [
        (gr.Image, lambda picture: picture),
        (gr.ImageSlider, lambda picture: (picture, picture)),
        (gr.Gallery, lambda picture: [(picture, "a"), (picture, "b")]),
    ],
    ids=["image", "slider", "gallery"],
)
@pytest.mark.parametrize("format", ["png", "jpeg"])
def test_a_picture_that_is_there_is_not_written_again(cache, picture, kind, value, format):
    with gradio_patches.Blocks():
        component = kind(format=format)
    component.postprocess(value(picture))
    (file,) = written(cache)
    assert file.name == f"image.{format}"
    with Image.open(file) as saved:
        assert saved.format == format.upper() and saved.size == picture.size
    file.write_bytes(b"being downloaded")
    component.postprocess(value(picture.copy()))
    assert written(cache) == [file] and file.read_bytes() == b"being downloaded"


def test_a_picture_keeps_its_text(cache, picture):
    picture.info["Comment"] = "AI-generated"
    with Image.open(gradio_patches.save_pil_to_cache(picture, str(cache), format="png")) as saved:
        assert saved.info["Comment"] == "AI-generated"


def test_nothing_is_left_of_a_picture_that_could_not_be_written(cache, picture, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path, content):
        write_bytes(path, content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        gradio_patches.save_pil_to_cache(picture, str(cache), format="png")
    monkeypatch.undo()
    assert not written(cache)
    assert (
        Image.open(gradio_patches.save_pil_to_cache(picture, str(cache), format="png")).size == picture.size
    )
