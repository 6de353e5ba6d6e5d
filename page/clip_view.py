"""The place of a clip: the face alone, or the whole picture with the face pasted back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.settings import Settings

from . import state
from .components import PRIVATE, run_begins, run_ends, show_stopped, slider, summary_line
from .files import new_file
from .i18n import translate
from .kept import KeptClip
from .outdated import Shown
from .result_view import FACE, WHOLE, view_choice
from .runs import stop_check


@dataclass(frozen=True)
class ClipView(Shown):
    """Components that show a clip. clip, whole: for the two choices of `view`, which decides which of them is
    visible."""

    clip: gr.Video
    whole: gr.Video


def clip_view(first: str | None, first_kept: Callable[[], KeptClip | None]) -> ClipView:
    """The components, and the event that shows the clip as the switch says. first: path of the clip that the
    page opens with; first_kept returns it as a kept result."""
    id = "video-result-view"
    options = {"interactive": False, "height": 300, "buttons": ["download"], "autoplay": True, "loop": True}
    with gr.Column(elem_id=id, elem_classes="result-view", min_width=200):
        clip = gr.Video(first, label=translate("Result"), elem_id="video-result", **options)
        label = translate("In the original picture")
        whole = gr.Video(label=label, visible=False, elem_id="video-whole", **options)
        view = view_choice("video-", {FACE: "Face", WHOLE: "Whole picture"})
        feather = slider("feather", visible=False, elem_id="video-feather")
        line = summary_line("video-about")
    drawn = gr.State(None)

    def show(view: str, key: str | None, feather: float, request: gr.Request) -> list:
        """Updates of `clip`, `whole`, `feather` and the switch."""
        pasted, chosen = None, gr.skip()  # another one may have been chosen meanwhile
        try:
            if view == WHOLE:
                kept = first_kept() if key is None else state.STATE.kept.get(key)
                pasted = kept and _pasted(kept, feather, request.session_hash)
        except HelloMemeError as error:
            gr.Warning(str(error))
        if view == WHOLE and pasted is None:
            chosen = FACE
        is_whole = pasted is not None
        return [
            gr.update(visible=not is_whole),
            gr.update(value=pasted, visible=is_whole),
            gr.update(visible=is_whole),
            chosen,
        ]

    pasting = gr.on(
        [view.input, drawn.change, feather.release],
        show,
        [view, drawn, feather],
        [clip, whole, feather, view],
        concurrency_id="paste clips",
        trigger_mode="always_last",
        js=run_begins("paste"),
        show_progress_on=[clip, whole],
        **PRIVATE,
    )
    run_ends("paste", pasting)
    return ClipView(id, line, drawn, clip, whole)


def _pasted(kept: KeptClip, feather: float, session: str | None) -> str | None:
    """The path of the whole clip; None if the visitor has stopped it."""
    from hellomeme.pasted_clip import paste_clip

    progress, feather = gr.Progress(), Settings(feather=feather).feather
    reference, pasted = state.STATE.portrait(*kept.source), None

    def show(done: int, frames: int) -> None:
        progress((done, frames), desc="Pasting back", unit="frames")

    with state.STATE.run(session) as flag:
        output = new_file(f"{Path(kept.clip).stem}-whole.mp4")
        progress_or_stop = stop_check(flag, show)
        pasted = paste_clip(kept.clip, reference.frame, reference.crop, output, feather, progress_or_stop)
    if pasted is None:
        show_stopped()
        return None
    return str(pasted)
