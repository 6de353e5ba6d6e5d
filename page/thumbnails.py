"""Small pictures of the examples. They are part of the page, so that none of them costs a request."""

from __future__ import annotations

import base64
import functools
import io
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

import gradio as gr
from PIL import Image

from hellomeme.io.ffmpeg import read_frames

from .components import IMMEDIATE, PRIVATE
from .i18n import translate

SIDE = 160  # px
QUALITY = 80


def thumbnail_row(paths: list[str], component: gr.components.Component, label: str) -> None:
    """Thumbnails of pictures or clips; a click puts the file into the component. Nothing for no paths."""
    _row([(path,) for path in paths], [component], label, ["thumbnails"])


def pair_row(pairs: list[tuple[str, str]], components: list[gr.components.Component], label: str) -> None:
    """Thumbnails of two pictures each; a click puts them into the two components. Nothing for no pairs."""
    _row(pairs, components, label, ["thumbnails", "pairs"])


def _row(
    samples: list[tuple[str, ...]], components: list[gr.components.Component], label: str, classes: list[str]
) -> None:
    if not samples:
        return
    shown = gr.Image(render=False)
    # Without "path" and "meta", by which Gradio would recognise a file, and serve it.
    shown.as_example = lambda sample: {"url": thumbnail(*sample)}
    row = gr.Dataset(
        components=[shown],
        samples=[[sample] for sample in samples],
        label=translate(label),
        elem_classes=classes,
    )

    def choose(chosen):
        (paths,) = chosen
        return paths if len(paths) > 1 else paths[0]

    row.click(choose, row, components, **PRIVATE, **IMMEDIATE)


@functools.cache
def thumbnail(*paths: str) -> str:
    """The pictures, or first frames of clips, side by side, as the address of a WebP picture with its data in
    it and the names of the files, which page.js reads."""
    pictures = [_small(path) for path in paths]
    widths = [picture.width for picture in pictures]
    joined = Image.new("RGB", (sum(widths), max(picture.height for picture in pictures)))
    for number, picture in enumerate(pictures):
        joined.paste(picture, (sum(widths[:number]), 0))
    file = io.BytesIO()
    joined.save(file, "webp", quality=QUALITY)
    name = quote(" · ".join(Path(path).stem for path in paths))
    return f"data:image/webp;name={name};base64,{base64.b64encode(file.getvalue()).decode()}"


def _small(path: str) -> Image.Image:
    if Path(path).suffix in (".mp4", ".webm"):
        frames = read_frames(path, Fraction(1), count=1)
        picture = Image.fromarray(next(frames))
        frames.close()
    else:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return picture
