"""Errors as visitors see them: wrong input gets a sentence of its own, an internal error a general one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator

import gradio as gr
from gradio.exceptions import InvalidPathError

from hellomeme.errors import HelloMemeError

INTERNAL = "Something broke on our side; the log of the server says what. Trying again may help."
WRONG_TYPE = (
    "A value was sent that is not of the kind its parameter takes: see the API page for each one's kind."
)
MISSING_FILE = (
    "A file that was sent is not here: upload it first, or again, as uploads are kept for an hour only."
)
LINK = (
    "A file was named by its address on the web, and none is fetched from there: download it, "
    "then upload it here."
)
DISK = "The result could not be written: the server's disk is full or not writable."
PATH_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
SHOWN = 30  # s: how long the browser shows an error
log = logging.getLogger("hellomeme.page")


def visitor_error(sentence: str) -> gr.Error:
    return gr.Error(sentence, duration=SHOWN, print_exception=False)


@contextlib.contextmanager
def visitor_errors() -> Iterator[None]:
    """Turns every exception into a gr.Error: a HelloMemeError keeps its sentence, any other exception is
    logged and becomes `INTERNAL`."""
    try:
        yield
    except gr.Error:
        raise
    except HelloMemeError as error:
        raise visitor_error(counted_from_one(str(error))) from error
    except Exception as error:
        log.exception("in an event")
        raise visitor_error(INTERNAL) from error


def counted_from_one(sentence: str) -> str:
    """A sentence with the numbers of faces in it as the page counts them, from 1; any other as it is."""
    faces = r"(Face |number |from |to )(\d+)(?= was asked| found| \(the largest\)|\.$)"
    if not re.match(r"Face \d+ was asked for|No face number \d+ found", sentence):
        return sentence
    return re.sub(faces, lambda found: found[1] + str(int(found[2]) + 1), sentence)


def check_files(value, links: bool) -> None:
    """Raises gr.Error where a file in an event's raw input does not exist, or is a link without `links`."""
    if not links and _has_link(value):
        raise visitor_error(LINK)
    if not all(map(os.path.exists, _paths(value))):
        raise visitor_error(MISSING_FILE)


def input_error(error: BaseException) -> gr.Error:
    """For an exception of a component that converts the input of an event. The exception is logged."""
    # Pillow raises an OSError without a number for a damaged picture.
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or (number is not None and number not in PATH_ERRORS):
        log.error("while converting input", exc_info=error)
        return visitor_error(INTERNAL)
    log.warning("input refused: %s", error, exc_info=error)
    missing = isinstance(error, InvalidPathError) or number in PATH_ERRORS
    return visitor_error(MISSING_FILE if missing else WRONG_TYPE)


def output_error(error: BaseException) -> gr.Error:
    """For an exception of a component that converts the result of an event. The exception is logged."""
    log.error("while converting a result", exc_info=error)
    return visitor_error(DISK if getattr(error, "errno", None) in WRITE_ERRORS else INTERNAL)


def _has_link(value) -> bool:
    """Whether a file is named by a web address. Browsers never send one: they send the path of an upload."""
    if isinstance(value, dict):
        address = value.get("path") or value.get("url")
        if isinstance(address, str) and address.startswith(("http://", "https://")):
            return True
        return any(map(_has_link, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_link, value))


def _paths(value) -> Iterator[str]:
    """The paths of all files in the raw input of an event."""
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        yield value["path"]
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _paths(part)
