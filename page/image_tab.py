"""The Image tab: one picture drives another."""

from __future__ import annotations

import time
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style
from hellomeme.settings import Settings

from . import drawing, state
from .components import (
    IMMEDIATE,
    MODEL,
    PRIVATE,
    examples,
    run_and_stop,
    show_stopped,
    slider,
    summary,
    summary_line,
    with_metadata,
)
from .events import DRAWING, event, inputs_of
from .face_picker import face_input
from .i18n import translate
from .opening import caption, shipped
from .portrait_input import PortraitInput
from .send_on import send_on
from .shared_settings import SharedSettings
from .thumbnails import pair_row


@event(
    "model",
    "reference",
    "driver",
    "expression",
    "head",
    "guidance",
    "steps",
    "seed",
    "reference_face",
    "driver_face",
    "prompt",
    "negative_prompt",
    "paste",
    "feather",
    *DRAWING,
    optional=DRAWING,
)
def make_image(
    model: str,
    reference: str | None,
    driver: str | None,
    settings: Settings,
    style: Style,
    paste: bool,
    session: str | None,
):
    """Gives the reference picture the expression and head pose of the driver picture.

    Returns the picture; the two crops and the pose picture that it was made from; before and after, of the
    whole reference if `paste` is on; the whole reference with the result in its place, or nothing; and a line
    about it.
    """
    _require_reference(reference)
    if not driver:
        raise HelloMemeError(
            "There is no driver picture yet: upload a face, take a photo or pick one of the examples."
        )
    return _draw(model, reference, driver, settings, style, paste, session)


@event(
    "model",
    "reference",
    "guidance",
    "steps",
    "seed",
    "reference_face",
    "prompt",
    "negative_prompt",
    "paste",
    "feather",
    *DRAWING,
    optional=DRAWING,
)
def restyle(
    model: str, reference: str | None, settings: Settings, style: Style, paste: bool, session: str | None
):
    """Draws the reference picture in the style of the base model and its LoRA: it drives itself, so that pose
    and expression stay.

    Returns what `make_image` does.
    """
    _require_reference(reference)
    return _draw(model, reference, None, settings, style, paste, session)


def _require_reference(reference: str | None) -> None:
    if not reference:
        raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")


def _draw(
    model: str,
    reference: str,
    driver: str | None,
    settings: Settings,
    style: Style,
    paste: bool,
    session: str | None,
) -> list | tuple:
    """The outputs of both events. driver: None for the reference itself."""
    started = time.perf_counter()
    page, result = state.STATE, None
    with page.run(session) as flag:
        gr.Progress()(0, desc="Looking for the faces")
        drawing.image_duration(model, settings, style=style)
        portrait = guide = page.portrait(model, reference, "reference", settings.reference_face)
        if driver is not None:
            guide = page.portrait(model, driver, "driver", settings.driver_face)
        page.download(model, style, settings.few_steps)
        result = drawing.draw_image(model, portrait, guide, settings, flag, style)
    if result is None:
        show_stopped()
        return [gr.skip()] * 7
    line = summary(result, time.perf_counter() - started)
    picture = with_metadata(result.picture, result.stamp)
    shown = picture, result.reference, result.driver, result.pose
    if not paste:
        before = result.reference.resize(result.picture.size, Image.Resampling.LANCZOS)  # if upscaled
        return *shown, (before, result.picture), gr.update(value=None, visible=False), line
    whole = with_metadata(result.original_size(), result.stamp)
    return *shown, (Image.fromarray(portrait.frame), whole), gr.update(value=whole, visible=True), line


@dataclass(frozen=True)
class ImageTab:
    """The components that other tabs set."""

    driver: gr.Image
    result: gr.Image
    line: gr.Markdown
    details: list[gr.components.Component]  # shown beside the result, of the same run
    settings: dict[str, gr.components.Component]  # by the name of the setting


def build(shared: SharedSettings, portrait: PortraitInput, tabs: gr.Tabs) -> ImageTab:
    """The tab's components and events."""
    references, drivers = examples("references"), examples("drivers")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280, elem_classes="chooser"):
            driver, driver_face = face_input(
                "driver",
                "The face to copy",
                "Show a face: drop a file, paste or click",
                drivers,
                "Faces to try",
            )
            pairs = list(zip(references, drivers, strict=False))
            pair_row(pairs, [portrait.picture, driver], "Portraits with a face to try")
        with gr.Column(min_width=280):
            first = shipped(*(paths[0] if paths else None for paths in (references, drivers)))
            result = gr.Image(
                first,
                label=translate("Result"),
                format="png",
                interactive=False,
                height=340,
                elem_id="result",
                elem_classes="drawn",
                buttons=["download", "fullscreen"],
                alt_text="The reference with the driver's expression",
            )
            line = summary_line("about", caption(references[0], drivers[0]) if first else None)
            run = run_and_stop("Bring it to life", api_name="stop", api_visibility="public")
            own = gr.Button(
                translate("Restyle the reference"),
                visible=find(state.STATE.release).has_styles,
                elem_id="restyle",
            )
            send_on(result, "image", portrait, tabs)
            strengths = {name: slider(name) for name in ("expression", "head")}
    compare, paste, feather, whole = _before_and_after()
    driver_crop, pose, reference_crop = _network_inputs()

    settings = strengths | {"feather": feather} | shared.settings
    inputs = shared.components | portrait.components | settings
    inputs |= {"driver": driver, "driver_face": driver_face, "paste": paste}
    outputs = [result, reference_crop, driver_crop, pose, compare, whole, line]
    for button, draw, name in ((run, make_image, "image"), (own, restyle, "restyle")):
        button.click(draw, inputs_of(draw, inputs), outputs, api_name=name, show_progress_on=result, **MODEL)
    shared.model.change(
        lambda model: gr.update(visible=find(model).has_styles), shared.model, own, **PRIVATE, **IMMEDIATE
    )
    details = [compare, whole, driver_crop, pose, reference_crop]
    return ImageTab(driver, result, line, details, settings)


def _before_and_after() -> tuple[gr.ImageSlider, gr.Checkbox, gr.Slider, gr.Image]:
    """The comparison, the switch and the soft edge for pasting back, and the picture pasted back."""
    with gr.Accordion(translate("Before and after, original size"), open=False), gr.Row():
        compare = gr.ImageSlider(
            label=translate("Before and after"),
            interactive=False,
            format="jpeg",
            max_height=420,
            elem_id="compare",
            buttons=["fullscreen"],
        )
        with gr.Column():
            help = translate("Puts the result back into the whole reference picture, at its original size.")
            paste = gr.Checkbox(False, label=translate("Paste back"), info=help, elem_id="paste")
            feather = slider("feather")
            whole = gr.Image(
                label=translate("In the original picture"),
                format="png",
                interactive=False,
                height=300,
                visible=False,
                elem_id="whole",
                buttons=["download", "fullscreen"],
                alt_text="The whole reference with the result in place",
            )
    return compare, paste, feather, whole


def _network_inputs() -> list[gr.Image]:
    """The aligned driver, the pose picture and the aligned reference."""
    texts = {
        "Driver, aligned": "The crop of the driver",
        "Head pose": "The pose picture: a square fixed to the head",
        "Reference, aligned": "The crop of the reference",
    }
    with gr.Accordion(translate("What the model was shown"), open=False), gr.Row(elem_id="shown"):
        return [
            gr.Image(
                label=translate(label),
                alt_text=text,
                interactive=False,
                height=240,
                buttons=["fullscreen"],
                format="png",
                min_width=160,
                elem_classes="drawn",
            )
            for label, text in texts.items()
        ]
