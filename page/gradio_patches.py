"""Everything that replaces a part of Gradio or uses names that Gradio does not document. What makes the first
load small is in `gradio_assets`.

All of it is written for the Gradio version below. Before that version is raised, check each item here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

import gradio as gr
import httpx
from gradio import networking, processing_utils
from gradio.context import Context, LocalContext
from gradio.exceptions import ComponentProcessingError
from gradio.server_messages import LogMessage, ProcessCompletedMessage, ProgressMessage
from PIL import Image

from .errors import check_files, input_error, output_error, visitor_errors
from .messages import Words, words_for

WRITTEN_FOR = "6.31.0"
PATIENCE = 120.0  # s that the page may take for its first answer
NAME = "hellomeme-name"  # key of `info` of a picture: what a file of it is called
_words: ContextVar[Words] = ContextVar("words", default=str)  # what says a sentence as the visitor reads it


# Gradio 6.31 truncates the cached file of a picture and writes it again whenever an equal picture is
# returned, so a visitor who is downloading the equal picture gets a broken file.


def save_pil_to_cache(img: Image.Image, cache_dir: str, name: str = "image", format: str = "webp") -> str:
    """As `gradio.processing_utils.save_pil_to_cache`, but a file that exists is never written again.

    Returns the path of the picture in Gradio's cache, where equal pictures share one file. It is called what
    the picture's `info` says under NAME.
    """
    if own := img.info.get(NAME):
        img, name = img.copy(), own
        del img.info[NAME]  # Gradio writes all texts of `info` into the file
    with tempfile.TemporaryDirectory(prefix="hellomeme-") as folder:
        picture = Path(folder, f"{name}.{format}")
        picture.write_bytes(processing_utils.encode_pil_to_bytes(img, format))
        return processing_utils.save_file_to_cache(picture, cache_dir)


processing_utils.save_pil_to_cache = save_pil_to_cache  # Gradio's components look it up there


# Gradio 6.31 does not start where its page does not answer itself within 3 s, as on a busy computer.


def answers(url: str) -> bool:
    """As `gradio.networking.url_ok`, with more patience: whether there is a page, or one with a password."""
    try:
        status = httpx.head(url, timeout=PATIENCE, verify=False).status_code
    except httpx.HTTPError:
        return False
    return status < 400 or status == 401


networking.url_ok = answers


# `preprocess` of a component is replaced on the instance: Gradio 6.31 writes a .pyi file beside the source of
# every subclass of a component. `Blocks.preprocess_data` copies it to a visitor's own copy of the component.


def keep_upload(picture: gr.Image) -> gr.Image:
    """Makes an image input return the uploaded file unchanged, where Gradio 6.31 would decode the picture
    and write it again, or fail without a message. `hellomeme.io.image` reads rotation and bit depth, and has
    a sentence for each kind of damage."""
    convert = picture.preprocess
    picture.preprocess = lambda file: (
        file.path if file and not (file.url or "").startswith("data:") else convert(file)
    )
    return picture


def skip_validation(component: gr.components.Component) -> gr.components.Component:
    """Makes an input return its value unchecked: the message of the settings for a number out of range names
    the setting, Gradio's own does not."""
    component.preprocess = lambda value: value
    return component


def camera_input(camera: gr.Image, read: Callable) -> gr.Image:
    """Makes the value of a streaming image what `read` returns for Gradio's data of a frame."""
    camera.preprocess = read
    return camera


def shown_by(result: gr.Image, write: Callable) -> gr.Image:
    """Makes an image show what `write` returns for a value, where Gradio 6.31 would write a file for each and
    the browser ask for it."""
    result.postprocess = write
    return result


# Hooks of Gradio 6.31 that are not documented: `preprocess_data`, `call_function` and `postprocess_data` of
# Blocks, the queue's lists, and the local context of an event.


