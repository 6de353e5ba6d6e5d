"""The Expression tab: a face without a driver, by sliders. Their components are in `face_sliders`, and what
sets them in `face_values`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.face import edit
from hellomeme.face.controls import FACE_CONTROLS, FaceControl
from hellomeme.face.edit import Turn
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style
from hellomeme.settings import Settings

from . import drawing, face_sliders, opening, state
from .components import (
    FACES,
    IMMEDIATE,
    MODEL,
    PRIVATE,
    examples,
    file_name,
    run_and_stop,
    show_stopped,
    summary,
    with_metadata,
)
from .events import DRAWING, Components, event, inputs_of, settings_of
from .face_mix import CALM, NAMES, Face, FaceMix
from .face_sliders import FaceSliders
from .face_values import (
    change_portrait,
    driver_face,
    follow,
    loaded_face,
    mix_faces,
    mix_of_own,
    own_face,
    portrait_of,
    preset,
    saved_face,
    show,
    show_portrait,
    start_from,
)
from .i18n import translate
from .kept import KeptPicture
from .outdated import asked, dim_outdated, set_together, watch_run
from .portrait_input import PortraitInput, require_reference
from .redraw import redraw_at_once
from .result_view import ResultView, result_view
from .send_on import send_on
from .shared_settings import SharedSettings

PREVIEW_STEPS = 2
ARGUMENTS = ("model", "reference", "reference_face", "guidance", "steps", "seed", *NAMES)


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

    Returns the picture, a line about the settings, and the key of the kept result.
    """
    return _draw(model, reference, settings, style, turn, coefficients, session, "")


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
        return [gr.skip()] * 3
    quick = quick_settings(settings)
    prefix = "Preview · " if differs(quick, settings, model) else ""
    return _draw(model, reference, quick, style, turn, coefficients, session, prefix)


def quick_settings(settings: Settings) -> Settings:
    """Those of the preview."""
    return Settings(
        guidance=1,
        steps=min(PREVIEW_STEPS, settings.steps),
        seed=settings.seed,
        reference_face=settings.reference_face,
        few_steps=settings.few_steps,
    )


def differs(quick: Settings, settings: Settings, model: str) -> bool:
    """Whether the finely drawn picture is another than the preview."""
    row = find(model)
    return quick.resolved(row) != settings.resolved(row)


def has_fine_run(model, guidance, steps, few_steps=None, upscale=None, live=True) -> bool:
    """Whether a button draws finely: where nothing is drawn without it, or the preview is another picture."""
    given = {"guidance": guidance, "steps": steps, "few_steps": few_steps, "upscale": upscale}
    try:
        settings = settings_of(given)
    except HelloMemeError:  # raised again when it is drawn
        return True
    return not live or differs(quick_settings(settings), settings, model)


def _draw(
    model: str,
    reference: str | None,
    settings: Settings,
    style: Style,
    turn: Turn,
    coefficients: dict[str, float],
    session: str | None,
    prefix: str,
):
    """The picture, a line about it that begins with `prefix`, and the key of the kept result."""
    require_reference(reference)
    started = time.perf_counter()
    page, result = state.STATE, None
    with page.run(session) as flag:
        drawing.image_duration(model, settings, style=style)
        portrait = portrait_of(model, reference, settings.reference_face)
        page.download(model, style, settings.few_steps)
        result = drawing.draw_expression(model, portrait, coefficients, turn, settings, flag, style)
    if result is None:
        show_stopped()
        return [gr.skip()] * 3
    line = summary(result, time.perf_counter() - started)
    source = model, reference, settings.reference_face, drawing.ARKIT
    name = file_name(reference, "expression")
    kept = KeptPicture(*source, picture=result.picture, stamp=result.stamp, name=name)
    key = page.kept.keep(session, "expression", kept)
    return with_metadata(result.picture, result.stamp, name), prefix + line, key


# Components


