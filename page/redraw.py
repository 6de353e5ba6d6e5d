"""Draws at once when an input changes, where a picture takes less than a second on this machine."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import find

from . import state
from .components import IMMEDIATE, MODEL, PRIVATE
from .errors import SHOWN
from .events import Components, Values, inputs_of, settings_of
from .gradio_patches import current_page
from .i18n import translate
from .live_offer import picture_seconds
from .outdated import watch_run
from .portrait_input import PortraitInput
from .result_view import ResultView
from .runs import replaceable_runs

FAST = 1.0  # s for a picture
DRAW_AGAIN = translate("Draw again")
DECIDING = ("model", "guidance", "steps", "few_steps", "upscale")  # how long a picture takes


def is_fast(values: Values) -> bool:
    """Whether a picture with these values of `DECIDING` takes less than a second, as measured. False before
    the first picture, with upscaling, which is not measured by itself, and for settings out of range."""
    try:
        settings = settings_of(values).resolved(find(values["model"]))
    except HelloMemeError:  # raised again when somebody asks for the picture
        return False
    seconds = picture_seconds(values["model"], settings)
    return seconds is not None and seconds < FAST and settings.enlargement == 1


def redraw_at_once(
    triggers: Sequence[Callable],
    draw: Callable,
    js: str,
    inputs: Components,
    outputs: list[gr.components.Component],
    shown: ResultView,
    portrait: PortraitInput,
    tab: gr.Tab,
    needed: tuple[str, ...],
    run: gr.Button | None = None,
    when_opened: bool = True,
) -> None:
    """Connects `triggers` with an event that draws, for models that are fast enough.

    draw, js, inputs, outputs: of the event. needed: inputs without which nothing is drawn. run: a button for
    the same event, whose text and colour then say that it need not be pressed. While another tab is open
    nothing is drawn; when_opened: but when this one is opened.
    Only the last request counts: one that waits or draws is dropped for it.
    """
    run = run or gr.Button(visible=False)
    label, names = run.value, (*DECIDING, *needed)
    # Not States, whose changes are only noticed after events that wait in the queue
    wanted, opened = gr.Textbox(visible=False), gr.Textbox(visible=False)
    outdated = gr.Checkbox(visible=False)  # filled in by page.js
    redraw = _without_errors(draw, ["" if one is shown.line else gr.skip() for one in outputs])

    def look(*values) -> dict:
        """The text and colour of the button for values of `DECIDING`."""
        if is_fast(dict(zip(DECIDING, values, strict=True))):
            return gr.update(value=DRAW_AGAIN, variant="secondary")
        return gr.update(value=label, variant="primary")

    # Coroutines, as they change the queue
    async def request_picture(request: gr.Request, open_tab: str, outdated: bool, *values):
        """A new value of `wanted`, if the picture is to be drawn, and the look of the button."""
        given = dict(zip(names, values, strict=True))
        button = look(*values[: len(DECIDING)])
        if not (outdated and open_tab == tab.id and all(given[name] for name in needed) and is_fast(given)):
            return gr.skip(), button
        current_page().drop_waiting(request.session_hash, redraw)
        state.STATE.runs.replace(request.session_hash)
        return uuid.uuid4().hex, button

    async def request_when_opened(request: gr.Request, outdated: bool, *values):
        return await request_picture(request, tab.id, outdated, *values)

    chosen = [outdated, *(inputs[name] for name in names)]
    is_outdated = f"helloMeme.isOutdated('{shown.id}')"
    options = {"outputs": [wanted, run], "trigger_mode": "always_last", **IMMEDIATE, **PRIVATE}
    js_open = f"(open_tab, _, ...values) => [open_tab, {is_outdated}, ...values]"
    gr.on(triggers, request_picture, [portrait.open_tab, *chosen], js=js_open, **options)
    inputs["model"].change(look, [inputs[name] for name in DECIDING], run, **IMMEDIATE, **PRIVATE)
    if when_opened:
        js_opened = f"last => {is_outdated} ? String(Date.now()) : last"
        tab.select(None, opened, opened, js=js_opened, **PRIVATE)
        js_chosen = f"(_, ...values) => [{is_outdated}, ...values]"
        opened.change(request_when_opened, chosen, js=js_chosen, **options)
    drawing = wanted.change(
        redraw,
        inputs_of(draw, inputs),
        outputs,
        js=js,
        trigger_mode="always_last",
        show_progress="minimal",
        show_progress_on=shown.picture,
        **MODEL,
        **PRIVATE,
    )
    watch_run(shown, drawing)


def _without_errors(draw: Callable, nothing: list) -> Callable:
    """`draw` as an event whose run gives way to a later one, and which returns `nothing` and shows a warning
    in place of an error: after an error Gradio 6.31 forgets the request that came last."""

    @functools.wraps(draw)
    def redraw(*arguments):
        with replaceable_runs():
            try:
                return draw(*arguments)
            except gr.Error as error:
                gr.Warning(error.message, duration=SHOWN, title="Error")
                return nothing

    redraw.__name__ = f"redraw_by_{draw.__name__}"
    return redraw