class Blocks(gr.Blocks):
    """A page on which every failure has a sentence, in the visitor's language, and whose queue can be cleared
    for one visitor."""

    def queue(self, *args, **kwargs):
        page, send = super().queue(*args, **kwargs), self._queue.send_message

        def send_translated(event, message):
            _translate_message(message, words_for(event.request.headers))
            send(event, message)

        self._queue.send_message = send_translated
        return page

    async def process_api(self, block_fn, inputs, state=None, request=None, *args, **kwargs):
        _words.set(words_for(getattr(request, "headers", None)))
        try:
            return await super().process_api(block_fn, inputs, state, request, *args, **kwargs)
        except gr.Error as error:
            error.message, error.title = map(_words.get(), (error.message, error.title))
            raise

    async def preprocess_data(self, block_fn, inputs, state, *args, **kwargs):
        _keep("preprocess", block_fn.inputs, state)
        try:
            # Gradio would fetch a link whole, however large. Its MCP server accepts files in no other way.
            check_files(inputs, links=bool(self.mcp_server))
            return await super().preprocess_data(block_fn, inputs, state, *args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise input_error(_cause(error)) from error

    async def call_function(self, *args, **kwargs):
        with visitor_errors():
            return await super().call_function(*args, **kwargs)

    async def postprocess_data(self, block_fn, predictions, state, *args, **kwargs):
        _keep("postprocess", block_fn.outputs, state)
        predictions = _translated(block_fn.outputs, predictions)
        try:
            return await super().postprocess_data(block_fn, predictions, state, *args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            raise output_error(_cause(error)) from error

    def running_events(self, session: str, concurrency_id: str) -> set[str]:
        """The ids of a visitor's events that have left the queue and have not ended."""
        events = [event for job in self._queue.active_jobs if job is not None for event in job]
        return {event._id for event in events if _is_of(event, session, concurrency_id)}

    def end_streams(self, session: str) -> None:
        """Ends the streams of a visitor who has left. Gradio 6.31 would wait for the next frame until the
        time limit of the stream, and nobody else could have its place."""
        for job in self._queue.active_jobs:
            for event in job or ():
                if event.session_hash == session and event.streaming:
                    event.alive, event.closed = False, True
                    event.signal.set()

    def clear_queue(self, session: str, concurrency_id: str) -> None:
        """Ends the events of a visitor that still wait in the queue, with no result and a note.

        `cancels` of Gradio 6.31 also ends the events that run, with a message that the browser often fails
        to read. Events that run are ended by `Runs.stop` instead.
        """
        note = LogMessage(log="Stopped.", level="info", title="Info", duration=3)
        self._end_waiting(lambda event: _is_of(event, session, concurrency_id), note)

    def drop_waiting(self, session: str, function: Callable) -> None:
        """Ends the events of a visitor with this function that still wait in the queue, with no result."""
        self._end_waiting(lambda event: event.session_hash == session and event.fn.fn is function)

    def _end_waiting(self, chosen: Callable, note: LogMessage | None = None) -> None:
        queue = self._queue
        for line in queue.event_queue_per_concurrency_id.values():
            for event in [event for event in line.queue if chosen(event)]:
                line.queue.remove(event)
                queue.event_ids_to_events.pop(event._id, None)
                nothing = {"data": [gr.skip()] * len(event.fn.outputs)}
                nothing |= {"is_generating": False, "duration": 0, "average_duration": 0}
                if note is not None:
                    queue.send_message(event, note)
                queue.send_message(event, ProcessCompletedMessage(output=nothing, success=True))


def _translated(outputs: list, values):
    """What an event returns, with the text of Markdown as the visitor reads it: only sentences are in it."""
    if len(outputs) == 1:
        return _in_words(values) if isinstance(outputs[0], gr.Markdown) else values
    if not isinstance(values, (list, tuple)):
        return values
    return [
        _in_words(value) if isinstance(block, gr.Markdown) else value
        for block, value in zip(outputs, values, strict=False)
    ]


def _in_words(value):
    """For a text, or an update with one."""
    words = _words.get()
    if isinstance(value, dict) and isinstance(value.get("value"), str):
        return value | {"value": words(value["value"])}
    return words(value) if isinstance(value, str) else value


def _translate_message(message, words: Words) -> None:
    if isinstance(message, LogMessage):
        message.log, message.title = words(message.log), words(message.title)
    elif isinstance(message, ProgressMessage):
        for unit in message.progress_data:
            unit.desc, unit.unit = (text and words(text) for text in (unit.desc, unit.unit))


def _keep(name: str, blocks: list, state) -> None:
    """Gives what was replaced on components to a visitor's own copies of them, which Gradio makes when an
    event returns an update, or skips an output."""
    for block in blocks:
        if name in vars(block) and state is not None and block._id in state:
            setattr(state[block._id], name, getattr(block, name))


def _cause(error: Exception) -> BaseException:
    """The exception of a component, without the one of Gradio around it."""
    return error.__cause__ if isinstance(error, ComponentProcessingError) and error.__cause__ else error


def _is_of(event, session: str, concurrency_id: str) -> bool:
    return event.session_hash == session and event.concurrency_id == concurrency_id


def current_page() -> Blocks:
    """The page whose event is running."""
    return LocalContext.blocks.get()


def page_being_built() -> Blocks:
    """The page whose components are being made."""
    return Context.root_block


def current_event() -> str | None:
    """The id of the event that is running."""
    return LocalContext.event_id.get(None)


def upload_folder() -> Path:
    """The folder of the files that Gradio serves; `delete_cache` removes them after a while."""
    return Path(gr.utils.get_upload_folder())
