"""English and Chinese. The English text in the code is the key, and is shown where no translation is."""

from __future__ import annotations

import gradio as gr

from hellomeme.releases.table import RELEASES

from .chinese import CHINESE
from .english import ENGLISH

FOLDER = "your model folder"  # in the title of a model folder
NOT_HERE = "(not here)"  # behind the title of a model that cannot run here
# Gradio translates one text of a string, so that a title with this behind it is a text of its own
ZH = CHINESE | {f"{row.title} {NOT_HERE}": CHINESE[row.title] + CHINESE[NOT_HERE] for row in RELEASES}
EN = {text: ENGLISH.get(text, text) for text in ZH}
I18N = gr.I18n(**{"en": EN, "zh": ZH, "zh-CN": ZH, "zh-TW": ZH})
# All texts passed to `translate`, which the tests compare with the translations
REQUESTED: set[str] = {FOLDER, NOT_HERE}


def translate(text: str) -> str:
    """A label, help, placeholder or value that Gradio shows in the language of the visitor's browser."""
    REQUESTED.add(text)
    return I18N(text)


def translate_title(title: str, is_here: bool) -> str:
    """The title of a model in the list of them."""
    name, _, rest = title.rpartition(": ")
    if rest == FOLDER:
        return f"{name}: {translate(rest)}"
    text = translate(title)
    return text if is_here or title not in CHINESE else I18N(f"{title} {NOT_HERE}")
