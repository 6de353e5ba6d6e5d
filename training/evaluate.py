"""How well a model follows the driver, on toon identities it was never trained on.

Self-reenactment: one frame of an identity is the reference, another frame of it drives and is the truth. The
model draws in the driver's own frame, so that its pictures can be laid over the truth; "as on the page" goes
through `Reenactor` as the page does, crop and all, where only what MediaPipe reads of the pictures can be
compared.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity

from hellomeme.errors import HelloMemeError
from hellomeme.face.arkit import INDEX
from hellomeme.face.conditions import condition_tensor
from hellomeme.face.crop import Crop
from hellomeme.face.detect import Face, FaceAnalyzer
from hellomeme.face.drawing import FaceBasis, FaceShape
from hellomeme.face.motion import Motion
from hellomeme.face.rotation import to_angles
from hellomeme.pipeline import HelloMemePipeline, Reference
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import face_basis, load
from hellomeme.releases.table import Release
from hellomeme.settings import Settings
from training.autoencoder import psnr, to_images, to_tensor
from training.baselines import warped
from training.dataset import FIRST_IDENTITY, RENDER_SIZE
from training.toon import Identity, Pose, make_identity, random_expression, random_pose, render

WHOLE = Crop(0, 0, RENDER_SIZE)
FEWEST = 3  # identities, or faces found, below which a correlation says nothing
# name: ARKit coefficients whose mean is compared
FOLLOWED = {
    "jawOpen": ("jawOpen",),
    "blink left": ("eyeBlinkLeft",),
    "blink right": ("eyeBlinkRight",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "gaze": ("eyeLookOutLeft", "eyeLookInRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "pucker": ("mouthPucker",),
    "brow down": ("browDownLeft", "browDownRight"),
    "brow up": ("browInnerUp",),
    "squint": ("eyeSquintLeft", "eyeSquintRight"),
    "wide": ("eyeWideLeft", "eyeWideRight"),
    "wink": ("eyeBlinkLeft",),
}
# Counted negative: gaze to the image's left, and the other eye closed.
OPPOSED = {"gaze": ("eyeLookInLeft", "eyeLookOutRight"), "wink": ("eyeBlinkRight",)}
ANGLES = ("pitch", "yaw", "roll")


@dataclass(frozen=True)
class Shot:
    """A rendered frame, (256, 256, 3) uint8 unless asked for otherwise, the face that MediaPipe finds in it,
    and the coefficients (51,) and pose that it was rendered with."""

    frame: np.ndarray
    face: Face
    expression: np.ndarray
    pose: Pose

    @property
    def motion(self) -> Motion:
        return Motion.from_faces([self.face], WHOLE)


@dataclass(frozen=True)
class Pair:
    """A reference and a driver. truth (256, 256, 3) uint8: the reference's identity, performing as the driver
    does."""

    identity: Identity
    reference: Shot
    driver: Shot
    truth: np.ndarray


def shoot(
    identity: Identity, expression: np.ndarray, pose: Pose, analyzer: FaceAnalyzer, size: int = RENDER_SIZE
) -> Shot | None:
    """Render a frame of `size` px; None if no face is found in it."""
    frame = render(identity, expression, pose, size)
    faces = analyzer.faces(frame)
    return Shot(frame, faces[0], expression, pose) if faces else None


def heldout_pairs(count: int, analyzer: FaceAnalyzer) -> list[Pair]:
    """Two random frames of each of the first `count` held-out identities in which both faces are found."""
    pairs, seed = [], FIRST_IDENTITY["heldout"]
    while len(pairs) < count:
        identity, rng = make_identity(seed), np.random.default_rng([seed, 1])
        seed += 1
        shots = [shoot(identity, random_expression(rng), random_pose(rng), analyzer) for _ in range(2)]
        if all(shots):
            pairs.append(Pair(identity, *shots, truth=shots[1].frame))
    return pairs


@dataclass(frozen=True)
class Prepared:
    """A reference as the networks take it; shape: for models whose condition pictures show the face."""

    reference: Reference
    shape: FaceShape | None


@dataclass
class Bench:
    """A model and the held-out identities it is measured on.

    steps and guidance: the release's own (the page's defaults) if not given. basis: of the model's condition
    pictures, None if they show the square on the head alone.
    """

    pipeline: HelloMemePipeline
    release: Release
    analyzer: FaceAnalyzer
    identities: int = 64
    steps: int | None = None
    guidance: float | None = None
    basis: FaceBasis | None = None

    def __post_init__(self):
        if self.identities < FEWEST:
            raise HelloMemeError(
                f"{self.identities} identities are too few to measure on: give at least {FEWEST}."
            )
        self.settings = Settings(steps=self.steps, guidance=self.guidance).resolved(self.release)

    @classmethod
    def of(cls, name: str, analyzer: FaceAnalyzer, *args, **more) -> Bench:
        """A bench for the release or model folder `name`; raises HelloMemeError where it cannot be loaded."""
        pipeline, emotion_encoder, release = load(name)
        if emotion_encoder is not None:
            raise HelloMemeError(
                f"{name} takes emotion codes: only models that take ARKit coefficients are measured."
            )
        return cls(pipeline, release, analyzer, *args, basis=face_basis(release), **more)

    @cached_property
    def pairs(self) -> list[Pair]:
        return heldout_pairs(self.identities, self.analyzer)

    @cached_property
    def reenactor(self) -> Reenactor:
        return Reenactor(self.pipeline, self.release, analyzer=self.analyzer, basis=self.basis)

    def small(self, frames) -> np.ndarray:
        """Frames (256, 256, 3) to pictures (N, S, S, 3) uint8 of the model's size."""
        return np.stack([WHOLE.apply(frame, self.release.size) for frame in frames])

    def encode(self, picture: np.ndarray) -> torch.Tensor:
        """(S, S, 3) uint8 to scaled latents (1, C, h, w)."""
        return self.pipeline.encode(to_tensor(picture[None]))

    def reconstruct(self, pictures: np.ndarray) -> np.ndarray:
        """(N, S, S, 3) uint8 through the autoencoder and back: about the best that can be drawn."""
        decoded = [self.pipeline.decode(self.encode(picture)[:, :, None])[0, :, 0] for picture in pictures]
        return to_images(2 * torch.stack(decoded) - 1)

    def prepare(self, shot: Shot) -> Prepared:
        """A whole frame as the reference."""
        reference = self.pipeline.prepare_reference(self.encode(self.small([shot.frame])[0]))
        return Prepared(reference, None if self.basis is None else FaceShape.of(shot.face, self.basis))

    def draw(self, prepared: Prepared, motion: Motion, steps: int | None = None) -> np.ndarray:
        """(S, S, 3) uint8: the reference with a motion of one frame, always from the same noise."""
        result = self.pipeline(
            prepared.reference,
            condition=condition_tensor(motion, self.release.condition_size, prepared.shape)[None],
            drive_coeff=torch.from_numpy(motion.blendshapes)[None],
            num_inference_steps=steps or self.settings.steps,
            guidance_scale=self.settings.guidance,
            generator=torch.Generator().manual_seed(self.settings.seed),
        )
        return np.asarray(result.frames[0])

    def reenact(self, pairs: list[Pair], steps: int | None = None) -> np.ndarray:
        """(N, S, S, 3) uint8: every reference with its driver's motion, in the driver's own frame
        (no crop)."""
        return np.stack(
            [self.draw(self.prepare(pair.reference), pair.driver.motion, steps) for pair in pairs]
        )

    def through_the_page(self, pairs: list[Pair]) -> np.ndarray:
        """(N, S, S, 3) uint8: every reference with its driver, as the page draws them."""
        pictures = []
        for pair in pairs:
            self.reenactor.set_reference(pair.reference.frame)
            pictures.append(np.asarray(self.reenactor.image(pair.driver.frame, self.settings).picture))
        return np.stack(pictures)


