"""The portrait. It is chosen once, and all tabs but the gallery draw it."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from hellomeme.errors import HelloMemeError

from .components import examples
from .face_picker import face_input


@dataclass(frozen=True)
class PortraitInput:
    """The components that say which portrait is drawn, and which tab is open."""

    picture: gr.Image
    face: gr.Number
    open_tab: gr.State  # id of the tab that the visitor sees

    @property
    def components(self) -> dict[str, gr.components.Component]:
        """Those that events take, by the name of the argument."""
        return {"reference": self.picture, "reference_face": self.face}


def require_reference(reference: str | None) -> None:
    """HelloMemeError without a portrait, for what draws a picture of it."""
    if not reference:
        raise HelloMemeError("There is no reference picture yet: choose the portrait that should change.")


def build() -> PortraitInput:
    """The components, with the portrait that the page opens with."""
    picture, face = face_input(
        "reference",
        "Your portrait",
        "Choose a portrait: drop a file, paste or click",
        examples("references"),
        "Portraits to try",
        height=300,
    )
    return PortraitInput(picture, face, gr.State("image"))
