"""English and Chinese. The English text in the code is the key, and is shown where no translation is."""

from __future__ import annotations

import gradio as gr

from .chinese import CHINESE
from .english import ENGLISH

EN = {text: ENGLISH.get(text, text) for text in CHINESE}
I18N = gr.I18n(**{"en": EN, "zh": CHINESE, "zh-CN": CHINESE, "zh-TW": CHINESE})
REQUESTED: set[str] = set()  # all texts passed to `translate`, which the tests compare with the translations


def translate(text: str) -> str:
    """A label, help, placeholder or value that Gradio shows in the language of the visitor's browser."""
    REQUESTED.add(text)
    return I18N(text)
