"""Reenacted clips, kept as pictures: what a driver shows, what a release draws of it, and two baselines.

Self-reenactment: the first frame of a clip is the reference, and the whole clip drives. Reference and driver
share one crop, and the head moves about with the driver's, so that every frame has a truth.
Cross-reenactment: the first frame of the next clip is the reference, in its own crop, and the head stays in
its place there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import HelloMemeError
from ..face.crop import Crop
from ..face.detect import Face, FaceAnalyzer
from ..face.motion import Motion
from ..face.retarget import held_turns, retarget
from ..face.smooth import bridged, smoothed
from ..io.atomic import remove_stale
from ..io.ffmpeg import probe, read_frames
from ..settings import ClipSettings, Settings
from ..video import read_motion
from .baselines import warped

if TYPE_CHECKING:
    from ..portrait import Portrait, ReferencePortrait
    from ..reenactor import Reenactor
    from ..releases.table import Release

FORMAT = "hellomeme evaluation 1"
ENDINGS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif")
FACTS, DRIVER_MOTION = "facts.json", "driver.npz"
DRIVER, COPIED, WARPED, DRAWN = SYSTEMS = ("driver", "copied", "warped", "drawn")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Task:
    """A clip that drives the first frame of `reference`, which is the clip itself in self-reenactment."""

    clip: Path
    reference: Path

    @property
    def is_cross(self) -> bool:
        return self.clip != self.reference


def tasks(folder: str | Path, cross: bool = False) -> list[Task]:
    """A task for each clip of a folder, by name. Raises HelloMemeError where there are too few clips."""
    folder = Path(folder)
    if not folder.is_dir():
        raise HelloMemeError(f"There is no folder {folder}: give a folder with clips of faces.")
    clips = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not clips:
        raise HelloMemeError(
            f"The folder {folder} has no clips: put files in it that end in {', '.join(ENDINGS)}."
        )
    if cross and len(clips) < 2:
        raise HelloMemeError(f"Cross-reenactment needs two clips, and {folder} has one: add another.")
    references = clips[1:] + clips[:1] if cross else clips
    return [Task(*pair) for pair in zip(clips, references, strict=True)]


def settings_for(settings: Settings, cross: bool) -> Settings:
    """The settings, with a head that moves about with the driver's only where the driver is the truth."""
    return replace(settings, translation=0.0 if cross else 1.0)


def made_from(task: Task, release: Release, options: object) -> str:
    """16 hex digits of a SHA-256 over all that the pictures of a task depend on: the content of its clips,
    the release, for a model folder also the sizes and times of its weights, and `options`."""
    parts = [FORMAT, release.name, repr(options)]
    try:
        for path in dict.fromkeys((task.clip, task.reference)):
            parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
        if release.root is not None:
            for path in sorted(release.root.rglob("*.safetensors")):
                facts = path.stat()
                parts.append(f"{path.relative_to(release.root)} {facts.st_size} {facts.st_mtime_ns}")
    except OSError as error:
        raise HelloMemeError(f"{error.filename} cannot be read: {error.strerror}.") from error
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def frames_of(folder: Path, digest: str) -> int:
    """The number of frames of a task that is finished and kept in `folder`, or 0.

    Raises HelloMemeError if the folder holds something else.
    """
    if not folder.exists():
        return 0
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return facts["frames"] if facts["made_from"] == digest else 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HelloMemeError(
            f"{folder} exists and is no result of an evaluation: choose another output folder."
        ) from error


