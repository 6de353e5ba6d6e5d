"""Clips as streams of frames, read and written with PyAV, which holds ffmpeg's libraries.

At most two frames are in memory at a time. Rates are exact fractions: 29.97 is 30000/1001. The decoder and
the encoder are processes of their own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..errors import HelloMemeError
from .atomic import atomic_write, remove_stale
from .image import MIN_SIDE
from .worker import start_worker

# Of the temporary folders in which clips are encoded; the process id follows
TEMPORARY_PREFIX = "hellomeme-"
MAX_COMMENT = 1 << 18  # bytes
SIZE = struct.Struct("=II")  # width and height, in front of the pixels of a frame


@dataclass(frozen=True)
class ClipInfo:
    """Rate and length of a clip.

    rate: frames per second, exact; for a variable rate, the common rate nearest to its average.
    seconds: from the start of the file to the end of the last frame.
    constant: whether the rate is constant.
    """

    path: Path
    rate: Fraction
    seconds: Fraction
    constant: bool

    @property
    def frames(self) -> int:
        """Number of frames at `rate`; a damaged file may deliver fewer."""
        return max(round(self.seconds * self.rate), 1)


@dataclass(frozen=True)
class Sound:
    """The sound of a clip: `seconds` of it, from `start` (s)."""

    path: Path
    start: Fraction
    seconds: Fraction


def probe(path: str | Path, name: str = "driver") -> ClipInfo:
    """Rate and length of a clip, from the time stamps of all its frames; none is decoded.

    name: what error messages call the clip. Raises HelloMemeError for a file that is not a readable clip.
    """
    path = Path(path)
    if path.is_dir():
        raise HelloMemeError(f"The {name} clip {path} is a folder: choose a clip in it.")
    if not path.is_file():
        raise HelloMemeError(f"The {name} clip {path} does not exist: check the path.")
    if not os.access(path, os.R_OK):
        raise HelloMemeError(f"The {name} clip {path} may not be read: change its permissions.")
    with start_worker("decoding", "describe", path.absolute()) as process:
        found = process.stdout.read()
    if process.returncode or not found:
        raise HelloMemeError(
            f"The {name} clip {path.name} is not a clip that can be read: choose an MP4, MOV, WebM "
            "or GIF file."
        )
    facts = json.loads(found)
    return ClipInfo(path, Fraction(*facts["rate"]), Fraction(*facts["seconds"]), facts["constant"])


def read_comment(path: Path) -> str:
    """The comment in the metadata of a clip; empty for a file that has none or is no clip."""
    with start_worker("decoding", "comment", path.absolute()) as process:
        comment = process.stdout.read(MAX_COMMENT).decode("utf-8", "replace")
        process.kill()
    return comment


def read_frames(
    path: str | Path,
    rate: Fraction,
    start: Fraction = Fraction(0),
    count: int | None = None,
    name: str = "driver",
) -> Iterator[np.ndarray]:
    """Yields the frames of a clip from `start` (s) on, (H, W, 3) uint8 sRGB, upright, with square pixels.

    rate: frames per second to read. Frames are repeated or dropped, so that a variable rate becomes constant
    and stays in time with the sound. Where the picture changes its shape or is turned, the frames do, too.
    Interlaced frames are deinterlaced, and HDR is tone-mapped. count: the most frames to read, None for all.
    name: what error messages call the clip. Raises HelloMemeError if no frame can be read, or if a side is
    shorter than 32 px.
    """
    process = start_worker("decoding", "frames", Path(path).absolute(), rate, start, count or 0)
    frames = 0
    try:
        while (frame := _next_frame(process.stdout)) is not None:
            if min(frame.shape[:2]) < MIN_SIDE:
                raise HelloMemeError(
                    f"The {name} clip is only {frame.shape[1]} x {frame.shape[0]} pixels: choose one "
                    f"of at least {MIN_SIDE} x {MIN_SIDE}."
                )
            frames += 1
            yield frame
        if not frames:
            raise HelloMemeError(
                f"The {name} clip {Path(path).name} has no picture that can be read: save or "
                "download it again."
            )
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


class ClipWriter:
    """Writes frames as an MP4 file (H.264, yuv420p, faststart), with the sound of another clip if it has any.

    A context manager. The clip is encoded in the system's folder for temporary files and moved to `path` when
    the block ends without an error; otherwise nothing is written to `path`. What a crash leaves in the folder
    for temporary files is removed when the next clip begins. Raises HelloMemeError where encoding fails.
    """

    def __init__(
        self,
        path: str | Path,
        rate: Fraction,
        sound: Sound | None = None,
        tags: Mapping[str, str] | None = None,
    ):
        """rate: frames per second. tags: the metadata of the file, as `metadata.Stamp.clip_tags`."""
        self.path, self.rate, self.sound, self.tags = Path(path), rate, sound, tags or {}
        self._process = self._log_reader = self._folder = None
        self._log: deque[bytes] = deque(maxlen=20)  # the encoder's last lines
        self.frames = 0

    def __enter__(self) -> ClipWriter:
        try:
            remove_stale(Path(tempfile.gettempdir()), TEMPORARY_PREFIX)
            self._folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-"))
        except OSError as error:
            raise self._failure(error.strerror or str(error)) from error
        return self

    def write(self, frame: np.ndarray) -> None:
        """frame: (H, W, 3) uint8 RGB, all of the same size. An odd side is padded by one black line."""
        if self._process is None:
            self._start()
        try:
            self._process.stdin.write(SIZE.pack(frame.shape[1], frame.shape[0]))
            self._process.stdin.write(np.ascontiguousarray(frame))
        except OSError as error:
            raise self._failure(self._failure_reason()) from error
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None or self._process is None:
                return
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            if self._process.wait() != 0:
                raise self._failure(self._failure_reason())
            with atomic_write(self.path, "clip") as draft:  # atomic also from another disk
                shutil.move(self._draft, draft)
        finally:
            if self._process is not None:
                self._process.kill()
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
                self._process.wait()
                self._log_reader.join()
                self._process.stderr.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _draft(self) -> Path:
        return self._folder / "clip.mp4"

    def _start(self) -> None:
        sound = self.sound
        track = [] if sound is None else [Path(sound.path).absolute(), sound.start, sound.seconds]
        pipe = subprocess.PIPE
        self._process = start_worker(
            "encoding",
            *(self._draft, json.dumps(dict(self.tags)), self.rate, *track),
            **{"stdin": pipe, "stdout": subprocess.DEVNULL, "stderr": pipe},
        )
        # kept in memory: the disk may be full
        self._log_reader = threading.Thread(target=self._log.extend, args=[self._process.stderr], daemon=True)
        self._log_reader.start()

    def _failure_reason(self) -> str:
        """The encoder's last line, unless an earlier one says that the disk is full."""
        self._process.wait()
        self._log_reader.join()
        lines = [line.decode(errors="replace").strip() for line in self._log]
        full = os.strerror(errno.ENOSPC)
        return full if any(full in line for line in lines) else (lines or ["the encoder gave no reason"])[-1]

    def _failure(self, why: str) -> HelloMemeError:
        return HelloMemeError(f"The clip {self.path} could not be encoded: {why.rstrip('.')}.")


def _next_frame(stream: BinaryIO) -> np.ndarray | None:
    """The next frame (H, W, 3) uint8 of the decoder, or None at its end."""
    head = stream.read(SIZE.size)
    if len(head) < SIZE.size:
        return None
    width, height = SIZE.unpack(head)
    pixels = stream.read(3 * width * height)
    if len(pixels) < 3 * width * height:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
