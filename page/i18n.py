"""English and Chinese. The English text is the key; a text without a translation is shown in English."""

from __future__ import annotations

import gradio as gr

from .chinese import CHINESE

I18N = gr.I18n(**{"en": {text: text for text in CHINESE}, "zh": CHINESE, "zh-CN": CHINESE, "zh-TW": CHINESE})
REQUESTED: set[str] = set()  # all texts passed to `translate`, which the tests compare with the translations


def translate(text: str) -> str:
    """A label, help, placeholder or value that Gradio shows in the language of the visitor's browser."""
    REQUESTED.add(text)
    return I18N(text)
