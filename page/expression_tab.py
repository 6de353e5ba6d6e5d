"""The Expression tab: a face without a driver, by sliders with ARKit names."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.face import edit
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.edit import TURNS, Turn
from hellomeme.releases.styles import Style
from hellomeme.settings import Settings

from . import drawing, state
from .arkit_help import ARKIT_HELP
from .components import (
    FACES,
    MODEL,
    PRIVATE,
    examples,
    picture_input,
    run_and_stop,
    show_stopped,
    slider_from,
    summary,
    summary_line,
    with_metadata,
)
from .events import DRAWING, Components, event, inputs_of, settings_of
from .gradio_patches import skip_validation
from .i18n import translate
from .portrait_input import PortraitInput
from .send_on import send_on
from .shared_settings import SharedSettings
from .thumbnails import thumbnail_row

PREVIEW_STEPS = 2
OPEN_GROUPS = ("mouth",)  # groups whose sliders are shown at first
SLIDERS = (*TURNS, *ARKIT_NAMES)
ZEROS = [0.0] * len(SLIDERS)
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
ARGUMENTS = ("model", "reference", "reference_face", "guidance", "steps", "seed", *SLIDERS)


# Drawing


@event(*ARGUMENTS, *DRAWING, optional=DRAWING)
def make_expression(
    model: str,
    reference: str | None,
    settings: Settings,
    style: Style,
    turn: Turn,
    coefficients: dict[str, float],
    session: str | None,
):
    """Gives the reference picture an expression and a turn of the head, by numbers: yaw, pitch and roll in
    degrees from the reference's own pose, and the 51 ARKit coefficients from 0 to 1.

    Returns the picture and a line about the settings.
    """
    return _draw(model, reference, settings, style, turn, coefficients, session)


@event(*ARGUMENTS, "live", *DRAWING, optional=DRAWING)
def preview(
    model: str,
    reference: str | None,
    settings: Settings,
    style: Style,
    turn: Turn,
    coefficients: dict[str, float],
    live: bool,
    session: str | None,
):
    """The same in a few steps and without guidance, rough but quick; nothing unless `live` is on, or without
    a reference."""
    if not (live and reference):
        return gr.skip(), gr.skip()
    quick = Settings(
        guidance=1,
        steps=min(PREVIEW_STEPS, settings.steps),
        seed=settings.seed,
        reference_face=settings.reference_face,
        few_steps=settings.few_steps,
    )
    return _draw(model, reference, quick, style, turn, coefficients, session, prefix="Preview · ")


def _draw(
    model: str,
    reference: str | None,
    settings: Settings,
    style: Style,
    turn: Turn,
    coefficients: dict[str, float],
    session: str | None,
    prefix: str = "",
):
    """The picture, and a line about it that begins with `prefix`."""
    _require_reference(reference)
    started = time.perf_counter()
    page, result = state.STATE, None
    with page.run(session) as flag:
        drawing.image_duration(model, settings, style=style)
        portrait = _portrait(model, reference, settings.reference_face)
        page.download(model, style, settings.few_steps)
        result = drawing.draw_expression(model, portrait, coefficients, turn, settings, flag, style)
    if result is None:
        show_stopped()
        return gr.skip(), gr.skip()
    line = summary(result, time.perf_counter() - started)
    return with_metadata(result.picture, result.stamp), prefix + line


def _require_reference(reference: str | None) -> None:
    if not reference:
        raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")


def _portrait(model: str, path: str, face: int | None, name: str = "reference"):
    return state.STATE.portrait(model, path, name, face, drawing.ARKIT)


# Values for the sliders, in the order of SLIDERS


def own_face(model, reference, reference_face=None):
    """Yaw, pitch, roll and the 51 coefficients of the reference as it is; zeros without a face."""
    try:
        _require_reference(reference)
        settings = settings_of({"reference_face": reference_face})
        portrait = _portrait(model, reference, settings.reference_face)
    except HelloMemeError:  # raised again when the picture is used
        return ZEROS
    return [0.0] * len(TURNS) + list(edit.start(portrait.motion).values())


@event("model", "reference", "driver", "reference_face", optional=("reference_face",))
def driver_face(model: str, reference: str | None, driver: str | None, settings: Settings):
    """Yaw, pitch, roll and the 51 coefficients that make the reference look like the driver picture."""
    if not driver:  # the picture was removed
        return [gr.skip()] * len(SLIDERS)
    _require_reference(reference)
    portrait = _portrait(model, reference, settings.reference_face)
    guide = _portrait(model, driver, None, "driver")
    return [*vars(edit.turn(guide.motion, portrait.motion)).values(), *edit.start(guide.motion).values()]


def preset(name: str) -> Callable[[], list[float]]:
    """The event of a preset's button."""

    def values():
        return [0.0] * len(TURNS) + list(edit.preset(name).values())

    values.__name__ = f"preset_{name}"  # the name of the tool for language models
    values.__doc__ = f"Yaw, pitch, roll and the 51 coefficients of the preset {TITLES[name]}."
    return values


@functools.wraps(own_face)
def reset_to_own_face(*portrait):
    values = own_face(*portrait)
    return [values, *values]  # also for the State `initial`


def change_portrait(open_tab, model, reference, reference_face, shown, initial, *values):
    """The own face of another portrait, if the tab is open. Sliders that somebody has moved, so that they
    differ from the `initial` values, stay: the same face can be tried on several portraits."""
    chosen = [reference, reference_face]
    if open_tab != "expression" or chosen == shown:
        return [gr.skip()] * (2 + len(values))
    if list(values) != initial:
        return [chosen, *[gr.skip()] * (1 + len(values))]
    return [chosen, *reset_to_own_face(model, reference, reference_face)]


