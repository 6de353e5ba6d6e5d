"""The Image tab: one picture drives another."""

from __future__ import annotations

import time
from dataclasses import dataclass

import gradio as gr
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.settings import Settings

from . import drawing, faces, studio
from .blocks import stop
from .common import Common
from .i18n import say
from .parts import (
    QUEUE,
    QUIET,
    example_row,
    examples,
    face,
    line_about,
    picture_input,
    slider,
    stamped,
    stop_button,
)


def make_image(
    model,
    reference,
    driver,
    expression,
    head,
    guidance,
    steps,
    seed,
    reference_face,
    driver_face,
    prompt,
    negative_prompt,
    paste=False,
    feather=0.5,
    request: gr.Request = None,
):
    """Gives the reference picture the expression and head pose of the driver picture.

    Returns the picture; the two crops and the pose picture that it was made from; before and after, of the
    whole reference if `paste` is on; the whole reference with the result in its place, or nothing; and a line
    about it.
    """
    with studio.told_to_the_visitor():
        if not reference:
            raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")
        if not driver:
            raise HelloMemeError(
                "There is no driver picture yet: upload a face, take a photo or pick one of the examples."
            )
        settings = Settings(
            expression=expression,
            head=head,
            guidance=guidance,
            steps=steps,
            seed=seed,
            reference_face=face(reference_face),
            driver_face=face(driver_face),
            feather=feather,
            prompt=prompt,
            negative_prompt=negative_prompt,
        )
        started = time.perf_counter()
        own, result = studio.STUDIO, None
        with own.stoppable(request and request.session_hash) as flag:
            gr.Progress()(0, desc="Looking for the faces")
            drawing.needed(model, settings)
            portrait = own.portrait(model, reference, "reference", settings.reference_face)
            guide = own.portrait(model, driver, "driver", settings.driver_face)
            result = drawing.picture(model, portrait, guide, settings, flag)
        if result is None:
            gr.Info("Stopped.", duration=3)
            return [gr.skip()] * 7
        line = line_about(result.settings, time.perf_counter() - started)
        picture = stamped(result.picture, result.stamp)
        shown = picture, result.reference, result.driver, result.pose
        if not paste:
            return *shown, (result.reference, result.picture), gr.update(value=None, visible=False), line
        whole = stamped(result.original_size(), result.stamp)
        return *shown, (Image.fromarray(portrait.frame), whole), gr.update(value=whole, visible=True), line


@dataclass(frozen=True)
class ImageTab:
    """The components that other tabs fill."""

    reference: gr.Image
    driver: gr.Image
    result: gr.Image
    about: gr.Markdown
    beside: list[gr.components.Component]  # what is shown beside the result, of the same run
    controls: dict[str, gr.components.Component]  # by the name of the setting


def build(common: Common) -> ImageTab:
    """The tab's components and events."""
    references, drivers = examples("references"), examples("drivers")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            driver = picture_input(
                "Driver · the face to follow",
                "Show a face: drop a file, paste or click",
                "driver",
                drivers[:1],
            )
            driver_face = faces.picker(driver, "driver")
            example_row(drivers, driver, "Faces to try")
        with gr.Column(min_width=280):
            reference = picture_input(
                "Reference · what changes",
                "Choose a portrait: drop a file, paste or click",
                "reference",
                references[:1],
            )
            reference_face = faces.picker(reference, "reference")
            example_row(references, reference, "Portraits to try")
        with gr.Column(min_width=280):
            result = gr.Image(
                label=say("Result"),
                format="png",
                interactive=False,
                height=340,
                elem_id="result",
                elem_classes="drawn",
                buttons=["download", "fullscreen"],
                alt_text="The reference with the driver's expression",
            )
            about = gr.Markdown(elem_id="about", elem_classes="about", show_label=False)
            with gr.Row(equal_height=True):
                run = gr.Button(
                    say("Bring it to life"),
                    variant="primary",
                    size="lg",
                    scale=3,
                    min_width=120,
                    elem_id="run",
                )
                halt = stop_button("stop")
            expression, head = slider("expression"), slider("head")
    with gr.Accordion(say("Before and after, original size"), open=False):
        with gr.Row():
            compare = gr.ImageSlider(
                label=say("Before and after"),
                interactive=False,
                format="jpeg",
                max_height=420,
                elem_id="compare",
                buttons=["fullscreen"],
            )
            with gr.Column():
                paste = gr.Checkbox(
                    False,
                    label=say("Paste back"),
                    elem_id="paste",
                    info=say("Puts the result back into the whole reference picture, at its original size."),
                )
                feather = slider("feather")
                whole = gr.Image(
                    label=say("In the original picture"),
                    format="png",
                    interactive=False,
                    height=300,
                    visible=False,
                    elem_id="whole",
                    buttons=["download", "fullscreen"],
                    alt_text="The whole reference with the result in place",
                )
    with gr.Accordion(say("What the model was shown"), open=False):
        with gr.Row(elem_id="shown"):
            shown = {
                "interactive": False,
                "height": 240,
                "buttons": ["fullscreen"],
                "format": "png",
                "min_width": 160,
                "elem_classes": "drawn",
            }
            driver_crop = gr.Image(label=say("Driver, aligned"), alt_text="The crop of the driver", **shown)
            pose = gr.Image(
                label=say("Head pose"), alt_text="The pose picture: a square fixed to the head", **shown
            )
            reference_crop = gr.Image(
                label=say("Reference, aligned"), alt_text="The crop of the reference", **shown
            )

    inputs = [
        common.model,
        reference,
        driver,
        expression,
        head,
        common.guidance,
        common.steps,
        common.seed,
        reference_face,
        driver_face,
        common.prompt,
        common.negative_prompt,
        paste,
        feather,
    ]
    run.click(
        make_image,
        inputs,
        [result, reference_crop, driver_crop, pose, compare, whole, about],
        api_name="image",
        show_progress_on=result,
        **QUEUE,
    )
    halt.click(stop, api_name="stop", **QUIET)
    controls = {"expression": expression, "head": head, "feather": feather, **common.controls}
    return ImageTab(
        reference, driver, result, about, [compare, whole, driver_crop, pose, reference_crop], controls
    )
