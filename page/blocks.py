"""Gradio's page, with a sentence for what it would refuse without a word."""

from __future__ import annotations

import logging

import gradio as gr
from gradio.exceptions import InvalidPathError

log = logging.getLogger("hellomeme.page")


class Blocks(gr.Blocks):
    """Tells a program that sends values of a wrong shape what is wrong with them. A browser never does."""

    async def preprocess_data(self, *args, **kwargs):
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error:
            raise
        except InvalidPathError as error:
            raise _told("A file was named that was not uploaded here: upload it first, and send what that returns.") from error
        except Exception as error:
            log.info("refused: %s", error)
            raise _told("A value was sent that is not of the kind its parameter takes: see the API page for each one's kind.") from error


def _told(sentence: str) -> gr.Error:
    return gr.Error(sentence, duration=30, print_exception=False)
