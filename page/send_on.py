"""Goes on with a result: it becomes the portrait, and another tab opens."""

from __future__ import annotations

import gradio as gr

from hellomeme.errors import HelloMemeError

from .components import FACES, PRIVATE
from .errors import visitor_errors
from .gradio_patches import keep_upload
from .i18n import translate
from .portrait_input import PortraitInput

TABS = ("image", "video", "expression", "live")  # that draw the portrait


def send_on(results: list[gr.Image], here: str, portrait: PortraitInput, tabs: gr.Tabs) -> None:
    """Buttons that make a result the portrait and open another tab: the last of `results` that has a picture.
    here: the tab they are in."""
    for result in results:
        keep_upload(result)  # as a file, with its settings
    with gr.Row(equal_height=True, elem_classes="send-on"):
        gr.Markdown(translate("Use as the portrait in"))
        for tab in TABS:
            if tab != here:
                label = translate(tab.capitalize())
                button = gr.Button(label, size="sm", min_width=60, elem_id=f"{here}-to-{tab}")
                button.click(
                    _to(tab), results, [portrait.picture, tabs, portrait.open_tab], **PRIVATE, **FACES
                )


def _to(tab: str):
    def send(*results: str | None):
        with visitor_errors():
            pictures = [picture for picture in results if picture]
            if not pictures:
                raise HelloMemeError("There is no result yet that could become the portrait.")
            return (
                pictures[-1],
                gr.Tabs(selected=tab),
                tab,
            )  # a tab that an event opens does not fire `select`

    return send
