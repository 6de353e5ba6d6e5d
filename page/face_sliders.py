"""The components of the Expression tab that say which face is drawn: presets, ten plain sliders, and all."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from hellomeme.face import edit
from hellomeme.face.controls import FACE_CONTROLS
from hellomeme.face.edit import TURNS
from hellomeme.releases.expressions import drawn_presets
from hellomeme.releases.load import find

from . import state
from .arkit_help import ARKIT_HELP
from .components import examples, picture_input, slider_from
from .face_mix import NAMES
from .gradio_patches import skip_validation
from .i18n import translate
from .thumbnails import thumbnail_row

TITLES = {
    "brows": "Brows",
    "eyes": "Eyes and gaze",
    "mouth": "Mouth",
    "jaw": "Jaw",
    "cheeks": "Cheeks and nose",
    "laugh": "Laugh",
    "wink": "Wink",
    "shocked": "Shocked",
    "kiss": "Kiss",
    "sad": "Sad",
    "sceptical": "Sceptical",
}
PLAIN_TURNS = {"yaw": "Turn", "pitch": "Nod", "roll": "Tilt"}


@dataclass(frozen=True)
class FaceSliders:
    """values: by the names of NAMES. controls: those of FACE_CONTROLS. mix: between two faces, see `FaceMix`.
    presets, own_face, calm: buttons that set sliders; file and driver: the file and the picture that do.
    saved: the file that `save` writes, which the browser downloads."""

    values: dict[str, gr.Slider]
    controls: dict[str, gr.Slider]
    mix: gr.Slider
    presets: dict[str, gr.Button]
    own_face: gr.Button
    calm: gr.Button
    save: gr.Button
    saved: gr.File
    file: gr.UploadButton
    driver: gr.Image


def build() -> FaceSliders:
    presets, own, calm, save, file = _buttons()
    saved = gr.File(visible=False)
    mix = _slider("Mix", "1 is the face that was chosen last, 0 the one before it.", "mix", value=1)
    with gr.Group(elem_id="plain-sliders"):
        controls = {
            name: _slider(control.label, control.help, f"control-{name}", control.lowest)
            for name, control in FACE_CONTROLS.items()
        }
        turns = {
            name: slider_from(facts | {"label": PLAIN_TURNS[name]}, elem_id=f"turn-{name}", buttons=["reset"])
            for name, facts in TURNS.items()
        }
    with gr.Accordion(translate("All 51 coefficients"), open=False, elem_id="all-sliders"):
        coefficients = _coefficients()
    with gr.Accordion(translate("Start from a picture"), open=False):
        driver = picture_input(
            "Face to start from", "Show a face: drop a file, paste or click", "expression-driver", height=220
        )
        thumbnail_row(examples("drivers"), driver, "Faces to try")
    values = {name: (turns | coefficients)[name] for name in NAMES}
    return FaceSliders(values, controls, mix, presets, own, calm, save, saved, file, driver)


def offered_presets(model: str) -> list[dict]:
    """For the button of each preset, whether it is offered: not if a model cannot draw it."""
    drawn = drawn_presets(find(model))
    return [gr.update(visible=name in drawn) for name in edit.PRESETS]


def _buttons() -> tuple[dict[str, gr.Button], gr.Button, gr.Button, gr.Button, gr.UploadButton]:
    """Those of the presets, of the own and the calm face, and to save and load one."""
    drawn = drawn_presets(find(state.STATE.release))
    size = {"size": "sm", "min_width": 80}
    narrow = size | {"min_width": 70}  # with which six stand in one row
    with gr.Row(equal_height=True):
        presets = {
            name: gr.Button(
                translate(TITLES[name]), visible=name in drawn, elem_id=f"preset-{name}", **narrow
            )
            for name in edit.PRESETS
        }
    with gr.Row(equal_height=True):
        own = gr.Button(translate("The portrait's own"), elem_id="own-face", **size | {"min_width": 140})
        calm = gr.Button(translate("Reset to calm"), elem_id="reset-face", **size)
        save = gr.Button(translate("Save"), elem_id="save-face", **size)
        file = gr.UploadButton(translate("Load"), file_types=[".json"], elem_id="load-face", **size)
    return presets, own, calm, save, file


def _coefficients() -> dict[str, gr.Slider]:
    """By name, in groups."""
    sliders = {}
    for group, names in edit.GROUPS.items():
        with gr.Accordion(translate(TITLES[group]), open=False):
            for name in sorted(names, key=_sides_together):
                sliders[name] = _slider(name, ARKIT_HELP[name], f"slider-{name}", translated=False)
    return sliders


def _slider(
    label: str, help: str, elem_id: str, lowest: float = 0.0, value: float = 0.0, translated: bool = True
) -> gr.Slider:
    return skip_validation(
        gr.Slider(
            lowest,
            edit.MOST,
            value,
            step=edit.STEP,
            label=translate(label) if translated else label,
            info=translate(help),
            elem_id=elem_id,
            buttons=["reset"],
        )
    )


def _sides_together(name: str) -> tuple[bool, str, str]:
    """Sorts Left beside Right, and names without a side to the end."""
    return not name.endswith(("Left", "Right")), name.removesuffix("Left").removesuffix("Right"), name
