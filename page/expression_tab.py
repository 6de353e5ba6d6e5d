"""The Expression tab: a face without a driver, by sliders with ARKit names."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.face import edit
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.edit import TURNS
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
    slider_of,
    stamped,
    stop_button,
    unchecked,
)
from .words import ARKIT

CODE = "drive_coeff"  # the expression code that is these 51 coefficients
PREVIEW_STEPS = 2
OPEN = ("mouth",)  # groups whose sliders are shown at first
TITLES = {
    "brows": "Brows",
    "eyes": "Eyes and gaze",
    "mouth": "Mouth",
    "jaw": "Jaw",
    "cheeks": "Cheeks and nose",
    "laugh": "Laugh",
    "wink": "Wink",
    "shocked": "Shocked",
    "kiss": "Kiss",
    "sad": "Sad",
    "sceptical": "Sceptical",
}


def _drawn(preview: bool, values, request):
    """The picture and a line about it; `values` are the event's arguments in the order of ARGUMENTS."""
    with studio.told_to_the_visitor():
        model, reference, reference_face, guidance, steps, seed, *rest = values
        if not reference:
            raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")
        turn = edit.Turn(**dict(zip(TURNS, rest, strict=False)))
        coefficients = dict(zip(ARKIT_NAMES, rest[len(TURNS) :], strict=False))
        settings = Settings(guidance=guidance, steps=steps, seed=seed, reference_face=face(reference_face))
        if preview:
            settings = Settings(
                guidance=1,
                steps=min(PREVIEW_STEPS, settings.steps),
                seed=seed,
                reference_face=face(reference_face),
            )
        started = time.perf_counter()
        own, result = studio.STUDIO, None
        with own.stoppable(request and request.session_hash) as flag:
            drawing.needed(model, settings)
            portrait = own.portrait(model, reference, "reference", settings.reference_face, CODE)
            result = drawing.expression(model, portrait, coefficients, turn, settings, flag)
        if result is None:
            gr.Info("Stopped.", duration=3)
            return gr.skip(), gr.skip()
        line = line_about(result.settings, time.perf_counter() - started)
        return stamped(result.picture, result.stamp), f"Preview · {line}" if preview else line


def make_expression(*values):
    """Gives the reference picture an expression and a turn of the head, by numbers: yaw, pitch and roll in
    degrees from the reference's own pose, and the 51 ARKit coefficients from 0 to 1.

    Returns the picture and a line about the settings.
    """
    return _drawn(False, values[:-1], values[-1])


def preview(*values):
    """The same in a few steps and without guidance, rough but quick; nothing unless `live` is on, or without
    a reference."""
    *values, live, request = values
    reference = values[ARGUMENTS.index("reference")]
    return _drawn(True, values, request) if live and reference else (gr.skip(), gr.skip())


def _named(function, *names: str) -> None:
    """Gradio takes the names of an event's arguments from its function; these are too many to write down."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    request = inspect.Parameter("request", kind, annotation=gr.Request)
    function.__signature__ = inspect.Signature([*(inspect.Parameter(name, kind) for name in names), request])
    function.__annotations__ = {"request": gr.Request}


ARGUMENTS = ("model", "reference", "reference_face", "guidance", "steps", "seed", *TURNS, *ARKIT_NAMES)
_named(make_expression, *ARGUMENTS)
_named(preview, *ARGUMENTS, "live")


def own_face(model, reference, reference_face=None):
    """Yaw, pitch, roll and the 51 coefficients of the reference as it is; zeros without a face."""
    try:
        if not reference:
            raise HelloMemeError("no picture")
        number = Settings(reference_face=face(reference_face)).reference_face
        portrait = studio.STUDIO.portrait(model, reference, "reference", number, CODE)
    except HelloMemeError:  # will be told when the picture is used
        return [0.0] * (len(TURNS) + len(ARKIT_NAMES))
    return [0.0] * len(TURNS) + list(edit.start(portrait.motion).values())


@functools.wraps(own_face)
def _as_begun(*portrait):
    values = own_face(*portrait)
    return [values, *values]


def _another(model, reference, reference_face, begun, *values):
    """`begun`, where the sliders were set to last by themselves, and the sliders, for another reference: its
    own face, unless somebody has moved them. Then they stay, to try the same face on another portrait."""
    return (
        _as_begun(model, reference, reference_face)
        if list(values) == begun
        else [gr.skip()] * (1 + len(values))
    )


def driver_face(model, reference, driver, reference_face=None):
    """Yaw, pitch, roll and the 51 coefficients that make the reference look like the driver picture."""
    if not driver:  # taken away
        return [gr.skip()] * (len(TURNS) + len(ARKIT_NAMES))
    with studio.told_to_the_visitor():
        if not reference:
            raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")
        number = Settings(reference_face=face(reference_face)).reference_face
        portrait = studio.STUDIO.portrait(model, reference, "reference", number, CODE)
        guide = studio.STUDIO.portrait(model, driver, "driver", None, CODE)
        return [*vars(edit.turn(guide.motion, portrait.motion)).values(), *edit.start(guide.motion).values()]


def preset(name: str) -> Callable[[], list[float]]:
    """The event of a preset's button."""

    def values():
        return [0.0] * len(TURNS) + list(edit.preset(name).values())

    values.__name__ = f"preset_{name}"  # as which it is offered to language models
    values.__doc__ = f"Yaw, pitch, roll and the 51 coefficients of the preset {TITLES[name]}."
    return values


