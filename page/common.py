"""What all tabs share: the model, and the settings that are seldom changed. Below the tabs."""

from __future__ import annotations

from dataclasses import dataclass, fields

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.io import metadata
from hellomeme.releases.load import find
from hellomeme.settings import MAX_SEED

from . import studio
from .i18n import say
from .parts import QUIET, face_number, number, slider, text


@dataclass(frozen=True)
class Common:
    model: gr.Dropdown
    guidance: gr.Slider
    steps: gr.Slider
    seed: gr.Number
    prompt: gr.Textbox
    negative_prompt: gr.Textbox

    @property
    def controls(self) -> dict[str, gr.components.Component]:
        """The components by the name of the setting."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "model"}


def choose_model(model):
    """The defaults of a release, whether it reads a prompt, and a note where it cannot run here."""
    row, (_, reason) = find(model), studio.STUDIO.models[model]
    return row.guidance, row.steps, gr.update(visible=bool(row.prompt)), gr.update(**_note(reason))


def build() -> tuple[Common, gr.File]:
    """The components, of which the file, dropped, restores the settings of a result: see `restores`."""
    models, row = studio.STUDIO.models, find(studio.STUDIO.release)
    with gr.Accordion(say("Model and more settings"), open=False):
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                model = gr.Dropdown(
                    [
                        (title if reason is None else f"{title} (not here)", name)
                        for name, (title, reason) in models.items()
                    ],
                    value=studio.STUDIO.release,
                    label=say("Model"),
                    info=say("What draws."),
                    elem_id="model",
                )
                note = gr.Markdown(**_note(models[studio.STUDIO.release][1]), elem_id="note")
                with gr.Row():
                    guidance, steps = slider("guidance", row.guidance), slider("steps", row.steps)
                with gr.Row(equal_height=True):
                    seed = number("seed", scale=4, elem_id="seed")
                    dice = gr.Button(say("⚄ Roll the dice"), scale=1, min_width=120, elem_id="dice")
            with gr.Column(scale=1, min_width=240):
                file = gr.File(
                    label=say("Drop a result to restore its settings"),
                    file_types=[".png", ".jpg", ".webp", ".mp4"],
                    height=170,
                    elem_id="restore",
                )
        with gr.Column(visible=bool(row.prompt)) as words:
            prompt, negative_prompt = text("prompt"), text("negative_prompt")
    model.input(choose_model, model, [guidance, steps, words, note], api_name="model", **QUIET)
    model.change(
        lambda model: choose_model(model)[2:], model, [words, note], api_visibility="private", **QUIET
    )  # restored, too
    dice.click(
        None, None, seed, js=f"() => Math.floor(Math.random() * {MAX_SEED + 1})", api_visibility="private"
    )
    return Common(model, guidance, steps, seed, prompt, negative_prompt), file


def restores(file: gr.File, controls: dict[str, gr.components.Component], model: gr.Dropdown):
    """Lets `file` set the controls, by the name of a setting, turn or coefficient, to what a result says of
    itself."""
    names = list(controls)

    def restore(file):
        """The settings that a picture or clip of HelloMeme carries."""
        with studio.told_to_the_visitor():
            stamp = metadata.read(file) if file else None
            if file and stamp is None:
                raise HelloMemeError(
                    "This file carries no settings of HelloMeme: drop a result as it was downloaded here."
                )
            if stamp is None:
                return [gr.skip()] * (1 + len(names))
            values = (
                vars(stamp.settings)
                | (vars(stamp.clip) if stamp.clip else {})
                | (stamp.edit.values if stamp.edit else {})
            )
            # A folder's model has a shorter name
            known = {find(name).name: name for name in studio.STUDIO.models}
            model = known.get(stamp.release)
            gr.Info(
                "The settings are restored."
                if model
                else f"The settings are restored, but not the model {stamp.release}."
            )
            filled = [
                face_number(values[name])
                if name.endswith("_face") and name in values
                else values.get(name, gr.skip())
                for name in names
            ]
            return [model or gr.skip(), *filled]

    return file.upload(
        restore,
        file,
        [model, *controls.values()],
        api_name="restore",
        show_progress="hidden",
        concurrency_id="faces",
    )


def _note(reason: str | None) -> dict:
    return {"value": f"**Cannot run here.** {reason}" if reason else "", "visible": bool(reason)}
