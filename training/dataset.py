"""The training data: seeded toon frames, rendered once and labelled.

Every frame is analysed by MediaPipe exactly as a driver picture is, so that the control nets are trained on
the coefficients that inference will give them. The rendered coefficients are kept beside those: they are free
of noise, and include what the detector cannot read.
"""

from __future__ import annotations

import multiprocessing
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hellomeme.face.arkit import INDEX
from hellomeme.face.crop import Crop
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.motion import Motion
from training.toon import make_identity, random_clip, random_stills, render

# px, or twice the frame's side if larger: of the picture that is analysed; the stored frame is its average
RENDER_SIZE = 256
FIRST_IDENTITY = {
    "train": 0,
    "validation": 1_000_000,
    "heldout": 2_000_000,
    "cast": 3_000_000,
    "clips": 4_000_000,
    "validation_clips": 5_000_000,
    "heldout_clips": 6_000_000,
    "gallery": 7_000_000,
}
CAST = (8, 10, 11, 13, 17, 22, 28, 32)  # the characters of the page's gallery, from FIRST_IDENTITY["cast"] on
SHARD = 400  # frames to a file, or those of one identity if they are more


@dataclass
class Frames:
    """N labelled frames, F of each identity in a row.

    images (N, S, S, 3) uint8; blendshapes (N, 51) as detected and commanded (N, 51) as rendered, in [0, 1];
    angles (N, 3) commanded yaw, pitch, roll in degrees; rotation (N, 3, 3), origin (N, 2), scale (N,) the
    head's pose in the pixels of a 512 x 512 crop; landmarks
    (N, 478, 2) as fractions of the frame; identity (N,) seeds; captions (N,) text; found (N,) whether a face
    was detected.
    """

    images: np.ndarray
    blendshapes: np.ndarray
    commanded: np.ndarray
    angles: np.ndarray
    rotation: np.ndarray
    origin: np.ndarray
    scale: np.ndarray
    landmarks: np.ndarray
    identity: np.ndarray
    captions: np.ndarray
    found: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def only(self, chosen: np.ndarray) -> Frames:
        """The chosen frames."""
        return Frames(**{field.name: getattr(self, field.name)[chosen] for field in fields(Frames)})

    def calibrated(self, readable: float = 0.5, largest_offset: float = 0.3) -> np.ndarray:
        """(N, 51) commanded coefficients, mapped to the values that the detector would read.

        Where the detector reads a coefficient (correlation above `readable`), its slope and offset are
        applied. Where it does not, or reads a toon face at rest as far from zero (brows as raised, which it
        does not do on photographs), the commanded value is kept: what it reads of photographs then has its
        usual meaning.
        """
        commanded, detected = self.commanded[self.found], self.blendshapes[self.found]
        labels = self.commanded.copy()
        for k in range(labels.shape[1]):
            if commanded[:, k].std() < 1e-3 or detected[:, k].std() < 1e-3:
                continue
            slope, offset = np.polyfit(commanded[:, k], detected[:, k], 1)
            if np.corrcoef(commanded[:, k], detected[:, k])[0, 1] > readable and abs(offset) < largest_offset:
                labels[:, k] = slope * self.commanded[:, k] + offset
        return labels.clip(0, 1).astype(np.float32)

    def twins(self) -> list[np.ndarray]:
        """For each frame, the indexes of the frames with a face in which somebody else performs the same."""
        firsts = np.flatnonzero(np.diff(self.identity, prepend=-1))
        number = np.arange(len(self)) - np.repeat(
            firsts, np.diff(firsts, append=len(self))
        )  # in its identity
        performed = np.stack([[performance_of(int(seed)) for seed in self.identity], number], 1)
        performers = defaultdict(list)
        for index in np.flatnonzero(self.found):
            performers[tuple(performed[index])].append(index)
        return [np.setdiff1d(performers[tuple(key)], [i]).astype(int) for i, key in enumerate(performed)]

    def by_identity(self) -> list[np.ndarray]:
        """Indexes of the frames with a face, grouped by identity; identities with fewer than two are left
        out."""
        usable = np.flatnonzero(self.found)
        starts = np.flatnonzero(np.diff(self.identity[usable])) + 1
        return [group for group in np.split(usable, starts) if len(group) > 1]


def expression_words(commanded: np.ndarray, yaw: float) -> list[str]:
    """Words for the clearly visible parts of an expression."""

    def level(name: str) -> float:
        if name in INDEX:
            return float(commanded[INDEX[name]])
        return float(commanded[INDEX[name + "Left"]] + commanded[INDEX[name + "Right"]]) / 2

    words = []
    for name, threshold, word in (
        ("jawOpen", 0.35, "mouth open"),
        ("mouthSmile", 0.35, "smiling"),
        ("mouthFrown", 0.35, "frowning"),
        ("mouthPucker", 0.4, "kissing"),
        ("eyeBlink", 0.6, "eyes closed"),
        ("eyeWide", 0.4, "eyes wide"),
        ("browDown", 0.4, "angry brows"),
        ("browInnerUp", 0.4, "raised brows"),
    ):
        if level(name) > threshold:
            words.append(word)
    if abs(yaw) > 15:
        words.append("turned right" if yaw > 0 else "turned left")
    return words