def make(
    task: Task,
    folder: Path,
    digest: str,
    reenactor: Reenactor,
    settings: Settings,
    clip: ClipSettings,
    reader: FaceAnalyzer,
    progress: Progress,
) -> int:
    """Draws a task into `folder`, which appears when it is complete; returns the number of frames.

    settings: resolved ones, from `settings_for`. reader: reads the driver's frames as the results will be
    read. progress: as for `Reenactor.video`. Raises HelloMemeError for a clip that cannot be read, or has no
    face in its first frame or in most frames.
    """
    prefix = f".{folder.name[:40]}-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder.parent, prefix)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{prefix}{os.getpid()}-"))
    except OSError as error:
        raise HelloMemeError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error
    try:
        frames = _draw(task, draft, reenactor, settings, clip, reader, progress)
        (draft / FACTS).write_text(json.dumps({"made_from": digest, "frames": frames}), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        draft.chmod(0o755)
        draft.replace(folder)
        return frames
    except OSError as error:
        raise HelloMemeError(f"{folder} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draw(
    task: Task,
    draft: Path,
    reenactor: Reenactor,
    settings: Settings,
    clip: ClipSettings,
    reader: FaceAnalyzer,
    progress: Progress,
) -> int:
    release = reenactor.release
    motion, crop, selection = read_motion(
        task.clip, settings, clip, reenactor.analyzer, release.crop_scale, reenactor.encoders, progress
    )
    if len(motion) < 2:
        raise HelloMemeError("The clip has one frame, which is the reference: give a longer one.")
    portrait = first_portrait(task.reference, reenactor, None if task.is_cross else crop)
    reference = reenactor.set_reference(portrait)

    frames = read_frames(task.clip, selection.driver_rate, selection.start, len(motion))
    driver = (crop.apply(frame, release.size) for frame in frames)
    count = len(motion)
    faces = _draw_baselines(
        driver, draft, task.is_cross, reader, reference, lambda t: progress("baselines", t, count)
    )
    Motion.from_faces(faces, Crop(0, 0, release.size)).save(draft / DRIVER_MOTION)

    # From the motion that the command `video` would draw from
    motion = smoothed(bridged(motion), float(selection.driver_rate), clip.smoothing)
    motion, _ = held_turns(retarget(motion, reference.motion, settings, clip), release.turns)
    for t, frame in enumerate(reenactor.frames(reference, motion, settings, clip, progress)):
        save(frame, draft / DRAWN, t)
    return len(motion)


def first_portrait(path: Path, reenactor: Reenactor, crop: Crop | None = None) -> Portrait:
    """The first frame of a clip as a reference. crop: in px of the frame; the face's own if None.

    Raises HelloMemeError for a clip that cannot be read, NoFaceError if its first frame shows no face.
    """
    from ..portrait import Portrait

    frame = next(read_frames(path, probe(path, "reference").rate, count=1, name="reference"))
    portrait = reenactor.portrait(frame, "reference")
    if crop is None:
        return portrait
    motion = reenactor.encoders.read(frame, portrait.face, Motion.from_faces([portrait.face], crop))
    picture = Image.fromarray(crop.apply(frame, reenactor.release.size))
    return Portrait(picture, portrait.face, motion, crop, frame)


def _draw_baselines(
    driver: Iterator[np.ndarray],
    draft: Path,
    is_cross: bool,
    reader: FaceAnalyzer,
    reference: ReferencePortrait,
    progress: Callable[[int], None],
) -> list[Face | None]:
    """Saves the driver's frames (S, S, 3), the reference copied, and the reference warped from its landmarks
    to the driver's; in a frame without a face it stays as it was. Returns the driver's faces."""
    picture = last = np.asarray(reference.picture)
    own, faces = reader.face(picture, "reference"), []
    for t, frame in enumerate(driver):
        face = next(iter(reader.faces(frame)), None)
        faces.append(face)
        if face is not None:
            last = warped(picture, own.landmarks, (_placed(face, own) if is_cross else face).landmarks)
        for system, image in ((DRIVER, frame), (COPIED, picture), (WARPED, last)):
            save(image, draft / system, t)
        progress(t + 1)
    return faces


def _placed(face: Face, own: Face) -> Face:
    """A face, moved and scaled to the place of another one."""
    factor = own.extent / face.extent
    return face.mapped(factor, own.centre - factor * face.centre)


def save(picture: np.ndarray, folder: Path, t: int) -> list[Face | None]:
    """Writes frame t (S, S, 3) uint8 of a system, without loss."""
    folder.mkdir(exist_ok=True)
    Image.fromarray(picture).save(folder / f"{t:06d}.png", compress_level=1)


def batches(folder: Path, system: str, frames: int, size: int) -> Iterator[np.ndarray]:
    """Yields the kept frames of a system, `size` at a time, the last ones fewer: (N, S, S, 3) uint8."""
    for first in range(0, frames, size):
        chosen = range(first, min(first + size, frames))
        yield np.stack([np.asarray(Image.open(folder / system / f"{t:06d}.png")) for t in chosen])
