"""Pasting a finished clip back into the whole reference picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from .face.crop import Crop
from .face.paste import paste
from .io import metadata
from .io.atomic import check_output
from .io.ffmpeg import ClipWriter, Sound, probe, read_frames

MAX_SIDE = 1920  # px, of the whole clip


def paste_clip(
    clip: str | Path,
    frame: np.ndarray,
    crop: Crop,
    output: str | Path,
    feather: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes an MP4 file of the whole reference with the face of a clip in it, and with the clip's sound.

    clip: a result of `Reenactor.video`; of one with the driver beside it, only the result is used. frame,
    crop: those of the reference portrait; a frame whose longer side is above 1920 px is reduced to that.
    feather: 0..1, of the soft edge, as for pictures. The file keeps the clip's settings in its metadata.
    progress: called as `progress(done, frames)` after each frame; it may raise `Stopped` to cancel.
    Raises HelloMemeError for a clip that cannot be read, or if writing fails.
    """
    output = check_output(output, (".mp4",), (clip,))
    info, stamp = probe(clip, "face"), metadata.read(clip)
    frame, crop = _reduced(frame, crop)
    if stamp is not None:
        settings = dataclasses.replace(stamp.settings, feather=feather)
        stamp = dataclasses.replace(stamp, settings=settings)
    sound = Sound(info.path, Fraction(0), info.seconds)
    with ClipWriter(output, info.rate, sound, stamp.clip_tags if stamp else None) as writer:
        for picture in read_frames(clip, info.rate, name="face"):
            side = picture.shape[0]
            writer.write(paste(frame, crop, picture[:, -side:], feather))
            if progress is not None:
                progress(writer.frames, info.frames)
    return output


def _reduced(frame: np.ndarray, crop: Crop) -> tuple[np.ndarray, Crop]:
    """A frame of at most MAX_SIDE, and the crop in it."""
    factor = MAX_SIDE / max(frame.shape[:2])
    if factor >= 1:
        return frame, crop
    height, width = (round(side * factor) for side in frame.shape[:2])
    reduced = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
    return reduced, Crop(crop.left * factor, crop.top * factor, crop.side * factor)