# Measures


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two (H, W, 3) uint8 pictures."""
    return structural_similarity(a, b, channel_axis=2)


def likeness(pictures: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean PSNR in dB and SSIM of (N, H, W, 3) uint8 pictures."""
    return {
        "psnr": psnr(pictures, truth).mean(),
        "ssim": np.mean([ssim(a, b) for a, b in zip(pictures, truth, strict=True)]),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 where one side never changes."""
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 1e-6 else 0.0


def read_back(pictures: np.ndarray, analyzer: FaceAnalyzer) -> list[Face | None]:
    """The largest face of each picture, or None."""
    found = (analyzer.faces(picture) for picture in pictures)
    return [faces[0] if faces else None for faces in found]


def control(face: Face, name: str) -> float:
    """What MediaPipe reads of one of FOLLOWED, 0..1 (of OPPOSED, -1..1), or of ANGLES, in degrees."""
    if name in ANGLES:
        return float(to_angles(face.rotation)[ANGLES.index(name)])
    value = np.mean([face.blendshapes[INDEX[part]] for part in FOLLOWED[name]])
    return float(
        value - (np.mean([face.blendshapes[INDEX[part]] for part in OPPOSED[name]]) if name in OPPOSED else 0)
    )


def follow(faces: list[Face | None], drivers: list[Face]) -> dict[str, float]:
    """Share of pictures with a face, distances and correlations between driver and picture, as MediaPipe
    reads both.

    aed: mean absolute difference of the 51 coefficients. apd: mean absolute difference of the angles,
    degrees. All but the share are over the pictures with a face.
    """
    figures = {"faces": sum(face is not None for face in faces) / len(faces)}
    seen = [(face, driver) for face, driver in zip(faces, drivers, strict=True) if face is not None]
    if len(seen) < FEWEST:
        return figures
    figures["aed"] = np.mean([np.abs(face.blendshapes - driver.blendshapes).mean() for face, driver in seen])
    figures["apd"] = np.mean(
        [np.abs(to_angles(face.rotation) - to_angles(driver.rotation)).mean() for face, driver in seen]
    )
    for name in (*ANGLES, *FOLLOWED):
        ours, theirs = np.array([(control(face, name), control(driver, name)) for face, driver in seen]).T
        figures[name] = correlation(ours, theirs)
    return figures


# The table


def reenactment(bench: Bench, pairs: list[Pair]) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    """Figures of the model, of its ceiling and of what needs no model; and the pictures (N, S, S, 3) they are
    of.

    The ceiling is the truth through the autoencoder. Without a model: the reference copied, and the reference
    warped from its landmarks to the driver's. All are compared with the truth and the driver.
    """
    drivers, truth = [pair.driver.face for pair in pairs], bench.small(pair.truth for pair in pairs)
    warps = (warped(p.reference.frame, p.reference.face.landmarks, p.driver.face.landmarks) for p in pairs)
    pictures = {
        "copied reference": bench.small(pair.reference.frame for pair in pairs),
        "warped reference": bench.small(warps),
        "model": bench.reenact(pairs),
        "autoencoder alone": bench.reconstruct(truth),
    }
    figures = {
        name: likeness(images, truth) | follow(read_back(images, bench.analyzer), drivers)
        for name, images in pictures.items()
    }
    page = bench.through_the_page(pairs)
    figures["as on the page"] = follow(read_back(page, bench.analyzer), drivers)
    return figures, pictures | {"as on the page": page, "truth": truth}


def as_table(figures: dict[str, dict]) -> str:
    """The figures as a Markdown table, one column to a row of `figures`."""

    def cell(value: float | None) -> str:
        return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"

    lines = [f"| | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    for name in dict.fromkeys(name for column in figures.values() for name in column):
        lines.append(f"| {name} | {' | '.join(cell(column.get(name)) for column in figures.values())} |")
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure: the arguments of `Bench.of`."""
    parser.add_argument("--release", default="demo", help="name of a release or a model folder")
    parser.add_argument("--identities", type=int, default=64)
    parser.add_argument("--steps", type=int, help="denoising steps; the page's default if not given")
    parser.add_argument("--guidance", type=float, help="guidance scale; the page's default if not given")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--grid", type=Path, help="also write rows of reference, output and truth to this picture"
    )
    args = parser.parse_args()
    with FaceAnalyzer() as analyzer:
        try:
            bench = Bench.of(args.release, analyzer, args.identities, args.steps, args.guidance)
        except HelloMemeError as error:
            parser.error(str(error))
        figures, pictures = reenactment(bench, bench.pairs)
    print(as_table(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    if args.grid:
        from PIL import Image

        rows = [pictures[name][:12] for name in ("copied reference", "warped reference", "model", "truth")]
        Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(args.grid)


if __name__ == "__main__":
    main()
