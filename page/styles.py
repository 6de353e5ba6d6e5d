"""The style on the page: its components, and `Style` from their values and back.

Presets are offered to everybody. Other hub ids, and paths of this computer, may only be typed where the page
is served to this computer alone; elsewhere a visitor could fill the disk or look for files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from hellomeme.errors import HelloMemeError
from hellomeme.releases.few_steps import OFF, PRESETS, find_preset
from hellomeme.releases.load import find
from hellomeme.releases.styles import BASES, LORAS, OFFICIAL, OWN, Lora, Style, last_name, split_strength

from . import state
from .components import FIELDS, slider_from
from .i18n import translate

HELP = {field.name: field.metadata for field in dataclasses.fields(Style)}
STRENGTH = {
    "label": "LoRA strength",
    "help": "Of those without a strength of their own, which is typed behind the name as :0.6.",
    "min": 0.0,
    "max": 2.0,
    "step": 0.05,
    "default": 1.0,
}
NAMES = ("base", "vae", "stylize", "loras", "lora_strength")  # the components, and arguments of events
X1, X2 = "x1", "x2"


@dataclass(frozen=True)
class StyleSettings:
    base: gr.Dropdown
    vae: gr.Dropdown
    stylize: gr.Dropdown
    loras: gr.Dropdown
    lora_strength: gr.Slider
    few_steps: gr.Dropdown


def build() -> StyleSettings:
    """The components, with the style that the page was started with."""
    page = state.STATE
    shown, own = values_of(page.style), {"allow_custom_value": page.is_local}
    bases, vaes, loras = _offered(page.style)
    with gr.Row(equal_height=False):
        base = _dropdown("base", [("The release's own", ""), *bases], shown, elem_id="base", **own)
        named = [("The base model's own", OWN), ("Stable Diffusion 1.5's", OFFICIAL)]
        vae = _dropdown("vae", [*named, *vaes], shown, elem_id="vae", **own)
        stylize = _dropdown(
            "reference_base", [X1, X2], {"reference_base": shown["stylize"]}, elem_id="stylize"
        )
    with gr.Row(equal_height=False):
        chosen = {"multiselect": True, "allow_custom_value": True}
        lora = _dropdown("loras", loras, shown, elem_id="loras", **chosen)
        strength = slider_from(STRENGTH)
        titles = [("Off", OFF), *((preset.title, preset.name) for preset in PRESETS)]
        texts = {
            name: translate(FIELDS["few_steps"][key]) for name, key in (("label", "label"), ("info", "help"))
        }
        few_steps = gr.Dropdown(titles, value=OFF, elem_id="few-steps", **texts)
    return StyleSettings(base, vae, stylize, lora, strength, few_steps)


def _dropdown(name: str, choices: list, shown: Mapping[str, Any], **options) -> gr.Dropdown:
    label, help = translate(HELP[name]["label"]), translate(HELP[name]["help"])
    return gr.Dropdown(choices, value=shown[name], label=label, info=help, **options)


def _offered(style: Style) -> tuple[list[str], list[str], list[str]]:
    """The base models, autoencoders and LoRA in the lists: the presets, and those of a style."""
    bases = [*BASES, *([style.base] if style.base and style.base not in BASES else [])]
    vaes = [style.vae] if style.vae not in (None, OFFICIAL) else []
    return bases, vaes, [*LORAS, *(lora.source for lora in style.loras if lora.source not in LORAS)]


def style_of(values: Mapping[str, Any]) -> Style:
    """The style in the values of components; what is missing is that of the page's start.

    Raises HelloMemeError for a name that this page does not offer, or a bad strength.
    """
    page, model = state.STATE, values["model"]
    own = page.style if model == page.release else Style()
    if not find(model).has_styles:
        return own
    given = {name: values.get(name) for name in NAMES}
    if all(value is None for value in given.values()):
        return own
    given = values_of(own) | {name: value for name, value in given.items() if value is not None}
    bases, vaes, loras = _offered(page.style)
    chosen = [_lora(text, given["lora_strength"]) for text in given["loras"]]
    for source, known in (
        (given["base"], ["", *bases]),
        (given["vae"], ["", OWN, OFFICIAL, *vaes]),
        *((lora.source, loras) for lora in chosen),
    ):
        if source not in known and not page.is_local:
            raise HelloMemeError(f"{str(source)[:60]} is not offered here: choose one from the list.")
    reference_base = None if given["stylize"] == X2 else own.reference_base or OFFICIAL
    return Style(given["base"], given["vae"], tuple(chosen), reference_base)


def _lora(text: str, strength: float) -> Lora:
    """A LoRA as it is written in the list, with `strength` unless it has its own."""
    return Lora.of((text, strength) if split_strength(text)[1] is None else text)


def values_of(style: Style) -> dict[str, Any]:
    """The values of the components for a style."""
    return {
        "base": style.base or "",
        "vae": style.vae or OWN,
        "stylize": X2 if style.reference_base is None else X1,
        "loras": [lora.text for lora in style.loras],
        "lora_strength": 1.0,
    }


def restored(style: Style) -> tuple[dict[str, Any], list[str]]:
    """The values for a style from a file, and the names in it that this page does not offer."""
    page = state.STATE
    bases, vaes, loras = _offered(page.style)
    # A file or folder that the page was started with is named in results by its last part
    known = {last_name(source): source for source in (*bases, *vaes, *loras, "", OWN, OFFICIAL)}
    values, missing = values_of(style), []

    def found(name: str) -> str | None:
        if name not in known and not page.is_local:
            missing.append(name)
            return None
        return known.get(name, name)

    values["base"], values["vae"] = found(values["base"]) or "", found(values["vae"]) or OWN
    sources = [(found(lora.source), lora.strength) for lora in style.loras]
    values["loras"] = [Lora(source, strength).text for source, strength in sources if source is not None]
    return values, missing


def choose_few_steps(model, few_steps):
    """The guidance and the number of steps of a few-step preset, or of the release without one."""
    row = find(model)
    defaults = find_preset(few_steps, row) or row
    return defaults.guidance, defaults.steps
