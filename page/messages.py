"""What the page says while it runs, in the words of the visitor.

The sentences of `hellomeme` and of the page are English, with the terms of the paper. On the way to a browser
these become the words of the page. For a browser that asks for Chinese the sentences are recognised by the
templates of `chinese_messages` and said in Chinese; so are the values in them, where those are words of the
page. A sentence without a template stays English.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping

from .chinese import CHINESE
from .chinese_messages import CHINESE_MESSAGES
from .english import PLAIN_WORDS

SEPARATOR = " · "  # between the parts of the line below a result
Words = Callable[[str], str]  # says a sentence in other words


def words_for(headers: Mapping[str, str] | None) -> Words:
    """What says a sentence as the visitor reads it. Programs, which name no language, get it as it is."""
    if not (headers or {}).get("accept-language"):
        return str
    return in_chinese if is_chinese(headers) else in_plain_words


def in_plain_words(text: str) -> str:
    """The text with the words of the page for the terms of the paper."""
    for term, words in PLAIN_WORDS.items():
        text = re.sub(term, words, text)
    return text


def is_chinese(headers: Mapping[str, str] | None) -> bool:
    """Whether a browser asks for Chinese first, as Gradio does for the texts of its own."""
    return (headers or {}).get("accept-language", "").lower().startswith("zh")


@functools.lru_cache(maxsize=2000)
def in_chinese(text: str) -> str:
    """The text in Chinese, or as it is where there is no template for it."""
    if text in CHINESE:
        return CHINESE[text]
    if SEPARATOR in text:
        return SEPARATOR.join(map(in_chinese, text.split(SEPARATOR)))
    for pattern, chinese in _templates():
        if found := pattern.fullmatch(text):
            return chinese.format(*map(in_chinese, found.groups()))
    return text


@functools.cache
def _templates() -> list[tuple[re.Pattern, str]]:
    """What recognises each English sentence, and its Chinese form. Those with most words of their own first,
    as what is filled in may be a sentence, too."""
    ordered = sorted(CHINESE_MESSAGES.items(), key=lambda pair: -len(pair[0].replace("{}", "")))
    return [
        (re.compile("(.+?)".join(map(re.escape, english.split("{}"))), re.DOTALL), chinese)
        for english, chinese in ordered
    ]
