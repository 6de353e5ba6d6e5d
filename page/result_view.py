"""The place of a result: the face alone, the whole picture with the face pasted back, or before and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.settings import Settings

from . import state
from .components import PRIVATE, slider, summary_line, with_metadata
from .i18n import translate
from .kept import KeptPicture
from .outdated import Shown

FACE, WHOLE, BOTH = "face", "whole", "both"
PASTING = {"concurrency_id": "paste", "trigger_mode": "always_last", "show_progress": "minimal"}


@dataclass(frozen=True)
class ResultView(Shown):
    """Components that show a picture.

    picture, whole, compare: for the three choices of `view`, which decides which of them is visible. feather:
    the soft edge.
    """

    picture: gr.Image
    whole: gr.Image
    compare: gr.ImageSlider
    view: gr.Radio
    feather: gr.Slider


def view_choice(prefix: str, choices: dict[str, str]) -> gr.Radio:
    """The switch under a result. choices: value -> text."""
    return gr.Radio(
        [(translate(text), value) for value, text in choices.items()],
        value=FACE,
        label=translate("Show"),
        show_label=False,
        container=False,
        elem_id=f"{prefix}view",
    )


def result_view(
    prefix: str,
    alt_text: str,
    height: int,
    first: str | None = None,
    caption: str | None = None,
    first_kept: Callable[[], KeptPicture | None] = lambda: None,
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
        view = view_choice(prefix, {FACE: "Face", WHOLE: "Whole picture", BOTH: "Before/after"})
        feather = slider("feather", visible=False, elem_id=f"{prefix}feather")
        line = summary_line(f"{prefix}about", caption)
    drawn = gr.State(None)
    shown = ResultView(id, line, drawn, picture, whole, compare, view, feather)

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


def _pictures(view: str, kept: KeptPicture | None, feather: float) -> tuple:
    """The whole reference before and after; Nones where they are not asked for, or nothing is drawn yet."""
    if view == FACE or kept is None:
        return None, None
    feather = Settings(feather=feather).feather
    before, after = kept.before_and_after(state.STATE.portrait(*kept.source), feather)
    if kept.stamp is not None:
        settings = dataclasses.replace(kept.stamp.settings, feather=feather)
        stamp = dataclasses.replace(kept.stamp, settings=settings)
        after = with_metadata(after, stamp, f"{kept.name}-whole")
    return before, after
