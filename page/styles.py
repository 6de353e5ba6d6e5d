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
    bases, vaes, loras = _offered()
    with gr.Row(equal_height=False):
        base = _dropdown("base", [(translate("The release's own"), ""), *bases], shown, elem_id="base", **own)
        named = [(translate("The base model's own"), OWN), (translate("Stable Diffusion 1.5's"), OFFICIAL)]
        vae = _dropdown("vae", [*named, *vaes], shown, elem_id="vae", **own)
        stylize = _dropdown(
            "reference_base", [X1, X2], {"reference_base": shown["stylize"]}, elem_id="stylize"
        )
    with gr.Row(equal_height=False):
        chosen = {"multiselect": True, "allow_custom_value": True}
        lora = _dropdown("loras", [*loras], shown, elem_id="loras", **chosen)
        strength = slider_from(STRENGTH)
        titles = [(translate("Off"), OFF), *((translate(preset.title), preset.name) for preset in PRESETS)]
        texts = {
            name: translate(FIELDS["few_steps"][key]) for name, key in (("label", "label"), ("info", "help"))
        }
        few_steps = gr.Dropdown(titles, value=OFF, elem_id="few-steps", **texts)
    return StyleSettings(base, vae, stylize, lora, strength, few_steps)


def _dropdown(name: str, choices: list, shown: Mapping[str, Any], **options) -> gr.Dropdown:
    label, help = translate(HELP[name]["label"]), translate(HELP[name]["help"])
    return gr.Dropdown(choices, value=shown[name], label=label, info=help, **options)


def _offered() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """The base models, autoencoders and LoRA in the lists, name -> source: the presets, and those that the
    page was started with, by names that tell visitors no folders."""
    style = state.STATE.style
    bases, vaes = [*BASES, style.base], [style.vae]
    loras = [*LORAS, *(lora.source for lora in style.loras)]
    return tuple({last_name(one): one for one in names if one} for names in (bases, vaes, loras))


def style_of(values: Mapping[str, Any]) -> Style:
    """The style in the values of components; what is missing is that of the page's start.

    Raises HelloMemeError for a name that this page does not offer, or a bad strength.
    """
    page, model = state.STATE, values["model"]
    own = page.style if model == page.release else Style()
    given = {name: values.get(name) for name in NAMES if values.get(name) is not None}
    if not given or not find(model).has_styles:
        return own
    given = values_of(own) | given
    bases, vaes, loras = _offered()
    base = _source(given["base"], bases | {"": ""})
    vae = _source(given["vae"], vaes | {OWN: OWN, OFFICIAL: OFFICIAL, "": OWN})
    chosen = []
    for text in given["loras"]:
        name, strength = split_strength(text)
        lora = Lora.of((_source(name, loras), given["lora_strength"] if strength is None else strength))
        chosen.append(lora)
    reference_base = None if given["stylize"] == X2 else own.reference_base or OFFICIAL
    prediction_type = own.prediction_type if base == own.base else None
    kept = {"prediction_type": prediction_type, "embeddings": own.embeddings}
    return Style(base, vae, tuple(chosen), reference_base, few_steps_lora=own.few_steps_lora, **kept)


def _source(name: str, offered: Mapping[str, str]) -> str:
    """What a name in a list stands for; HelloMemeError where others than those offered may not be typed."""
    if name not in offered and not state.STATE.is_local:
        raise HelloMemeError(f"{str(name)[:60]} is not offered here: choose one from the list.")
    return offered.get(name, name)


def values_of(style: Style) -> dict[str, Any]:
    """The values of the components for a style."""
    shown = style.shown
    return {
        "base": shown.base or "",
        "vae": shown.vae or OWN,
        "stylize": X2 if shown.reference_base is None else X1,
        "loras": [lora.text for lora in shown.loras],
        "lora_strength": 1.0,
    }


def restored(style: Style) -> tuple[dict[str, Any], list[str]]:
    """The values for a style from a file, and the names in it that this page does not offer."""
    bases, vaes, loras = _offered()
    values, missing = values_of(style), []

    def known(name: str, offered: Mapping[str, str]) -> bool:
        if name in offered or (state.STATE.is_local and "/" in name):
            return True
        missing.append(name)
        return False

    values["base"] = values["base"] if known(values["base"], bases | {"": ""}) else ""
    values["vae"] = values["vae"] if known(values["vae"], vaes | {OWN: "", OFFICIAL: ""}) else OWN
    values["loras"] = [lora.text for lora in style.shown.loras if known(lora.source, loras)]
    return values, missing


def choose_few_steps(model, few_steps):
    """The guidance and the number of steps of a few-step preset, or of the release without one."""
    row = find(model)
    defaults = find_preset(few_steps, row) or row
    return defaults.guidance, defaults.steps