@dataclass(frozen=True)
class ExpressionTab:
    """settings: by the names of NAMES. face: what `show` sets. opening: the face that the page opens with.
    drawn_from: all inputs that change what is drawn."""

    settings: Components
    face: list[gr.components.Component]
    opening: list[float]
    result: ResultView
    drawn_from: list[gr.components.Component]

    def follow(self, event: gr.events.Dependency) -> None:
        """Lets the plain sliders follow an event that sets the settings."""
        event.success(follow, list(self.settings.values()), self.face, **PRIVATE, **IMMEDIATE)

    def on_load(self, page: gr.Blocks) -> None:
        """Sets the sliders as the page opens, in the browser: the values with which a component is made are
        the defaults of the API, and there an expression is made of nothing but what is asked for."""
        values = json.dumps(show(mix_of_own(self.opening))[1:])
        opened = page.load(None, None, self.face[1:], js=f"() => {values}", **PRIVATE)
        set_together(self.result, self.drawn_from, opened)


def build(shared: SharedSettings, portrait: PortraitInput, tabs: gr.Tabs, tab: gr.Tab) -> ExpressionTab:
    """The tab's components and events."""
    first = (examples("references") or [None])[0]
    with gr.Row(equal_height=False, elem_id="expression"):
        with gr.Column(scale=2, min_width=240, elem_id="expression-side"):
            result = _result(first)
            row = find(state.STATE.release)
            is_fine = has_fine_run(state.STATE.release, row.guidance, row.steps)
            with gr.Column(visible=is_fine, elem_id="expression-fine") as fine:
                run = run_and_stop("Draw it finely", "expression-")
            send_on([result.picture, result.whole], "expression", portrait, tabs)
        with gr.Column(scale=3, min_width=280, elem_id="sliders"):
            sliders = face_sliders.build()
            live = gr.Checkbox(
                True,
                label=translate("Live preview"),
                info=translate("Draws a rough picture whenever a slider is released."),
                elem_id="live",
            )

    inputs = shared.components | portrait.components | sliders.values | {"live": live}
    drawn_from = [inputs[name] for name in make_expression.names]
    outputs = [result.picture, result.line, result.drawn]
    dim_outdated(result, drawn_from)
    drawing_finely = run.click(
        make_expression,
        drawn_from,
        outputs,
        js=asked(result, make_expression.names, make_expression.names),
        api_name="expression",
        show_progress_on=result.picture,
        **MODEL,
    )
    watch_run(result, drawing_finely)
    changed = [inputs["seed"].change, inputs["guidance"].release, inputs["steps"].release]
    js = asked(result, preview.names, make_expression.names)
    place = result, portrait, tab, ("reference",)
    redraw_at_once(changed, preview, js, inputs, outputs, *place, when_opened=False)
    names = ("guidance", "steps", "few_steps", "upscale", "live")
    given = [inputs[name] for name in ("model", *names)]
    changed = [inputs[name].change for name in names]
    gr.on(changed, _show_fine_run, given, fine, trigger_mode="always_last", **PRIVATE, **IMMEDIATE)
    shared.model.change(
        face_sliders.offered_presets, shared.model, list(sliders.presets.values()), **PRIVATE, **IMMEDIATE
    )
    own = opening.own_face(first)
    face = _connect(inputs, sliders, result, portrait.open_tab, tab, own)
    _api(inputs, sliders)
    return ExpressionTab(sliders.values, face, own, result, drawn_from)


def _result(first: str | None) -> ResultView:
    """The place of the result, with the one of the first example, if it was shipped."""
    shipped = opening.shipped(first, opening.OWN)
    kept = (lambda: opening.kept_file(shipped, first)) if shipped else (lambda: None)
    return result_view("expression-", "The reference with the face of the sliders", 300, shipped, None, kept)


def _show_fine_run(*given):
    return gr.update(visible=has_fine_run(*given))