def performance_of(seed: int) -> int:
    """The seed of what an identity performs. The whole cast performs the same, and so do each two others, so
    that one can be the other's driver."""
    return FIRST_IDENTITY["cast"] if is_cast(seed) else seed // 2 * 2


def is_cast(seed: int) -> bool:
    """Whether an identity is one of the gallery's characters."""
    return seed - FIRST_IDENTITY["cast"] in CAST


def render_identity(
    seed: int, frames: int, size: int, analyzer: FaceAnalyzer, moving: bool = False
) -> Frames:
    """Render and label `frames` frames of one identity, stills or a moving clip. They depend on `seed`
    alone."""
    rng = np.random.default_rng([performance_of(seed), 1])
    identity = make_identity(seed)
    side = max(RENDER_SIZE, 2 * size)
    whole = Crop(0, 0, side)
    rows = []
    for expression, pose in (random_clip if moving else random_stills)(rng, frames):
        drawing = render(identity, expression, pose, side, supersample=1)
        faces = analyzer.faces(drawing)
        words = ", ".join([identity.caption, *expression_words(expression, pose.yaw)])
        row = dict(
            images=cv2.resize(drawing, (size, size), interpolation=cv2.INTER_AREA),
            blendshapes=np.zeros(51, np.float32),
            commanded=expression,
            angles=np.array([pose.yaw, pose.pitch, pose.roll], np.float32),
            rotation=np.eye(3, dtype=np.float32),
            origin=np.zeros(2, np.float32),
            scale=np.float32(0),
            landmarks=np.zeros((478, 2), np.float32),
            identity=seed,
            captions=words,
            found=bool(faces),
        )
        if faces:
            motion = Motion.from_faces(faces[:1], whole)
            row |= dict(
                blendshapes=motion.blendshapes[0],
                rotation=motion.rotation[0].astype(np.float32),
                origin=motion.origin[0].astype(np.float32),
                scale=np.float32(motion.scale[0]),
                landmarks=(faces[0].landmarks / side).astype(np.float32),
            )
        rows.append(row)
    return Frames(
        **{field.name: np.stack([np.asarray(row[field.name]) for row in rows]) for field in fields(Frames)}
    )


def concatenate(parts: list[Frames]) -> Frames:
    return Frames(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Frames)}
    )


def _write_shard(job: tuple[Path, list[int], int, int, bool]) -> Path:
    path, seeds, frames, size, moving = job
    cv2.setNumThreads(1)
    with FaceAnalyzer() as analyzer:
        shard = concatenate([render_identity(seed, frames, size, analyzer, moving) for seed in seeds])
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, **vars(shard))
    unfinished.replace(path)
    return path


def shard_paths(
    folder: Path, split: str, identities: int, frames: int, size: int
) -> list[tuple[Path, list[int]]]:
    """The files of a split with the identities each holds."""
    first, step = FIRST_IDENTITY[split], max(1, SHARD // frames)
    numbers = CAST if split == "cast" else range(identities)
    seeds = [first + number for number in numbers][:identities]
    parts = [seeds[i : i + step] for i in range(0, len(seeds), step)]
    return [(folder / f"{split}_{size}px_{frames}f_{part[0]}.npz", part) for part in parts]


def build(folder: Path, split: str, identities: int, frames: int, size: int, processes: int) -> None:
    """Render the shards of a split that are not on disk yet."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        (path, seeds, frames, size, split.endswith("clips"))
        for path, seeds in shard_paths(folder, split, identities, frames, size)
        if not path.exists()
    ]
    # MediaPipe does not survive a fork.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in tqdm(pool.imap_unordered(_write_shard, jobs), total=len(jobs), desc=split, unit="shard"):
            pass


def shards(
    folder: Path, split: str, identities: int, frames: int, size: int, images: bool = True
) -> Iterator[Frames]:
    """Read a split that `build` has rendered, a file at a time; images are (N, 0, 0, 3) if they are not asked
    for, which saves gigabytes."""
    for path, _ in shard_paths(folder, split, identities, frames, size):
        with np.load(path, allow_pickle=False) as shard:
            arrays = {f.name: shard[f.name] for f in fields(Frames) if images or f.name != "images"}
        arrays.setdefault("images", np.zeros((len(arrays["found"]), 0, 0, 3), np.uint8))
        yield Frames(**arrays)
