"""The training data: seeded toon frames, rendered once and labelled by the analyser that will later read the
driver.

Every frame is analysed by MediaPipe exactly as a driver picture is, so the control nets learn the language
they will hear. What the renderer was told is kept beside it: it is free of noise and knows what the detector
cannot read.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

POSE_PART = 4  # the pose picture that the demo model's control nets see has a quarter of the frame's side
# px, or twice the frame's side: what the analyser sees; the stored frame is its area average
RENDER_SIZE = 256
FIRST_IDENTITY = {
    "train": 0,
    "validation": 1_000_000,
    "heldout": 2_000_000,
    "clips": 4_000_000,
    "validation_clips": 5_000_000,
    "heldout_clips": 6_000_000,
}
SHARD = 400  # frames to a file


@dataclass
class Frames:
    """N labelled frames, F of each identity in a row.

    images (N, S, S, 3) uint8; blendshapes (N, 51) as detected and commanded (N, 51) as rendered, in [0, 1];
    angles (N, 3) commanded yaw, pitch, roll in degrees; rotation (N, 3, 3), origin (N, 2), scale (N,) the
    head's pose in the pixels of a 512 x 512 crop; poses (N, S/4, S/4, 3) uint8 pose pictures; landmarks
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
    poses: np.ndarray
    landmarks: np.ndarray
    identity: np.ndarray
    captions: np.ndarray
    found: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def calibrated(self, readable: float = 0.5, largest_offset: float = 0.3) -> np.ndarray:
        """(N, 51) commanded coefficients in the detector's words.

        Where the detector reads a control (correlation above `readable`), its own slope and offset are
        applied. Where it does not, or reads a straight toon face as far from zero (resting brows as raised,
        which it does not do on photographs), the command stands as it is: a photograph's reading then means
        what it says.
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

    def by_identity(self) -> list[np.ndarray]:
        """Indexes of the frames with a face, grouped by identity; identities with fewer than two are left
        out."""
        usable = np.flatnonzero(self.found)
        starts = np.flatnonzero(np.diff(self.identity[usable])) + 1
        return [group for group in np.split(usable, starts) if len(group) > 1]


def expression_words(commanded: np.ndarray, yaw: float) -> list[str]:
    """Words for the parts of an expression that a viewer would mention."""
    from hellomeme.face.arkit import INDEX

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


def render_identity(seed: int, frames: int, size: int, analyzer, moving: bool = False) -> Frames:
    """Render and label `frames` frames of one identity, stills or a moving clip. They depend on `seed`
    alone."""
    from hellomeme.face.conditions import pose_picture
    from hellomeme.face.crop import Crop
    from hellomeme.face.motion import Motion
    from training.toon import make_identity, random_clip, random_stills, render

    rng = np.random.default_rng([seed, 1])
    identity = make_identity(seed)
    side, pose_side = max(RENDER_SIZE, 2 * size), size // POSE_PART
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
            poses=np.zeros((pose_side, pose_side, 3), np.uint8),
            landmarks=np.zeros((478, 2), np.float32),
            identity=seed,
            captions=words,
            found=bool(faces),
        )
        if faces:
            motion = Motion.from_faces(faces[:1], whole)
            picture = pose_picture(motion)[0]
            row |= dict(
                blendshapes=motion.blendshapes[0],
                rotation=motion.rotation[0].astype(np.float32),
                origin=motion.origin[0].astype(np.float32),
                scale=np.float32(motion.scale[0]),
                poses=cv2.resize(picture, (pose_side, pose_side), interpolation=cv2.INTER_AREA),
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


def _write_shard(job: tuple[Path, range, int, int, bool]) -> Path:
    from hellomeme.face.detect import FaceAnalyzer

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
) -> list[tuple[Path, range]]:
    """The files of a split with the identities each holds."""
    first, step = FIRST_IDENTITY[split], max(1, SHARD // frames)
    end = first + identities
    return [
        (folder / f"{split}_{size}px_{frames}f_{start}.npz", range(start, min(start + step, end)))
        for start in range(first, end, step)
    ]


def build(folder: Path, split: str, identities: int, frames: int, size: int, processes: int) -> None:
    """Render what is missing of a split; shards already on disk are kept."""
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


def load(folder: Path, split: str, identities: int, frames: int, size: int) -> Frames:
    """Read a split that `build` has rendered."""
    parts = []
    for path, _ in shard_paths(folder, split, identities, frames, size):
        with np.load(path, allow_pickle=False) as shard:
            parts.append(Frames(**{f.name: shard[f.name] for f in fields(Frames)}))
    return concatenate(parts)
