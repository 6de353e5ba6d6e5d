"""Components that several tabs use. Ranges, labels and help come from the metadata of the settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from hellomeme.io import metadata
from hellomeme.io.colour import SRGB_PROFILE
from hellomeme.settings import ClipSettings, Settings

from .gradio_patches import NAME, keep_upload, skip_validation
from .i18n import translate
from .runs import is_replaceable
from .stop import stop

if TYPE_CHECKING:
    from hellomeme.portrait import Result

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FIRST_EXAMPLES = {"laugh", "june", "talk"}  # the page opens with these
FIELDS = {
    field.name: field.metadata for kind in (Settings, ClipSettings) for field in dataclasses.fields(kind)
}
# Options of events. MODEL: one visitor draws at a time, in the order of asking. FACES: face detection runs
# beside it. IMMEDIATE: without a queue; Gradio 6.31 does not show its errors.
MODEL = {"concurrency_id": "model", "concurrency_limit": 1}
FACES = {"concurrency_id": "faces", "show_progress": "hidden"}
IMMEDIATE = {"queue": False, "show_progress": "hidden"}
PRIVATE = {"api_visibility": "private"}
LONGEST_STEM = 100  # bytes: file systems allow 255 for a name, which has two of them and an ending


# Inputs for pictures


def picture_input(
    label: str, hint: str, elem_id: str, example: str | None = None, height: int = 340
) -> gr.Image:
    """An image input whose value is the path of the uploaded file, unchanged."""
    picture = gr.Image(
        example,
        label=translate(label),
        placeholder=translate(hint),
        type="filepath",
        sources=["upload", "webcam", "clipboard"],
        buttons=["fullscreen"],
        height=height,
        elem_id=elem_id,
        elem_classes="takes-picture",  # page.js pastes into these
        alt_text=label,
    )
    return keep_upload(picture)


def examples(folder: str, *extensions: str) -> list[str]:
    """Paths of the example files in a folder, the one that the page opens with first."""
    paths = (path for end in extensions or ("png",) for path in (EXAMPLES / folder).glob(f"*.{end}"))
    return [
        str(path) for path in sorted(paths, key=lambda path: (path.stem not in FIRST_EXAMPLES, path.name))
    ]


# Inputs for settings, by the name of the field


def slider(name: str, value: float | None = None, **options) -> gr.Slider:
    """value: None for the default."""
    return slider_from(FIELDS[name], value, **options)


def slider_from(facts: Mapping, value: float | None = None, **options) -> gr.Slider:
    """A slider from metadata as the fields of the settings have it."""
    value = facts["default"] if value is None else value
    slider = gr.Slider(facts["min"], facts["max"], value, step=facts["step"], **_texts(facts), **options)
    return skip_validation(slider)


def number(name: str, **options) -> gr.Number:
    """A number input, which shows None as 0: see `face_index`."""
    facts = FIELDS[name]
    return skip_validation(
        gr.Number(
            facts["default"] or 0,
            precision=0 if facts["kind"] is int else None,
            step=facts["step"],
            minimum=facts["min"],
            maximum=facts["max"],
            **_texts(facts),
            **options,
        )
    )


def face_number_input(name: str, **options) -> gr.Number:
    """A number input for a face, counted from 1: see `face_index`."""
    facts = FIELDS[name]
    help = translate("Which face, counted from 1 by size.")
    least, most = facts["min"] + 1, facts["max"] + 1
    return skip_validation(
        gr.Number(
            1, precision=0, minimum=least, maximum=most, label=translate(facts["label"]), info=help, **options
        )
    )


def optional_number(name: str, **options) -> gr.Textbox:
    """A text input for a number, empty for None: see `parse_number`."""
    return gr.Textbox("", max_lines=1, **_texts(FIELDS[name]), **options)


def checkbox(name: str, **options) -> gr.Checkbox:
    return gr.Checkbox(FIELDS[name]["default"], **_texts(FIELDS[name]), **options)


def dropdown(name: str, **options) -> gr.Dropdown:
    facts = FIELDS[name]
    choices = [(choice if choice.isdigit() else translate(choice), choice) for choice in facts["choices"]]
    return gr.Dropdown(choices, value=facts["default"], **_texts(facts), **options)


def textbox(name: str) -> gr.Textbox:
    return gr.Textbox(FIELDS[name]["default"], max_lines=3, **_texts(FIELDS[name]))


def _texts(facts: Mapping) -> dict:
    return {"label": translate(facts["label"]), "info": translate(facts["help"])}


# Buttons and results


def run_and_stop(label: str, prefix: str = "", **stop_options) -> gr.Button:
    """A row with the button that starts a run, which is returned, and Stop. stop_options: of Stop's event."""
    with gr.Row(equal_height=True, elem_classes="run"):
        run = gr.Button(
            translate(label), variant="primary", size="lg", scale=3, min_width=120, elem_id=f"{prefix}run"
        )
        button = gr.Button(
            translate("Stop"),
            size="lg",
            scale=1,
            min_width=70,
            interactive=False,
            elem_id=f"{prefix}stop",
            elem_classes="stops",  # page.js enables it
        )
    button.click(stop, **(PRIVATE | stop_options), **IMMEDIATE)
    return run


def run_begins(name: str) -> str:
    """The `js` of an event that draws, in a tab without `outdated.asked`: Stop can be pressed until
    `run_ends`. name: of the tab."""
    return f"(...values) => {{ helloMeme.began('{name}'); return values; }}"


def run_ends(name: str, event: gr.events.Dependency) -> gr.events.Dependency:
    """To be called for each event with `run_begins`. Returns the event."""
    event.then(None, js=f"() => {{ helloMeme.ended('{name}'); }}", **PRIVATE)
    return event


def summary_line(elem_id: str, text: str | None = None) -> gr.Markdown:
    """The place for the line below a result. text: what it opens with."""
    return gr.Markdown(text, elem_id=elem_id, elem_classes="about", show_label=False)


def summary(result: Result, seconds: float) -> str:
    """The line below a picture: the time, the settings, and the angles at which the head was held."""
    used, steps = result.settings, "step" if result.settings.steps == 1 else "steps"
    line = f"{seconds:.1f} s · {used.steps} {steps} · guidance {used.guidance:g} · seed {used.seed}"
    if result.held:
        line += f" · {' and '.join(result.held)} held at the most that this model draws"
    return line


def show_stopped() -> None:
    """Says that the run was stopped, unless it only gave way to a later one."""
    if not is_replaceable():
        gr.Info("Stopped.", duration=3)


def file_name(*sources: str) -> str:
    """What a result is called, without a suffix, after the names or paths of what it was made from."""
    stems = (re.sub(r"[^\w-]+", "-", Path(source).stem).strip("-")[:40] for source in sources)
    stems = (stem.encode()[:LONGEST_STEM].decode(errors="ignore") for stem in stems)
    return "-".join(filter(None, stems)) or "hellomeme"


def with_metadata(picture: Image.Image, stamp: metadata.Stamp, name: str = "hellomeme") -> Image.Image:
    """A copy of the picture that Gradio saves as a PNG file with the settings, the AI-generated label and the
    profile of sRGB, for downloads called `name`."""
    picture = picture.copy()
    picture.info |= {"Software": "HelloMeme", "Comment": metadata.LABEL, metadata.KEY: stamp.text}
    picture.info |= {"icc_profile": SRGB_PROFILE, NAME: name}
    return picture
