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
    file_name,
    run_and_stop,
    show_stopped,
    slider,
    summary,
    with_metadata,
)
from .events import DRAWING, event, inputs_of
from .face_picker import face_input
from .i18n import translate
from .kept import KeptPicture
from .opening import caption, kept_file, shipped
from .outdated import asked, dim_outdated, watch_run
from .portrait_input import PortraitInput, require_reference
from .redraw import redraw_at_once
from .result_view import ResultView, result_view
from .send_on import send_on
from .shared_settings import SharedSettings
from .thumbnails import pair_row

PICTURES = ("reference", "driver")


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
    whole reference if `paste` is on; the whole reference with the result in its place, or nothing; a line
    about it; and the key of the kept result.
    """
    require_reference(reference)
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
    require_reference(reference)
    return _draw(model, reference, None, settings, style, paste, session)


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
        return [gr.skip()] * 8
    line = summary(result, time.perf_counter() - started)
    name = file_name(reference, driver or "restyled")
    picture = with_metadata(result.picture, result.stamp, name)
    known = {"picture": result.picture, "stamp": result.stamp, "name": name}
    kept = KeptPicture(model, reference, settings.reference_face, **known)
    key = page.kept.keep(session, "image", kept)
    shown = picture, result.reference, result.driver, result.pose
    if not paste:
        before = result.reference.resize(result.picture.size, Image.Resampling.LANCZOS)  # if upscaled
        return *shown, (before, result.picture), None, line, key
    whole = with_metadata(result.original_size(), result.stamp, f"{name}-whole")
    return *shown, (Image.fromarray(portrait.frame), whole), whole, line, key


@dataclass(frozen=True)
class ImageTab:
    """The components that other tabs set."""

    driver: gr.Image
    result: ResultView
    details: list[gr.components.Component]  # shown beside the result, of the same run
    settings: dict[str, gr.components.Component]  # by the name of the setting
    drawn_from: list[gr.components.Component]  # all that change what is drawn


def build(shared: SharedSettings, portrait: PortraitInput, tab: gr.Tab, tabs: gr.Tabs) -> ImageTab:
    """The tab's components and events."""
    references, drivers = examples("references"), examples("drivers")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=210, elem_classes="chooser"):
            driver, driver_face = face_input(
                "driver",
                "The face to copy",
                "Show a face: drop a file, paste or click",
                drivers,
                "Faces to try",
            )
            pairs = list(zip(references, drivers, strict=False))
            pair_row(pairs, [portrait.picture, driver], "Portraits with a face to try")
        with gr.Column(min_width=210):
            result = _result(references, drivers)
            run = run_and_stop("Bring it to life", api_name="stop", api_visibility="public")
            own = gr.Button(
                translate("Restyle the reference"),
                visible=find(state.STATE.release).has_styles,
                elem_id="restyle",
            )
            send_on([result.picture, result.whole], "image", portrait, tabs)
            strengths = {name: slider(name) for name in ("expression", "head")}
    driver_crop, pose, reference_crop = _network_inputs()
    # Of the API alone: on the page the result is pasted back afterwards
    paste = gr.Checkbox(False, label="Paste back", visible=False)
    compare = gr.ImageSlider(label="Before and after", format="jpeg", visible=False)
    whole = gr.Image(label="In the original picture", format="png", visible=False)

    settings = strengths | {"feather": result.feather} | shared.settings
    inputs = shared.components | portrait.components | settings
    inputs |= {"driver": driver, "driver_face": driver_face, "paste": paste}
    details = [reference_crop, driver_crop, pose]
    outputs = [result.picture, *details, compare, whole, result.line, result.drawn]
    watched = [name for name in make_image.names if name not in ("paste", "feather")]
    dim_outdated(result, [inputs[name] for name in watched])
    js = asked(result, make_image.names, watched)
    for button, draw, name, begun in (
        (run, make_image, "image", js),
        (own, restyle, "restyle", asked(result)),
    ):
        options = {"api_name": name, "js": begun, "show_progress_on": result.picture, **MODEL}
        watch_run(result, button.click(draw, inputs_of(draw, inputs), outputs, **options))
    changed = [inputs[name].change for name in (*PICTURES, "reference_face", "driver_face", "seed")]
    released = [inputs[name].release for name in ("expression", "head", "guidance", "steps")]
    redraw_at_once(
        [*changed, *released], make_image, js, inputs, outputs, result, portrait, tab, PICTURES, run
    )
    shared.model.change(
        lambda model: gr.update(visible=find(model).has_styles), shared.model, own, **PRIVATE, **IMMEDIATE
    )
    return ImageTab(driver, result, details, settings, [inputs[name] for name in watched])


def _result(references: list[str], drivers: list[str]) -> ResultView:
    """The place of the result, with the one of the first examples, if it was shipped."""
    first = shipped(*(paths[0] if paths else None for paths in (references, drivers)))
    text = caption(references[0], drivers[0]) if first else None
    opening = (lambda: kept_file(first, references[0])) if first else (lambda: None)
    return result_view("", "The portrait with the expression of the face to copy", 340, first, text, opening)


def _network_inputs() -> list[gr.Image]:
    """The aligned driver, the pose picture and the aligned reference."""
    texts = {
        "Driver, aligned": "The face to copy, cut out",
        "Head pose": "The pose picture: a square fixed to the head",
        "Reference, aligned": "The portrait, cut out",
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
