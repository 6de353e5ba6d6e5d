"""Pictures that come at any time, as a clip of a constant rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import HelloMemeError
from .ffmpeg import ClipWriter
from .metadata import Stamp

RATE = Fraction(15)  # frames per second
LONGEST = 300  # s


class Recorder:
    """Writes an MP4 file of pictures that plays as fast as they came.

    A picture is shown until the next one; of those that share a frame, the last is. `save` or `discard` ends
    it. The file is written atomically.
    """

    def __init__(self, path: str | Path, stamp: Stamp):
        self.path = Path(path)
        self.is_full = False  # after LONGEST, from where on pictures are left out
        self._writer = ClipWriter(self.path, RATE, tags=stamp.clip_tags).__enter__()
        self._start: float | None = None
        self._shown: np.ndarray | None = None

    def add(self, picture: np.ndarray, seconds: float) -> None:
        """picture: (H, W, 3) uint8; the clip has the size of the first, and others are resized to it, as of
        another model. seconds: when it came, on any clock that runs on. Raises HelloMemeError where encoding
        fails."""
        if self._start is None:
            self._start = seconds
        frame = round((seconds - self._start) * RATE)
        self.is_full = self.is_full or frame >= LONGEST * RATE
        if self.is_full:
            return
        while self._writer.frames < frame:
            self._writer.write(self._shown)
        if self._shown is not None and picture.shape != self._shown.shape:
            size = self._shown.shape[1::-1]
            picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
        self._shown = picture

    def save(self) -> Path:
        """Ends the clip with the last picture and returns its path. Raises HelloMemeError without pictures,
        or where encoding fails."""
        if self._shown is None:
            self.discard()
            raise HelloMemeError("Nothing has been recorded: start the camera, then record.")
        try:
            self._writer.write(self._shown)
        except HelloMemeError:
            self.discard()
            raise
        self._writer.__exit__(None, None, None)
        return self.path

    def discard(self) -> None:
        """Ends the recording and leaves no file."""
        self._writer.__exit__(HelloMemeError, None, None)