def _pairs_first(name: str) -> tuple[bool, str, str]:
    """Sorts Left beside Right, and what has no side to the end."""
    return not name.endswith(("Left", "Right")), name.removesuffix("Left").removesuffix("Right"), name


def build(common: Common) -> dict[str, gr.Slider]:
    """The tab's components and events. Returns the sliders by name, for `common.restores`."""
    references, drivers = examples("references"), examples("drivers")
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280, elem_id="expression-side"):
            reference = picture_input(
                "Reference · what changes",
                "Choose a portrait: drop a file, paste or click",
                "expression-reference",
                references[:1],
                height=230,
            )
            reference_face = faces.picker(reference, "reference", "expression")
            example_row(references, reference, "Portraits to try")
            result = gr.Image(
                label=say("Result"),
                format="png",
                interactive=False,
                height=300,
                elem_id="expression-result",
                elem_classes="drawn",
                buttons=["download", "fullscreen"],
                alt_text="The reference with the face of the sliders",
            )
            about = gr.Markdown(elem_id="expression-about", elem_classes="about", show_label=False)
            with gr.Row(equal_height=True):
                run = gr.Button(
                    say("Draw it finely"),
                    variant="primary",
                    size="lg",
                    scale=3,
                    min_width=120,
                    elem_id="expression-run",
                )
                halt = stop_button("expression-stop")
            live = gr.Checkbox(
                True,
                label=say("Live preview"),
                info=say("Draws a rough picture whenever a slider is released."),
                elem_id="live",
            )
        with gr.Column(scale=3, min_width=280, elem_id="sliders"):
            with gr.Row(equal_height=True):
                buttons = {
                    name: gr.Button(say(TITLES[name]), size="sm", min_width=90, elem_id=f"preset-{name}")
                    for name in edit.PRESETS
                }
            with gr.Row(equal_height=True):
                own = gr.Button(say("The reference's own"), size="sm", min_width=120, elem_id="own-face")
                calm = gr.Button(say("Reset to calm"), size="sm", min_width=120, elem_id="reset-face")
            with gr.Accordion(say("Start from a picture"), open=False):
                driver = picture_input(
                    "Face to start from",
                    "Show a face: drop a file, paste or click",
                    "expression-driver",
                    height=220,
                )
                example_row(drivers, driver, "Faces to try")
            made = {}
            with gr.Accordion(say("Head"), open=True):
                turns = {
                    name: slider_of(facts, elem_id=f"turn-{name}", buttons=["reset"])
                    for name, facts in TURNS.items()
                }
            for group, names in edit.GROUPS.items():
                with gr.Accordion(say(TITLES[group]), open=group in OPEN):
                    for name in sorted(names, key=_pairs_first):
                        made[name] = unchecked(
                            gr.Slider(
                                0,
                                edit.MOST,
                                0,
                                step=edit.STEP,
                                label=name,
                                info=say(ARKIT[name]),
                                elem_id=f"slider-{name}",
                                buttons=["reset"],
                            )
                        )

    controls = turns | {name: made[name] for name in ARKIT_NAMES}
    sliders = list(controls.values())
    begun = gr.State([0.0] * len(sliders))
    inputs = [common.model, reference, reference_face, common.guidance, common.steps, common.seed, *sliders]
    looking = {
        "fn": preview,
        "inputs": [*inputs, live],
        "outputs": [result, about],
        "trigger_mode": "always_last",
        "show_progress": "minimal",
        "show_progress_on": result,
        **QUEUE,
    }
    run.click(
        make_expression, inputs, [result, about], api_name="expression", show_progress_on=result, **QUEUE
    )
    gr.on([component.release for component in sliders], api_name="preview", **looking)

    def fills(trigger, function, given=None, name=None, filled=sliders) -> None:
        """A preview follows, as sliders that are set this way are not released."""
        trigger(
            function,
            given,
            filled,
            api_name=name,
            api_visibility="public" if name else "private",
            show_progress="hidden",
            concurrency_id="faces",
        ).success(api_visibility="private", **looking)

    portrait = [common.model, reference, reference_face]
    for changed in (reference.change, reference_face.change):
        fills(changed, _another, [*portrait, begun, *sliders], filled=[begun, *sliders])
    fills(driver.change, driver_face, [common.model, reference, driver, reference_face], "driver_face")
    fills(own.click, _as_begun, portrait, "own_face", [begun, *sliders])
    fills(calm.click, lambda: [0.0] * len(sliders))
    for name, button in buttons.items():
        fills(button.click, preset(name), None, f"preset_{name}")
    halt.click(stop, api_visibility="private", **QUIET)
    return controls
