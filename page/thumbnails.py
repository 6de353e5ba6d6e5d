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
    if not paths:
        return
    shown = gr.Image(render=False)
    # Without "path" and "meta", by which Gradio would recognise a file, and serve it.
    shown.as_example = lambda path: {"url": thumbnail(path)}
    row = gr.Dataset(components=[shown], samples=[[path] for path in paths], label=translate(label))
    row.click(lambda sample: sample[0], row, component, **PRIVATE, **IMMEDIATE)


@functools.cache
def thumbnail(path: str) -> str:
    """The picture, or the first frame of the clip, as the address of a WebP picture with its data in it and
    the name of the file, which page.js reads."""
    if Path(path).suffix in (".mp4", ".webm"):
        frames = read_frames(path, Fraction(1), count=1)
        picture = Image.fromarray(next(frames))
        frames.close()
    else:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "webp", quality=QUALITY)
    return (
        f"data:image/webp;name={quote(Path(path).stem)};base64,{base64.b64encode(file.getvalue()).decode()}"
    )
