"""The place of a result: the face alone, the whole picture with the face pasted back, or before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.settings import Settings

from . import state
from .components import PRIVATE, slider, summary_line, with_metadata
from .gradio_patches import page_being_built
from .i18n import translate
from .kept import Kept

FACE, WHOLE, BOTH = "face", "whole", "both"
PASTING = {"concurrency_id": "paste", "trigger_mode": "always_last", "show_progress": "minimal"}


@dataclass(frozen=True)
class ResultView:
    """Components that show a result, and what is known about it.

    id: of the element around them, by which page.js knows them. picture, whole, compare: for the three
    choices of `view`, which decides which of them is visible. feather: the soft edge. line: about the result.
    drawn: the key of the result, see `KeptResults`; an event that draws returns a new one.
    """

    id: str
    picture: gr.Image
    whole: gr.Image
    compare: gr.ImageSlider
    view: gr.Radio
    feather: gr.Slider
    line: gr.Markdown
    drawn: gr.State


def result_view(
    prefix: str,
    alt_text: str,
    height: int,
    first: str | None = None,
    caption: str | None = None,
    first_kept: Callable[[], Kept | None] = lambda: None,
) -> ResultView:
    """The components, and the event that shows the result as `view` says. prefix: of the element ids.

    first, caption: path of the picture that the page opens with, and the line about it; first_kept returns
    the same picture as a kept result.
    """
    id = f"{prefix}result-view"
    with gr.Column(elem_id=id, elem_classes="result-view", min_width=200):
        picture = gr.Image(
            first,
            label=translate("Result"),
            format="png",
            interactive=False,
            height=height,
            elem_id=f"{prefix}result",
            elem_classes="drawn",
            buttons=["download", "fullscreen"],
            alt_text=alt_text,
        )
        whole = gr.Image(
            label=translate("In the original picture"),
            format="png",
            interactive=False,
            height=height,
            visible=False,
            elem_id=f"{prefix}whole",
            buttons=["download", "fullscreen"],
            alt_text="The whole portrait with the result in place",
        )
        compare = gr.ImageSlider(
            label=translate("Before and after"),
            interactive=False,
            format="jpeg",
            max_height=height,
            visible=False,
            elem_id=f"{prefix}compare",
            buttons=["fullscreen"],
        )
        choices = {FACE: "Face", WHOLE: "Whole picture", BOTH: "Before/after"}
        view = gr.Radio(
            [(translate(text), value) for value, text in choices.items()],
            value=FACE,
            label=translate("Show"),
            show_label=False,
            container=False,
            elem_id=f"{prefix}view",
        )
        feather = slider("feather", visible=False, elem_id=f"{prefix}feather")
        line = summary_line(f"{prefix}about", caption)
    drawn = gr.State(None)
    shown = ResultView(id, picture, whole, compare, view, feather, line, drawn)

    def show(view: str, key: str | None, feather: float) -> list:
        """Updates of `picture`, `whole`, `compare`, `feather` and `view`."""
        chosen = gr.skip()  # another one may have been chosen meanwhile
        try:
            kept = first_kept() if key is None else state.STATE.kept.get(key)
            before, after = _pictures(view, kept, feather)
        except HelloMemeError as error:
            gr.Warning(str(error))
            chosen, view, before, after = FACE, FACE, None, None
        pasted = {WHOLE: after, BOTH: None if after is None else (before, after)}
        places = [
            gr.update(value=value if view == choice else None, visible=view == choice)
            for choice, value in pasted.items()
        ]
        return [gr.update(visible=view == FACE), *places, gr.update(visible=view != FACE), chosen]

    outputs = [picture, whole, compare, feather, view]
    triggers = [view.input, drawn.change, feather.release]
    gr.on(triggers, show, [view, drawn, feather], outputs, **PASTING, **PRIVATE)
    return shown


def _pictures(view: str, kept: Kept | None, feather: float) -> tuple:
    """The whole reference before and after; Nones where they are not asked for, or nothing is drawn yet."""
    if view == FACE or kept is None:
        return None, None
    feather = Settings(feather=feather).feather
    before, after = kept.before_and_after(state.STATE.portrait(*kept.source), feather)
    if kept.stamp is not None:
        settings = dataclasses.replace(kept.stamp.settings, feather=feather)
        after = with_metadata(after, dataclasses.replace(kept.stamp, settings=settings))
    return before, after


# What page.js is told, so that it dims a result while the inputs are not those that it was drawn from


def dim_outdated(shown: ResultView, inputs: list[gr.components.Component]) -> None:
    """To be called once. inputs: all that change what is drawn."""
    page_being_built().load(**_call("set", shown, inputs))
    gr.on([one.change for one in inputs], **_call("chosen", shown, inputs))
    shown.drawn.change(**_call("drawn", shown))


def set_together(
    shown: ResultView, inputs: list[gr.components.Component], event: gr.events.Dependency
) -> None:
    """To be called for an event that sets the result and these inputs, the same as for `dim_outdated`."""
    event.success(**_call("set", shown, inputs))


def asked(shown: ResultView, names: Sequence[str] = (), watched: Sequence[str] = ()) -> str:
    """The `js` of an event that draws, from inputs with these names: the result will belong to those that
    are `watched`, in the order in which `dim_outdated` has them; without them, to what was chosen last."""
    values = f", {[names.index(name) for name in watched]}.map(i => values[i])" if watched else ""
    return f"(...values) => {{ helloMeme.asked('{shown.id}'{values}); return values; }}"


def watch_run(shown: ResultView, event: gr.events.Dependency) -> None:
    """To be called for each event that draws. After an error the line about the result is cleared, too."""
    event.failure(**_call("failed", shown) | {"outputs": shown.line})
    event.then(**_call("ended", shown))


def _call(function: str, shown: ResultView, inputs: Sequence[gr.components.Component] = ()) -> dict:
    """Options of an event that calls a function of page.js, and nothing of the server."""
    js = f"(...values) => window.helloMeme?.{function}('{shown.id}', values)"
    return {"fn": None, "inputs": list(inputs), "js": js} | PRIVATE
