"""Components that several tabs have, as the settings describe them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gradio as gr
from PIL import Image

from hellomeme.io import metadata
from hellomeme.settings import ClipSettings, Settings

from .i18n import say

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
OPENS_WITH = {"laugh", "mila"}  # examples in which there is plenty to see
FIELDS = {
    field.name: field.metadata for kind in (Settings, ClipSettings) for field in dataclasses.fields(kind)
}
# One visitor draws at a time, in the order of asking
QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}
QUIET = {"queue": False, "show_progress": "hidden"}  # what answers at once


def picture_input(label: str, hint: str, name: str, example: list[str] = (), height: int = 340) -> gr.Image:
    """An image input that hands on the file as it came: `hellomeme.io.image` knows about rotation, depth and
    damage, and has a sentence for each, where Gradio would convert the picture or fail without a word."""
    picture = gr.Image(
        example[0] if example else None,
        label=say(label),
        placeholder=say(hint),
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        buttons=["fullscreen"],
        height=height,
        elem_id=name,
        elem_classes="takes-picture",
        alt_text=label,
    )
    convert = picture.preprocess
    picture.preprocess = lambda file: (
        file.path if file and not (file.url or "").startswith("data:") else convert(file)
    )
    return picture


def examples(folder: str, *kinds: str) -> list[str]:
    """Paths of the example files in a folder, the one that the page opens with first."""
    paths = (path for kind in kinds or ("png",) for path in (EXAMPLES / folder).glob(f"*.{kind}"))
    return [str(path) for path in sorted(paths, key=lambda path: (path.stem not in OPENS_WITH, path.name))]


def example_row(paths: list[str], component: gr.components.Component, label: str) -> None:
    if paths:
        gr.Examples([[path] for path in paths], component, label=say(label), api_visibility="private")


def slider(name: str, value: float | None = None, **options) -> gr.Slider:
    """A slider as the settings describe it; `value` if not the default."""
    return slider_of(FIELDS[name], value, **options)


def slider_of(facts: dict, value: float | None = None, **options) -> gr.Slider:
    value = facts["default"] if value is None else value
    options = {"label": say(facts["label"]), "info": say(facts["help"])} | options
    return unchecked(gr.Slider(facts["min"], facts["max"], value, step=facts["step"], **options))


def unchecked(component: gr.components.Component) -> gr.components.Component:
    """The component handing on what a program sent as it is: the settings have a sentence for what is out of
    range, with the name of what it is, where Gradio's own would name nothing."""
    component.preprocess = lambda value: value
    return component


def number(name: str, **options) -> gr.Number:
    """A number as the settings describe it. Gradio shows no number as 0; of faces, 0 is the largest, which is
    also what None stands for: see `face`."""
    facts = FIELDS[name]
    return unchecked(
        gr.Number(
            facts["default"] or 0,
            precision=0 if facts["kind"] is int else None,
            step=facts["step"],
            minimum=facts["min"],
            maximum=facts["max"],
            label=say(facts["label"]),
            info=say(facts["help"]),
            **options,
        )
    )


def number_or_empty(name: str, **options) -> gr.Textbox:
    """A number that may be left empty, for None: see `typed`."""
    facts = FIELDS[name]
    return gr.Textbox("", label=say(facts["label"]), info=say(facts["help"]), max_lines=1, **options)


def typed(text: str | float | None) -> str | float | None:
    """What was typed into `number_or_empty`; the settings have a sentence for what is no number."""
    try:
        return None if text in (None, "") else float(text)
    except (TypeError, ValueError):
        return text


def face(number: int | None) -> int | None:
    """The largest face, number 0, is found faster if it is not asked for by its number."""
    return number or None


def face_number(face: int | None) -> int:
    """What a number shows for a face of the settings, see `face`."""
    return face or 0


def switch(name: str, **options) -> gr.Checkbox:
    facts = FIELDS[name]
    return gr.Checkbox(facts["default"], label=say(facts["label"]), info=say(facts["help"]), **options)


def choice(name: str, **options) -> gr.Dropdown:
    facts = FIELDS[name]
    return gr.Dropdown(
        list(facts["choices"]),
        value=facts["default"],
        label=say(facts["label"]),
        info=say(facts["help"]),
        **options,
    )


def text(name: str) -> gr.Textbox:
    facts = FIELDS[name]
    return gr.Textbox(facts["default"], label=say(facts["label"]), info=say(facts["help"]), max_lines=3)


def stop_button(name: str) -> gr.Button:
    return gr.Button(say("Stop"), size="lg", scale=1, min_width=70, elem_id=name)


def stamped(picture: Image.Image, stamp: metadata.Stamp) -> Image.Image:
    """The picture with its settings, and the word that it was AI-generated, for Gradio to write into the PNG
    file."""
    picture = picture.copy()
    picture.info |= {"Software": "HelloMeme", "Comment": metadata.LABEL, metadata.KEY: stamp.text}
    return picture


def line_about(settings, seconds: float) -> str:
    return f"{seconds:.1f} s · {settings.steps} steps · guidance {settings.guidance:g} · seed {settings.seed}"
