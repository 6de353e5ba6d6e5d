"""Gradio's page, with a sentence for what it would refuse, or fail at, without a word."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator

import gradio as gr
from gradio import processing_utils
from gradio.context import LocalContext
from gradio.exceptions import ComponentProcessingError, InvalidPathError
from gradio.server_messages import LogMessage, ProcessCompletedMessage
from gradio_client.utils import is_http_url_like

from . import studio
from .files import save_pil_to_cache
from .studio import FAULT, told_to_the_visitor

KIND = "A value was sent that is not of the kind its parameter takes: see the API page for each one's kind."
NOT_HERE = (
    "A file that was sent is not here: upload it first, or again, as uploads are kept for an hour only."
)
LINK = (
    "A file was named by its address on the web, and none is fetched from there: download it, "
    "then upload it here."
)
HOUR = 3600  # s: how long a visitor's files are kept
DISK = "The result could not be written: the server's disk is full or not writable."
# What a path that was sent can be at fault for
NAMED = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
log = logging.getLogger("hellomeme.page")

processing_utils.save_pil_to_cache = save_pil_to_cache  # all of Gradio's components call it by this name


class Blocks(gr.Blocks):
    """Tells a visitor, or a program, of whatever cannot be taken, done or handed on."""

    async def preprocess_data(self, block_fn, inputs, state, *args, **kwargs):
        for block in block_fn.inputs:
            # A visitor's own copy of a component, made when it is set, forgets this: see `parts`
            if "preprocess" in vars(block) and state is not None and block._id in state:
                state[block._id].preprocess = block.preprocess
        try:
            # Gradio would fetch it whole, however large. Its MCP server has no other way to take a file than
            # an address.
            if not self.mcp_server and _has_link(inputs):
                raise _told(LINK)
            if any(not os.path.exists(path) for path in _paths(inputs)):
                raise _told(NOT_HERE)
            return await super().preprocess_data(block_fn, inputs, state, *args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise _told(_refusal(error)) from error

    async def call_function(self, *args, **kwargs):
        with told_to_the_visitor():
            return await super().call_function(*args, **kwargs)

    def begun(self, session: str) -> set[str]:
        """The events of a visitor that have left the queue of the model, and have not ended."""
        events = [event for job in self._queue.active_jobs if job is not None for event in job]
        return {
            event._id for event in events if event.session_hash == session and event.concurrency_id == "model"
        }

    def dismiss(self, session: str) -> None:
        """Ends what a visitor still waits for, as if nothing had come of it.

        Gradio's own `cancels` ends what is being drawn, too, and tells so in a message on which the browser
        stumbles as often as not: its run is ended by `Studio.stop`, and comes to its end like any other.
        """
        queue = self._queue
        for line in queue.event_queue_per_concurrency_id.values():
            for event in [
                event
                for event in line.queue
                if event.session_hash == session and line.concurrency_id == "model"
            ]:
                line.queue.remove(event)
                queue.event_ids_to_events.pop(event._id, None)
                nothing = {"data": [gr.skip()] * len(event.fn.outputs)}
                nothing |= {"is_generating": False, "duration": 0, "average_duration": 0}
                queue.send_message(event, LogMessage(log="Stopped.", level="info", title="Info", duration=3))
                queue.send_message(event, ProcessCompletedMessage(output=nothing, success=True))

    async def postprocess_data(self, *args, **kwargs):
        try:
            return await super().postprocess_data(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            log.exception("while handing on a result")
            raise _told(DISK if getattr(_cause(error), "errno", None) in UNWRITABLE else FAULT) from error


async def stop(request: gr.Request):
    """Ends the visitor's own run at its next step, and what waits to be run."""
    # Not in a thread, where it might wait until another run of the visitor has begun.
    page = LocalContext.blocks.get()
    if not studio.STUDIO.stop(request.session_hash):
        studio.STUDIO.stopped_early |= page.begun(request.session_hash)
    page.dismiss(request.session_hash)


def _has_link(value) -> bool:
    """Whether a file in what was sent is named by an address, which a browser never does: it sends the path
    that its upload got."""
    if isinstance(value, dict):
        return is_http_url_like(value.get("path") or value.get("url")) or any(map(_has_link, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_link, value))


def _paths(value) -> Iterator[str]:
    """The paths of all files in what was sent."""
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        yield value["path"]
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _paths(part)


def _refusal(error: Exception) -> str:
    """The sentence for what Gradio could not take, which is also logged."""
    cause = _cause(error)
    # Pillow's own, of a damaged picture, have none
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(cause, MemoryError) or (number is not None and number not in NAMED):
        log.error("while taking what was sent", exc_info=error)
        return FAULT
    log.warning("refused: %s", error, exc_info=error)
    return NOT_HERE if isinstance(cause, InvalidPathError) or number in NAMED else KIND


def _cause(error: Exception) -> BaseException:
    """What a component raised, without Gradio's own error around it."""
    return error.__cause__ if isinstance(error, ComponentProcessingError) and error.__cause__ else error


def _told(sentence: str) -> gr.Error:
    return gr.Error(sentence, duration=30, print_exception=False)
