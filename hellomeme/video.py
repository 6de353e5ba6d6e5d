"""From a driver clip or motion file to a clip of the reference, with constant memory.

The driver is read as a stream, and a second time if it is shown beside the result. Frames are drawn, decoded
and written a few at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import HelloMemeError, NoFaceError
from .expression import ExpressionEncoders, Reading
from .face.conditions import condition_pictures
from .face.crop import Crop
from .face.detect import FaceAnalyzer
from .face.drawing import FaceShape
from .face.motion import Motion, is_motion_file
from .face.retarget import held_turns, retarget
from .face.smooth import bridged, smoothed
from .face.track import analyse
from .io.atomic import check_output
from .io.ffmpeg import ClipWriter, Sound, probe, read_frames
from .io.metadata import Stamp
from .releases.styles import Style
from .releases.table import Release
from .settings import ClipSettings, Settings

Progress = Callable[[str, float, int], None]
MOTION_RATE = Fraction(25)  # frames per second of a motion file without a rate
MAX_FRAMES = 250_000  # more than two hours at 30 per second; their motion is kept in memory


@dataclass(frozen=True)
class Report:
    """A finished clip.

    path: the file. frames: how many, at `rate` frames per second. without_face: in how many of them the
    driver shows no face. seconds: how long it took. settings, clip: those used; settings are resolved ones.
    """

    path: Path
    frames: int
    without_face: int
    rate: Fraction
    seconds: float
    settings: Settings
    clip: ClipSettings


@dataclass(frozen=True)
class Selection:
    """Which frames of a driver are used: `count` frames from `start` (s) on.

    driver_rate: frames per second of the driver. output_rate: frames per second of the result.
    """

    start: Fraction
    driver_rate: Fraction
    count: int
    output_rate: Fraction

    @classmethod
    def of(cls, seconds: Fraction, rate: Fraction, clip: ClipSettings) -> Selection:
        """The frames that the settings choose from a driver of `seconds` at `rate` frames per second.

        Raises HelloMemeError for a start beyond its end or that of the clip, and for more than MAX_FRAMES
        frames.
        """
        wanted = rate if clip.rate == "source" else Fraction(clip.rate)
        start = Fraction(clip.start or 0).limit_denominator(1000)
        end = seconds if clip.end is None else min(Fraction(clip.end).limit_denominator(1000), seconds)
        if start >= seconds:
            raise HelloMemeError(
                f"The start of {float(start):g} s is beyond the end of the driver, which lasts "
                f"{float(seconds):.2f} s: choose an earlier one."
            )
        if start >= end:
            raise HelloMemeError(
                f"The clip would end at {float(end):g} s, and it starts at {float(start):g} s: choose a "
                "later end, or an earlier start."
            )
        available = max(round((end - start) * wanted), 1)
        if not 0 < clip.frames < available:
            if available > MAX_FRAMES:
                raise HelloMemeError(
                    f"The driver would give {available} frames, and {MAX_FRAMES} is the most: choose how "
                    "many to make, or a lower rate."
                )
            return cls(start, wanted, available, wanted)
        if clip.start is not None:
            return cls(start, wanted, clip.frames, wanted)
        spread = Fraction(clip.frames) / end
        return cls(start, spread, clip.frames, spread if clip.rate == "source" else wanted)

    @property
    def real_time(self) -> bool:
        """Whether the result plays at the speed of the driver: only then the sound fits."""
        return self.driver_rate == self.output_rate


def make_clip(
    driver: str | Path | Motion,
    output: str | Path,
    settings: Settings,
    clip: ClipSettings,
    *,
    release: Release,
    analyzer: FaceAnalyzer,
    encoders: ExpressionEncoders,
    reference: Motion,
    shape: FaceShape | None,
    draw: Callable[[Motion], Iterable[np.ndarray]],
    progress: Progress,
    labelled: bool = True,
    style: Style = Style(),
) -> Report:
    """The work of `Reenactor.video`; settings are resolved ones.

    encoders: of the reenactor. reference: the reference's own motion, one frame. shape: of its face, for
    releases that draw it. draw: takes the retargeted motion and yields the frames, (size, size, 3) uint8. The
    other arguments and the errors are those of `Reenactor.video`.
    """
    began = time.monotonic()
    output = check_output(output, (".mp4",), () if isinstance(driver, Motion) else (driver,))

    # 1. The driver's motion, as the reference performs it
    scale = release.crop_scale
    motion, crop, selection = read_motion(driver, settings, clip, analyzer, scale, encoders, progress)
    without_face = int((~motion.valid).sum())
    motion = encoders.needed(motion, release.name)
    motion = smoothed(bridged(motion), float(selection.driver_rate), clip.smoothing)
    motion, _ = held_turns(retarget(motion, reference, settings, clip), release.turns)

    # 2. Drawing and writing, a few frames at a time
    sound = None
    if crop is not None and selection.real_time:
        sound = Sound(Path(driver), selection.start, len(motion) / selection.driver_rate)
    size = release.size * settings.enlargement
    panels = _side_panels(driver, crop, selection, motion, size, shape) if clip.side_by_side else None
    frames = draw(motion)
    stamp = Stamp(settings, release.name, clip, labelled, style=style)
    with ClipWriter(output, selection.output_rate, sound, stamp.clip_tags) as writer:
        for frame in frames:
            writer.write(frame if panels is None else np.concatenate([*next(panels), frame], axis=1))
    seconds = time.monotonic() - began
    return Report(output, writer.frames, without_face, selection.output_rate, seconds, settings, clip)


def select_frames(driver: str | Path | Motion, clip: ClipSettings) -> Selection:
    """Which frames of a clip, motion file (.npz) or motion the settings choose. Nothing is analysed.

    Raises HelloMemeError for a driver that cannot be read, a start beyond its end, and too many frames.
    """
    driver = _loaded(driver)
    if isinstance(driver, Motion):
        rate = driver.rate or MOTION_RATE
        return Selection.of(len(driver) / rate, rate, clip)
    info = probe(driver)
    return Selection.of(info.seconds, info.rate, clip)


def _loaded(driver: str | Path | Motion) -> str | Path | Motion:
    """The motion of a motion file; anything else as it is."""
    return Motion.load(driver) if not isinstance(driver, Motion) and is_motion_file(driver) else driver


def read_motion(
    driver: str | Path | Motion,
    settings: Settings,
    clip: ClipSettings,
    analyzer: FaceAnalyzer,
    crop_scale: float,
    encoders: ExpressionEncoders | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Motion, Crop | None, Selection]:
    """The driver's motion in the frames that the settings choose, its crop, and which frames these are.

    crop_scale: of the release, in extents of the face. encoders: of a reenactor, for codes of the face; none
    if None. The crop is None for a motion or a motion file. Raises HelloMemeError for a driver that cannot be
    read, NoFaceError without a face.
    """
    driver = _loaded(driver)
    selection = select_frames(driver, clip)
    if isinstance(driver, Motion):
        rate = driver.rate or MOTION_RATE
        moments = (selection.start + k / selection.driver_rate for k in range(selection.count))
        motion = driver.at([min(math.floor(moment * rate), len(driver) - 1) for moment in moments])
        if not motion.valid.any():  # a few chosen frames may all be without a face
            raise NoFaceError(
                "No face in any of the frames chosen from the motion file: choose more, or another start."
            )
        return replace(motion, rate=selection.output_rate), None, selection

    def frames() -> Iterator[np.ndarray]:
        return read_frames(driver, selection.driver_rate, selection.start, selection.count)

    def show(phase: str) -> Callable[[int], None]:
        return lambda done: progress(phase, min(done, selection.count), selection.count)

    reading = Reading(encoders or ExpressionEncoders())
    motion, crop = analyse(
        frames(),
        selection.driver_rate,
        analyzer,
        crop_scale,
        settings.driver_face,
        reading.see,
        show("analysing"),
    )
    motion = reading.complete(motion, frames, show("reading eyes and mouth"))
    return replace(motion, rate=selection.output_rate), crop, selection


def _side_panels(
    driver: str | Path | Motion,
    crop: Crop | None,
    selection: Selection,
    motion: Motion,
    size: int,
    shape: FaceShape | None,
) -> Iterator[list[np.ndarray]]:
    """Yields the pictures (size, size, 3) uint8 to the left of each frame: the driver, unless it is a motion,
    and the condition picture."""
    driver_frames = None
    if crop is not None:
        driver_frames = (
            crop.apply(f, size)
            for f in read_frames(driver, selection.driver_rate, selection.start, selection.count)
        )
    for t in range(len(motion)):
        pose = Image.fromarray(condition_pictures(motion.at([t]), shape=shape)[0])
        pose = pose.resize((size, size), Image.Resampling.BOX)
        yield [*([] if driver_frames is None else [next(driver_frames)]), np.asarray(pose)]
