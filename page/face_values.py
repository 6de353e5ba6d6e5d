"""Faces of the Expression tab: where they come from, and what its sliders then show.

A face is its values in the order of NAMES.
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.face import edit
from hellomeme.face.controls import control_values
from hellomeme.face.edit import TURNS, Edit
from hellomeme.io.image import read_picture
from hellomeme.settings import Settings

from . import drawing, state
from .errors import visitor_errors
from .events import event, settings_of
from .face_mix import CALM, NAMES, Face, FaceMix, edit_of, face_of
from .face_sliders import TITLES
from .files import new_file
from .portrait_input import require_reference


def portrait_of(model: str, path: str, face: int | None, name: str = "reference"):
    return state.STATE.portrait(model, path, name, face, drawing.ARKIT)


def own_face(model, reference, reference_face=None):
    """Yaw, pitch, roll and the 51 coefficients of the reference as it is; zeros without a face."""
    try:
        require_reference(reference)
        face = settings_of({"reference_face": reference_face}).reference_face
        if _is_loaded(model):
            found = portrait_of(model, reference, face).face
        else:
            found = state.STATE.analyzer.face(read_picture(reference, "reference"), "reference", face)
    except HelloMemeError:  # raised again when the picture is used
        return list(CALM)
    return [0.0] * len(TURNS) + [round(float(value), 2) for value in found.blendshapes]


def _is_loaded(model: str) -> bool:
    return (model, drawing.ARKIT) in state.STATE.reenactors


@event("model", "reference", "driver", "reference_face", optional=("reference_face",))
def driver_face(model: str, reference: str | None, driver: str | None, settings: Settings):
    """Yaw, pitch, roll and the 51 coefficients that make the reference look like the driver picture."""
    if not driver:  # the picture was removed
        return [gr.skip()] * len(NAMES)
    require_reference(reference)
    portrait = portrait_of(model, reference, settings.reference_face)
    guide = portrait_of(model, driver, None, "driver")
    return [*vars(edit.turn(guide.motion, portrait.motion)).values(), *edit.start(guide.motion).values()]


def start_from(model, reference, driver, reference_face):
    """The face of `driver_face`; none where the picture was removed."""
    return driver_face(model, reference, driver, reference_face) if driver else []


def preset(name: str) -> Callable[[], list[float]]:
    """The event of a preset."""

    def values():
        return [0.0] * len(TURNS) + list(edit.preset(name).values())

    values.__name__ = f"preset_{name}"  # the name of the tool for language models
    values.__doc__ = f"Yaw, pitch, roll and the 51 coefficients of the preset {TITLES[name]}."
    return values


def saved_face(*values) -> str:
    """The path of a file with what the sliders show."""
    with visitor_errors():
        path = new_file("expression.json")
        edit_of(values).save(path)
        return str(path)


def loaded_face(file: str) -> list[float]:
    with visitor_errors():
        return face_of(Edit.load(file))


# What the sliders show: the two faces of the mix, its share, the plain controls and all values


def show(mix: FaceMix, share: float = 1.0) -> list:
    return [mix, share, *controls_of(mix.shown), *mix.shown]


def controls_of(face: Face) -> list[float]:
    """The values of FACE_CONTROLS."""
    return list(control_values(edit_of(face).coefficients).values())


def mix_faces(mix: FaceMix, share: float, *now):
    return show(mix.mixed(share, now), share)


def follow(*now):
    """For values that something else has set."""
    return show(FaceMix.choose(now, CALM))


def change_portrait(open_tab, model, reference, reference_face, shown, initial, *now):
    """The own face of another portrait, if the tab is open. Sliders that somebody has moved, so that they
    differ from the `initial` values, stay: the same face can be tried on several portraits."""
    chosen, nothing = [reference, reference_face], [gr.skip()] * len(show(FaceMix()))
    if open_tab != "expression" or chosen == shown:
        return [gr.skip(), gr.skip(), *nothing]
    if list(now) != initial:
        return [chosen, gr.skip(), *nothing]
    own = own_face(model, reference, reference_face)
    return [chosen, own, *show(mix_of_own(own))]


def show_portrait(open_tab, model, *values):
    """The same when the tab is opened. Nothing is drawn where the model would first be downloaded."""
    _, *rest = shown = change_portrait("expression", model, *values)
    return shown if _is_loaded(model) else [gr.skip(), *rest]


def mix_of_own(own: Face) -> FaceMix:
    """Between a calm face and the portrait's own, which is shown."""
    return FaceMix.choose(own, CALM)