def _connect(
    inputs: Components, sliders: FaceSliders, result: ResultView, open_tab: gr.State, tab: gr.Tab, own: Face
) -> list[gr.components.Component]:
    """The events that set sliders, and the preview after each. Returns what `show` sets."""
    values, controls = list(sliders.values.values()), sliders.controls
    initial = gr.State(own)  # the values that were set last without the visitor's hand
    shown = gr.State(None)  # the portrait, and the number of its face, that the sliders were set for
    mix = gr.State(mix_of_own(own))
    face = [mix, sliders.mix, *controls.values(), *values]
    portrait = [inputs[name] for name in ("model", "reference", "reference_face")]
    show_preview = {
        "fn": preview,
        "inputs": inputs_of(preview, inputs),
        "outputs": [result.picture, result.line, result.drawn],
        "js": asked(result, preview.names, make_expression.names),
        "trigger_mode": "always_last",
        "show_progress": "minimal",
        "show_progress_on": result.picture,
        **MODEL,
    }
    released = [slider.release for slider in values]
    watch_run(result, gr.on(released, api_name="preview", **show_preview))

    def sets(trigger: Callable, function: Callable, given: list, outputs: list = face) -> None:
        """An event that sets sliders. The preview is drawn here, since sliders that an event sets do not fire
        `release`."""
        changed = trigger(function, given, outputs, **PRIVATE, **FACES)
        watch_run(result, changed.success(**show_preview, **PRIVATE))

    def chooses(trigger: Callable, find_face: Callable[..., list], given: Sequence = ()) -> None:
        """An event that sets all of them to a face: that of `find_face` for the values of `given`."""

        def choose(*both):
            found = find_face(*both[: len(given)])
            return show(FaceMix.choose(found, both[len(given) :])) if found else [gr.skip()] * len(face)

        sets(trigger, choose, [*given, *values])

    given, changed = [open_tab, *portrait, shown, initial, *values], [shown, initial, *face]
    triggers = [inputs["reference"].change, inputs["reference_face"].change]
    gr.on(triggers, change_portrait, given, changed, **PRIVATE, **FACES)
    tab.select(show_portrait, given, changed, **PRIVATE, **FACES)
    watch_run(result, shown.change(**show_preview, **PRIVATE))

    driven = inputs_of(driver_face, {**inputs, "driver": sliders.driver})
    chooses(sliders.driver.change, start_from, driven)
    chooses(sliders.own_face.click, own_face, portrait)
    chooses(sliders.calm.click, lambda: CALM)
    chooses(sliders.file.upload, loaded_face, [sliders.file])
    for name, button in sliders.presets.items():
        chooses(button.click, preset(name))
    sets(sliders.mix.release, mix_faces, [mix, sliders.mix, *values])
    for name, control in FACE_CONTROLS.items():
        its = [sliders.values[coefficient] for coefficient in control.names]
        sets(controls[name].release, _coefficients_of(control), [controls[name]], its)
        gr.on(
            [slider.release for slider in its],
            _value_of(control),
            its,
            controls[name],
            **PRIVATE,
            **IMMEDIATE,
        )
    saved = sliders.save.click(saved_face, values, sliders.saved, **PRIVATE, **FACES)
    saved.success(None, sliders.saved, js="file => helloMeme.download(file)", **PRIVATE)
    return face


def _coefficients_of(control: FaceControl) -> Callable[[float], list[float] | float]:
    """What Gradio takes for the sliders of a control: for one of them no list."""

    def values(value: float) -> list[float] | float:
        found = list(control.coefficients(value).values())
        return found if len(found) > 1 else found[0]

    return values


def _value_of(control: FaceControl) -> Callable[..., float]:
    return lambda *values: control.value(dict(zip(control.names, values, strict=True)))


def _api(inputs: Components, sliders: FaceSliders) -> None:
    """The events of the API that return faces. The page's own set more: plain sliders, and the mix."""
    unseen = gr.Button(visible=False)
    outputs = list(sliders.values.values())
    portrait = [inputs[name] for name in ("model", "reference", "reference_face")]
    unseen.click(own_face, portrait, outputs, api_name="own_face", **FACES)
    driven = inputs_of(driver_face, {**inputs, "driver": sliders.driver})
    unseen.click(driver_face, driven, outputs, api_name="driver_face", **FACES)
    for name in edit.PRESETS:
        unseen.click(preset(name), None, outputs, api_name=f"preset_{name}", **FACES)
