"""English and Chinese. A text is its own key: what has no Chinese is shown in English, as sentences made
later are."""

from __future__ import annotations

import gradio as gr

from .chinese import CHINESE

I18N = gr.I18n(**{"en": {text: text for text in CHINESE}, "zh": CHINESE, "zh-CN": CHINESE, "zh-TW": CHINESE})
SAID: set[str] = set()  # all that was asked for; the tests compare it with what is translated


def say(text: str):
    """The text in the language of the visitor's browser; for labels, words of help, placeholders and
    values."""
    SAID.add(text)
    return I18N(text)
