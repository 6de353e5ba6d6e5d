"""The settings below the tabs: the model, and what is seldom changed."""

from __future__ import annotations

from dataclasses import dataclass, fields

import gradio as gr

from hellomeme.releases.few_steps import OFF
from hellomeme.releases.load import find
from hellomeme.releases.table import Release
from hellomeme.settings import MAX_SEED, Settings

from . import state, styles
from .components import IMMEDIATE, PRIVATE, dropdown, number, slider, textbox
from .i18n import translate, translate_title
from .model_facts import FACTS, model_facts
from .styles import StyleSettings

ONE_STEP = "This model was trained to draw in one step: more steps make its pictures worse."


@dataclass(frozen=True)
class SharedSettings:
    model: gr.Dropdown
    guidance: gr.Slider
    steps: gr.Slider
    seed: gr.Number
    prompt: gr.Textbox
    negative_prompt: gr.Textbox
    upscale: gr.Dropdown
    reuse: gr.Slider
    guidance_end: gr.Slider
    style: StyleSettings

    @property
    def components(self) -> dict[str, gr.components.Component]:
        """All of them, by name."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "style"}
        return own | vars(self.style)

    @property
    def settings(self) -> dict[str, gr.components.Component]:
        """Those that are fields of Settings, by name."""
        names = [field.name for field in fields(Settings)]
        return {name: component for name, component in self.components.items() if name in names}


def choose_model(model):
    """The defaults of a release, whether it has prompts and styles, and a note: why it cannot run here, or
    that it draws in one step."""
    row, (_, reason) = find(model), state.STATE.models[model]
    return row.guidance, row.steps, OFF, gr.update(visible=row.has_styles), gr.update(**_note(row, reason))


def build() -> tuple[SharedSettings, gr.File]:
    """The components, and the input for a file whose settings are restored, see `restore`."""
    models, row = state.STATE.models, find(state.STATE.release)
    with gr.Accordion(translate("Model and more settings"), open=False):
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                model = gr.Dropdown(
                    [
                        (translate_title(title, reason is None), name)
                        for name, (title, reason) in models.items()
                    ],
                    value=state.STATE.release,
                    label=translate("Model"),
                    info=translate("What draws."),
                    elem_id="model",
                )
                note = gr.Markdown(**_note(row, models[state.STATE.release][1]), elem_id="note")
                facts = gr.Markdown(elem_id="facts", elem_classes="about", show_label=False)
                with gr.Row():
                    guidance, steps = slider("guidance", row.guidance), slider("steps", row.steps)
                with gr.Row(equal_height=True):
                    seed = number("seed", scale=4, elem_id="seed")
                    upscale = dropdown("upscale", visible=state.STATE.upscaler is not None, elem_id="upscale")
                    dice = gr.Button(translate("⚄ Roll the dice"), scale=1, min_width=120, elem_id="dice")
            with gr.Column(scale=1, min_width=240):
                file = gr.File(
                    label=translate("Drop a result to restore its settings"),
                    file_types=[".png", ".jpg", ".webp", ".mp4"],
                    height=170,
                    elem_id="restore",
                )
        with gr.Column(visible=row.has_styles) as words:
            prompt, negative_prompt = textbox("prompt"), textbox("negative_prompt")
            style = styles.build()
            with gr.Row():
                reuse, guidance_end = slider("reuse"), slider("guidance_end")
    few_steps, defaults = style.few_steps, [guidance, steps]
    model.input(choose_model, model, [*defaults, few_steps, words, note], api_name="model", **IMMEDIATE)
    # Also when the model is restored, whose guidance and steps are then restored, too
    model.change(lambda model: choose_model(model)[3:], model, [words, note], **PRIVATE, **IMMEDIATE)
    model.input(model_facts, model, facts, trigger_mode="always_last", **PRIVATE, **FACTS)
    few_steps.input(styles.choose_few_steps, [model, few_steps], defaults, **PRIVATE, **IMMEDIATE)
    dice.click(None, None, seed, js=f"() => Math.floor(Math.random() * {MAX_SEED + 1})", **PRIVATE)
    more = (upscale, reuse, guidance_end, style)
    return SharedSettings(model, guidance, steps, seed, prompt, negative_prompt, *more), file


def _note(row: Release, reason: str | None) -> dict:
    text = translate(ONE_STEP) if row.steps == 1 else ""
    if reason:
        text = f"**Cannot run here.** {reason}"
    return {"value": text, "visible": bool(text)}
