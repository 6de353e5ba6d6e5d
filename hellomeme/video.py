"""A driver clip or motion file in, a clip of the reference out, with memory that does not grow with its
length.

The driver is read twice as a stream: for its motion, of which only numbers are kept, and again only if it is
to be shown beside the result. Frames are drawn, decoded and written a few at a time.
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
from .face.conditions import condition_pictures
from .face.crop import Crop
from .face.detect import FaceAnalyzer
from .face.drawing import FaceShape
from .face.motion import Motion, is_motion_file
from .face.retarget import held_turns, retarget
from .face.smooth import bridged, smoothed
from .face.track import Emotion, analyse
from .io.atomic import check_output
from .io.ffmpeg import ClipWriter, Sound, probe, read_frames
from .io.metadata import Stamp
from .releases.table import Release
from .settings import ClipSettings, Settings

Progress = Callable[[str, int, int], None]
MOTION_RATE = Fraction(25)  # frames a second of a motion file that does not say
MOST_FRAMES = 250_000  # two hours at 30 a second, and some: their numbers are kept in memory


@dataclass(frozen=True)
class Report:
    """frames: how many were made, at `rate` a second. without_face: how many of them the driver shows no face
    in.
    seconds: what it took. settings, clip: those used, with every choice made."""

    path: Path
    frames: int
    without_face: int
    rate: Fraction
    seconds: float
    settings: Settings
    clip: ClipSettings


@dataclass(frozen=True)
class Selection:
    """Frames of a driver: `count` (None: to its end) from `start` seconds on, `taken` in a second of the
    driver and `played` in a second of the result."""

    start: Fraction
    taken: Fraction
    count: int
    played: Fraction

    @classmethod
    def of(cls, seconds: Fraction, rate: Fraction, clip: ClipSettings) -> Selection:
        """What the settings choose of a clip of that length and rate; HelloMemeError for a start beyond its
        end and for more frames than can be kept."""
        wanted = rate if clip.rate == "source" else Fraction(clip.rate)
        start = Fraction(clip.start or 0).limit_denominator(1000)
        if start >= seconds:
            raise HelloMemeError(
                f"The start of {float(start):g} s is beyond the end of the driver, which lasts "
                f"{float(seconds):.2f} s: choose an earlier one."
            )
        there = max(round((seconds - start) * wanted), 1)
        if not 0 < clip.frames < there:
            if there > MOST_FRAMES:
                raise HelloMemeError(
                    f"The driver would give {there} frames, and {MOST_FRAMES} is the most: choose how many "
                    "to make, or a lower rate."
                )
            return cls(start, wanted, there, wanted)
        if clip.start is not None:
            return cls(start, wanted, clip.frames, wanted)
        spread = Fraction(clip.frames) / seconds
        return cls(start, spread, clip.frames, spread if clip.rate == "source" else wanted)

    @property
    def in_time(self) -> bool:
        """Whether the result runs as fast as the driver does: only then its sound fits."""
        return self.taken == self.played


def make_clip(
    driver: str | Path | Motion,
    output: str | Path,
    settings: Settings,
    clip: ClipSettings,
    *,
    release: Release,
    analyzer: FaceAnalyzer,
    emotion: Emotion | None,
    reference: Motion,
    shape: FaceShape | None,
    draw: Callable[[Motion], Iterable[np.ndarray]],
    progress: Progress,
    labelled: bool = True,
) -> Report:
    """What `Reenactor.video` does, given what it knows: settings are resolved ones.

    emotion: reads the code of a face for releases that take one, see `face.track.analyse`. reference: the
    reference's own motion, of one frame; shape: of its face, if the release draws it. draw: the reference
    moved by a motion -> its frames, (size, size, 3) uint8. The other arguments, and what is raised, are those
    of `Reenactor.video`.
    """
    began = time.monotonic()
    output = check_output(output, (".mp4",), () if isinstance(driver, Motion) else (driver,))

    # 1. What the driver does
    scale = release.crop_scale
    motion, crop, selection = read_motion(driver, settings, clip, analyzer, scale, emotion, progress)
    lost = int((~motion.valid).sum())
    if emotion is None:
        motion = replace(motion, emotion=None)
    elif motion.emotion is None:
        raise HelloMemeError(
            f"The motion file holds no emotion codes, which {release.name} needs: make it "
            "again from the driver with this release."
        )
    motion = smoothed(bridged(motion), float(selection.taken), clip.smoothing)
    motion, _ = held_turns(retarget(motion, reference, settings, clip), release.turns)

    # 2. Drawing and writing, a few frames at a time
    sound = None
    if crop is not None and selection.in_time:
        sound = Sound(Path(driver), selection.start, len(motion) / selection.taken)
    strip = _beside(driver, crop, selection, motion, release.size, shape) if clip.side_by_side else None
    frames = draw(motion)
    stamp = Stamp(settings, release.name, clip, labelled)
    with ClipWriter(output, selection.played, sound, stamp.clip_arguments()) as writer:
        for frame in frames:
            writer.write(frame if strip is None else np.concatenate([*next(strip), frame], axis=1))
    seconds = time.monotonic() - began
    return Report(output, writer.frames, lost, selection.played, seconds, settings, clip)


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
    emotion: Emotion | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[Motion, Crop | None, Selection]:
    """The driver's own motion, as measured, in the frames that the settings choose.

    crop_scale: a release's; emotion: reads the code of a face for releases that take one, see
    `face.track.analyse`. Of a motion or motion file the frames are chosen only; there is then no crop. The
    other arguments are `make_clip`'s.
    """
    driver = _loaded(driver)
    selection = select_frames(driver, clip)
    if isinstance(driver, Motion):
        rate = driver.rate or MOTION_RATE
        moments = (selection.start + k / selection.taken for k in range(selection.count))
        motion = driver.at([min(math.floor(moment * rate), len(driver) - 1) for moment in moments])
        if not motion.valid.any():  # of a few frames, all may be such that show none
            raise NoFaceError(
                "No face in any of the frames chosen from the motion file: choose more, or another start."
            )
        return replace(motion, rate=selection.played), None, selection
    frames = read_frames(driver, selection.taken, selection.start, selection.count)
    motion, crop = analyse(
        frames,
        selection.taken,
        analyzer,
        crop_scale,
        settings.driver_face,
        emotion,
        lambda done: progress("analysing", min(done, selection.count), selection.count),
    )
    return replace(motion, rate=selection.played), crop, selection


def _beside(
    driver, crop: Crop | None, selection: Selection, motion: Motion, size: int, shape: FaceShape | None
) -> Iterator[list[np.ndarray]]:
    """What stands to the left of each frame: the driver, unless only its motion is known, and the condition
    picture."""
    seen = None
    if crop is not None:
        seen = (
            crop.apply(f, size)
            for f in read_frames(driver, selection.taken, selection.start, selection.count)
        )
    for t in range(len(motion)):
        pose = Image.fromarray(condition_pictures(motion.at([t]), shape=shape)[0])
        pose = pose.resize((size, size), Image.Resampling.BOX)
        yield [*([] if seen is None else [next(seen)]), np.asarray(pose)]
