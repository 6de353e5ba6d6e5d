"""Which face, where a picture shows several: a copy with numbered boxes to click on, and the number to
type."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from hellomeme.errors import HelloMemeError

from . import studio
from .i18n import say
from .parts import number

SIDE = 900  # px: longer side of the copy


def picker(picture: gr.Image, name: str, tab: str = "") -> gr.Number:
    """The number of the face in `picture`, the "reference" or the "driver"; seen only where there are
    several."""
    prefix = f"{tab}-{name}" if tab else name
    with gr.Group(visible=False, elem_id=f"{prefix}-faces") as group:
        boxes = gr.Image(
            label=say("Several faces: click one"),
            interactive=False,
            height=220,
            format="jpeg",
            buttons=["fullscreen"],
            alt_text="The picture with a numbered box around each face",
        )
        chosen = number(f"{name}_face", elem_id=f"{prefix}-face")
    places = gr.State([])

    def faces(picture):
        """The faces of a picture: a copy with numbered boxes, the boxes in its pixels, largest face first."""
        try:
            shown, found = numbered(picture, name) if picture else (None, [])
        except HelloMemeError:  # will be told when the picture is used
            shown, found = None, []
        several = len(found) > 1
        return gr.update(visible=several), shown if several else None, found, 0

    def click(places, at: gr.SelectData):
        x, y = at.index[:2]
        inside = [
            index
            for index, (left, top, right, bottom) in enumerate(places)
            if left <= x <= right and top <= y <= bottom
        ]
        return inside[-1] if inside else gr.skip()  # of several the smaller one

    picture.change(
        faces,
        picture,
        [group, boxes, places, chosen],
        api_visibility="private",
        show_progress="hidden",
        concurrency_id="faces",
    )
    boxes.select(click, places, chosen, queue=False, show_progress="hidden", api_visibility="private")
    return chosen


def numbered(picture: str, name: str) -> tuple[Image.Image, list[list[float]]]:
    """A copy of the picture with a numbered box around each face, and the boxes in its pixels, by size."""
    from hellomeme.face import overlay
    from hellomeme.io.image import read_picture

    frame = read_picture(picture, name)
    faces = studio.STUDIO.analyzer.faces(frame, thorough=True)
    if len(faces) < 2:
        return Image.fromarray(frame), [[]] * len(faces)
    shown = Image.fromarray(overlay.numbered(frame, faces))
    shown.thumbnail((SIDE, SIDE))
    return shown, [(face.box * shown.width / frame.shape[1]).tolist() for face in faces]
