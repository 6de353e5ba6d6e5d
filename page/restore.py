"""A result that is dropped back restores the settings it was made with."""

from __future__ import annotations

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.io import metadata
from hellomeme.releases.load import find

from . import state
from .components import FACES
from .errors import visitor_errors
from .events import Components, face_number
from .styles import restored


def connect(file: gr.File, components: Components) -> gr.events.Dependency:
    """Makes a dropped file set the components: "model" and those of settings, head angles and coefficients,
    by name. Returns the event."""
    names = [name for name in components if name != "model"]

    def restore(file):
        """The settings that a picture or clip of HelloMeme carries."""
        with visitor_errors():
            if not file:
                return [gr.skip()] * (1 + len(names))
            stamp = metadata.read(file)
            if stamp is None:
                raise HelloMemeError(
                    "This file carries no settings of HelloMeme: drop a result as it was downloaded here."
                )
            # A model folder is listed by its path, and named in the file by its name.
            model = {find(path).name: path for path in state.STATE.models}.get(stamp.release)
            style, missing = restored(stamp.style)
            missing = [*([] if model else [f"the model {stamp.release}"]), *missing]
            gr.Info(
                f"The settings are restored, but not {', '.join(missing)}."
                if missing
                else "The settings are restored."
            )
            values = _values(stamp) | style
            return [model or gr.skip(), *(values.get(name, gr.skip()) for name in names)]

    outputs = [components["model"], *(components[name] for name in names)]
    return file.upload(restore, file, outputs, api_name="restore", **FACES)


def _values(stamp: metadata.Stamp) -> dict:
    """The values of components by name, from what a file carries."""
    settings = vars(stamp.settings)
    faces = {name: face_number(value) for name, value in settings.items() if name.endswith("_face")}
    clip = vars(stamp.clip) if stamp.clip else {}
    return settings | faces | clip | (stamp.edit.values if stamp.edit else {})
