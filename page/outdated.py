"""Results that are dimmed, by page.js, while the inputs are not those that they were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from .components import PRIVATE
from .gradio_patches import page_being_built


@dataclass(frozen=True)
class Shown:
    """A result on the page.

    id: of the element around it. line: about it. drawn: its key, see `KeptResults`; an event that draws
    returns a new one.
    """

    id: str
    line: gr.Markdown
    drawn: gr.State


def dim_outdated(shown: Shown, inputs: list[gr.components.Component]) -> None:
    """To be called once. inputs: all that change what is drawn."""
    page_being_built().load(**_call("set", shown, inputs))
    gr.on([one.change for one in inputs], **_call("chosen", shown, inputs))
    shown.drawn.change(**_call("drawn", shown))


def set_together(shown: Shown, inputs: list[gr.components.Component], event: gr.events.Dependency) -> None:
    """To be called for an event that sets the result and these inputs, the same as for `dim_outdated`."""
    event.success(**_call("set", shown, inputs))


def asked(shown: Shown, names: Sequence[str] = (), watched: Sequence[str] = ()) -> str:
    """The `js` of an event that draws, from inputs with these names: the result will belong to those that
    are `watched`, in the order in which `dim_outdated` has them; without them, to what was chosen last."""
    values = f", {[names.index(name) for name in watched]}.map(i => values[i])" if watched else ""
    return f"(...values) => {{ helloMeme.asked('{shown.id}'{values}); return values; }}"


def watch_run(shown: Shown, event: gr.events.Dependency) -> None:
    """To be called for each event that draws. After an error the line about the result is cleared, too."""
    event.failure(**_call("failed", shown) | {"outputs": shown.line})
    event.then(**_call("ended", shown))


def _call(function: str, shown: Shown, inputs: Sequence[gr.components.Component] = ()) -> dict:
    """Options of an event that calls a function of page.js, and nothing of the server."""
    js = f"(...values) => window.helloMeme?.{function}('{shown.id}', values)"
    return {"fn": None, "inputs": list(inputs), "js": js} | PRIVATE
