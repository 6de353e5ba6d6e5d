"""A picture input, and which face counts where the picture shows several."""

from __future__ import annotations

import gradio as gr
from PIL import Image

from hellomeme.errors import HelloMemeError

from . import state
from .components import FACES, PRIVATE, face_number_input, picture_input
from .i18n import translate
from .thumbnails import thumbnail_row

MAX_SIDE = 900  # px: longer side of the copy with boxes


def face_input(
    role: str, label: str, hint: str, examples: list[str], examples_label: str, height: int = 340
) -> tuple[gr.Image, gr.Number]:
    """A picture input with its examples, and the number of the face in it.

    It opens with the first of the examples. role: "reference" or "driver".
    """
    example = examples[0] if examples else None
    picture = picture_input(label, hint, role, example, height)
    face = face_picker(picture, role)
    thumbnail_row(examples, picture, examples_label)
    return picture, face


def face_picker(picture: gr.Image, role: str) -> gr.Number:
    """The number of the face in `picture`, with a copy on which to click; both are hidden while the picture
    shows fewer than two."""
    with gr.Group(visible=False, elem_id=f"{role}-faces") as group:
        boxes = gr.Image(
            label=translate("Several faces: click one"),
            interactive=False,
            height=220,
            format="jpeg",
            buttons=["fullscreen"],
            alt_text="The picture with a numbered box around each face",
        )
        chosen = face_number_input(f"{role}_face", elem_id=f"{role}-face")
    places = gr.State([])

    def faces(picture):
        """The faces of a picture: a copy with numbered boxes, the boxes in its pixels, largest face first."""
        try:
            shown, found = numbered(picture, role) if picture else (None, [])
        except HelloMemeError:  # raised again when the picture is used
            shown, found = None, []
        several = len(found) > 1
        return gr.update(visible=several), shown if several else None, found, 1

    def click(places, at: gr.SelectData):
        x, y = at.index[:2]
        inside = [
            index
            for index, (left, top, right, bottom) in enumerate(places)
            if left <= x <= right and top <= y <= bottom
        ]
        return inside[-1] + 1 if inside else gr.skip()  # the smallest of several

    picture.change(faces, picture, [group, boxes, places, chosen], **PRIVATE, **FACES)
    boxes.select(click, places, chosen, queue=False, show_progress="hidden", **PRIVATE)
    return chosen


def numbered(picture: str, role: str) -> tuple[Image.Image, list[list[float]]]:
    """A copy of a picture file with a numbered box around each face, and the boxes (left, top, right, bottom)
    in its pixels, largest first. With fewer than two faces the boxes are empty."""
    from hellomeme.face import overlay
    from hellomeme.io.image import read_picture

    frame = read_picture(picture, role)
    faces = state.STATE.analyzer.faces(frame, thorough=True)
    if len(faces) < 2:
        return Image.fromarray(frame), [[]] * len(faces)
    shown = Image.fromarray(overlay.numbered(frame, faces, first=1))
    shown.thumbnail((MAX_SIDE, MAX_SIDE))
    return shown, [(face.box * shown.width / frame.shape[1]).tolist() for face in faces]