def show_portrait(open_tab, model, *values):
    """The same when the tab is opened, unless the model would first be downloaded."""
    is_loaded = (model, drawing.ARKIT) in state.STATE.reenactors
    return change_portrait("expression" if is_loaded else None, model, *values)


# Components


@dataclass(frozen=True)
class Buttons:
    """The buttons that set sliders, and the picture that does."""

    presets: dict[str, gr.Button]
    own_face: gr.Button
    reset: gr.Button
    driver: gr.Image


def build(shared: SharedSettings, portrait: PortraitInput, tabs: gr.Tabs, tab: gr.Tab) -> Components:
    """The tab's components and events. Returns the sliders by name."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=280, elem_id="expression-side"):
            result = gr.Image(
                label=translate("Result"),
                format="png",
                interactive=False,
                height=300,
                elem_id="expression-result",
                elem_classes="drawn",
                buttons=["download", "fullscreen"],
                alt_text="The reference with the face of the sliders",
            )
            line = summary_line("expression-about")
            run = run_and_stop("Draw it finely", "expression-")
            send_on([result], "expression", portrait, tabs)
            live = gr.Checkbox(
                True,
                label=translate("Live preview"),
                info=translate("Draws a rough picture whenever a slider is released."),
                elem_id="live",
            )
        with gr.Column(scale=3, min_width=280, elem_id="sliders"):
            buttons = _buttons()
            sliders = _sliders()

    inputs = shared.components | portrait.components | sliders | {"live": live}
    run.click(
        make_expression,
        inputs_of(make_expression, inputs),
        [result, line],
        api_name="expression",
        show_progress_on=result,
        **MODEL,
    )
    _connect(inputs, sliders, buttons, [result, line], portrait.open_tab, tab)
    return sliders


def _buttons() -> Buttons:
    with gr.Row(equal_height=True):
        presets = {
            name: gr.Button(translate(TITLES[name]), size="sm", min_width=90, elem_id=f"preset-{name}")
            for name in edit.PRESETS
        }
    with gr.Row(equal_height=True):
        own = gr.Button(translate("The reference's own"), size="sm", min_width=120, elem_id="own-face")
        reset = gr.Button(translate("Reset to calm"), size="sm", min_width=120, elem_id="reset-face")
    with gr.Accordion(translate("Start from a picture"), open=False):
        driver = picture_input(
            "Face to start from", "Show a face: drop a file, paste or click", "expression-driver", height=220
        )
        thumbnail_row(examples("drivers"), driver, "Faces to try")
    return Buttons(presets, own, reset, driver)


def _sliders() -> dict[str, gr.Slider]:
    """By name, in the order of SLIDERS."""
    with gr.Accordion(translate("Head"), open=True):
        sliders = {
            name: slider_from(facts, elem_id=f"turn-{name}", buttons=["reset"])
            for name, facts in TURNS.items()
        }
    for group, names in edit.GROUPS.items():
        with gr.Accordion(translate(TITLES[group]), open=group in OPEN_GROUPS):
            for name in sorted(names, key=_sides_together):
                sliders[name] = skip_validation(
                    gr.Slider(
                        0,
                        edit.MOST,
                        0,
                        step=edit.STEP,
                        label=name,
                        info=translate(ARKIT_HELP[name]),
                        elem_id=f"slider-{name}",
                        buttons=["reset"],
                    )
                )
    return {name: sliders[name] for name in SLIDERS}


def _sides_together(name: str) -> tuple[bool, str, str]:
    """Sorts Left beside Right, and names without a side to the end."""
    return not name.endswith(("Left", "Right")), name.removesuffix("Left").removesuffix("Right"), name


def _connect(
    inputs: Components, sliders: Components, buttons: Buttons, outputs: list, open_tab: gr.State, tab: gr.Tab
) -> None:
    """The events that set sliders, and the preview after each."""
    values = list(sliders.values())
    initial = gr.State(ZEROS)  # the values that were set last without the visitor's hand
    shown = gr.State(None)  # the portrait, and the number of its face, that the sliders were set for
    portrait = [inputs[name] for name in ("model", "reference", "reference_face")]
    show_preview = {
        "fn": preview,
        "inputs": inputs_of(preview, inputs),
        "outputs": outputs,
        "trigger_mode": "always_last",
        "show_progress": "minimal",
        "show_progress_on": outputs[0],
        **MODEL,
    }
    gr.on([slider.release for slider in values], api_name="preview", **show_preview)

    def sets(trigger, function, given=None, api_name=None, outputs=values) -> None:
        """An event that sets the sliders. The preview is drawn here, since sliders that an event sets do not
        fire `release`."""
        visibility = "public" if api_name else "private"
        changed = trigger(function, given, outputs, api_name=api_name, api_visibility=visibility, **FACES)
        changed.success(**show_preview, **PRIVATE)

    given, changed = [open_tab, *portrait, shown, initial, *values], [shown, initial, *values]
    triggers = [inputs["reference"].change, inputs["reference_face"].change]
    gr.on(triggers, change_portrait, given, changed, **PRIVATE, **FACES)
    tab.select(show_portrait, given, changed, **PRIVATE, **FACES)
    shown.change(**show_preview, **PRIVATE)
    sets(
        buttons.driver.change,
        driver_face,
        inputs_of(driver_face, {**inputs, "driver": buttons.driver}),
        "driver_face",
    )
    sets(buttons.own_face.click, reset_to_own_face, portrait, "own_face", [initial, *values])
    sets(buttons.reset.click, lambda: ZEROS)
    for name, button in buttons.presets.items():
        sets(button.click, preset(name), None, f"preset_{name}")
