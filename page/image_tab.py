"""The Image tab: one picture drives another."""

from __future__ import annotations

import time
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.settings import Settings

from . import drawing, state
from .components import (
    MODEL,
    examples,
    run_and_stop,
    show_stopped,
    slider,
    summary,
    summary_line,
    with_metadata,
)
from .events import event, inputs_of
from .face_picker import face_input
from .i18n import translate
from .shared_settings import SharedSettings


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
)
def make_image(
    model: str,
    reference: str | None,
    driver: str | None,
    settings: Settings,
    paste: bool,
    session: str | None,
):
    """Gives the reference picture the expression and head pose of the driver picture.

    Returns the picture; the two crops and the pose picture that it was made from; before and after, of the
    whole reference if `paste` is on; the whole reference with the result in its place, or nothing; and a line
    about it.
    """
    if not reference:
        raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")
    if not driver:
        raise HelloMemeError(
            "There is no driver picture yet: upload a face, take a photo or pick one of the examples."
        )
    started = time.perf_counter()
    page, result = state.STATE, None
    with page.run(session) as flag:
        gr.Progress()(0, desc="Looking for the faces")
        drawing.image_duration(model, settings)
        portrait = page.portrait(model, reference, "reference", settings.reference_face)
        guide = page.portrait(model, driver, "driver", settings.driver_face)
        result = drawing.draw_image(model, portrait, guide, settings, flag)
    if result is None:
        show_stopped()
        return [gr.skip()] * 7
    line = summary(result, time.perf_counter() - started)
    picture = with_metadata(result.picture, result.stamp)
    shown = picture, result.reference, result.driver, result.pose
    if not paste:
        return *shown, (result.reference, result.picture), gr.update(value=None, visible=False), line
    whole = with_metadata(result.original_size(), result.stamp)
    return *shown, (Image.fromarray(portrait.frame), whole), gr.update(value=whole, visible=True), line


@dataclass(frozen=True)
class ImageTab:
    """The components that other tabs set."""

    reference: gr.Image
    driver: gr.Image
    result: gr.Image
    line: gr.Markdown
    details: list[gr.components.Component]  # shown beside the result, of the same run
    settings: dict[str, gr.components.Component]  # by the name of the setting


def build(shared: SharedSettings) -> ImageTab:
    """The tab's components and events."""
    references, drivers = examples("references"), examples("drivers")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            driver, driver_face = face_input(
                "driver",
                "Driver · the face to follow",
                "Show a face: drop a file, paste or click",
                drivers,
                "Faces to try",
            )
        with gr.Column(min_width=280):
            reference, reference_face = face_input(
                "reference",
                "Reference · what changes",
                "Choose a portrait: drop a file, paste or click",
                references,
                "Portraits to try",
            )
        with gr.Column(min_width=280):
            result = gr.Image(
                label=translate("Result"),
                format="png",
                interactive=False,
                height=340,
                elem_id="result",
                elem_classes="drawn",
                buttons=["download", "fullscreen"],
                alt_text="The reference with the driver's expression",
            )
            line = summary_line("about")
            run = run_and_stop("Bring it to life", api_name="stop", api_visibility="public")
            strengths = {name: slider(name) for name in ("expression", "head")}
    compare, paste, feather, whole = _before_and_after()
    driver_crop, pose, reference_crop = _network_inputs()

    settings = strengths | {"feather": feather} | shared.settings
    inputs = settings | {
        "model": shared.model,
        "reference": reference,
        "driver": driver,
        "reference_face": reference_face,
        "driver_face": driver_face,
        "paste": paste,
    }
    run.click(
        make_image,
        inputs_of(make_image, inputs),
        [result, reference_crop, driver_crop, pose, compare, whole, line],
        api_name="image",
        show_progress_on=result,
        **MODEL,
    )
    details = [compare, whole, driver_crop, pose, reference_crop]
    return ImageTab(reference, driver, result, line, details, settings)


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
