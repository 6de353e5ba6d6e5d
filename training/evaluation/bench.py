"""A model on the bench: rendered pairs of identities it was never trained on, and what it draws of them."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from hellomeme.errors import HelloMemeError
from hellomeme.face.conditions import condition_tensor
from hellomeme.face.crop import Crop
from hellomeme.face.detect import Face, FaceAnalyzer
from hellomeme.face.drawing import FaceBasis, FaceShape
from hellomeme.face.motion import Motion
from hellomeme.inputs import Conditions
from hellomeme.pipeline import HelloMemePipeline, Reference
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import face_basis, load
from hellomeme.releases.table import Release
from hellomeme.settings import Settings
from training.dataset import CAST, FIRST_IDENTITY, RENDER_SIZE
from training.pictures import to_images, to_tensor
from training.readings import FEWEST
from training.toon import Identity, Pose, make_identity, random_expression, random_pose, render

WHOLE = Crop(0, 0, RENDER_SIZE)
KNOWN, UNSEEN = "the cast", "never trained on"  # whom figures are of


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
    first = FIRST_IDENTITY["heldout"]
    return random_pairs(count, ((seed, 1) for seed in itertools.count(first)), analyzer)


def cast_pairs(count: int, analyzer: FaceAnalyzer) -> list[Pair]:
    """Two random frames each of the gallery's characters, in turns, that no training has seen."""
    seeds = ((FIRST_IDENTITY["cast"] + number, turn) for turn in itertools.count(2) for number in CAST)
    return random_pairs(count, seeds, analyzer)


def random_pairs(count: int, seeds: Iterable[tuple[int, int]], analyzer: FaceAnalyzer) -> list[Pair]:
    """The first `count` pairs in which both faces are found. seeds: of who it is, and of what they do."""
    pairs = []
    for seed, performed in seeds:
        identity, rng = make_identity(seed), np.random.default_rng([seed, performed])
        shots = [shoot(identity, random_expression(rng), random_pose(rng), analyzer) for _ in range(2)]
        if all(shots):
            pairs.append(Pair(identity, *shots, truth=shots[1].frame))
        if len(pairs) == count:
            break
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

    def __post_init__(self) -> None:
        if self.identities < FEWEST:
            raise HelloMemeError(
                f"{self.identities} identities are too few to measure on: give at least {FEWEST}."
            )
        self.settings = Settings(steps=self.steps, guidance=self.guidance).resolved(self.release)

    @classmethod
    def of(cls, name: str, analyzer: FaceAnalyzer, *args, **more) -> Bench:
        """A bench for the release or model folder `name`; raises HelloMemeError where it cannot be loaded."""
        pipeline, encoders, release = load(name, dtype=torch.float32)  # the same on all processors
        if encoders.emotion is not None or encoders.face_parts is not None:
            raise HelloMemeError(
                f"{name} takes more than ARKit coefficients: only models that take these alone are measured."
            )
        return cls(pipeline, release, analyzer, *args, basis=face_basis(release), **more)

    @cached_property
    def pairs(self) -> list[Pair]:
        return heldout_pairs(self.identities, self.analyzer)

    @cached_property
    def reenactor(self) -> Reenactor:
        return Reenactor(self.pipeline, self.release, analyzer=self.analyzer, basis=self.basis)

    def small(self, frames: Iterable[np.ndarray]) -> np.ndarray:
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
        shape = None if self.basis is None else FaceShape.of(shot.face, self.basis)
        seen = self.conditions(shot.motion, shape) if self.release.reference_control else None
        latents = self.encode(self.small([shot.frame])[0])
        return Prepared(self.pipeline.prepare_reference(latents, conditions=seen), shape)

    def conditions(self, motion: Motion, shape: FaceShape | None) -> Conditions:
        """What the control nets see of a motion of one frame, for a face of this shape."""
        condition = condition_tensor(motion, self.release.condition_size, shape)[None]
        return Conditions(condition, torch.from_numpy(motion.blendshapes)[None])

    def draw(self, prepared: Prepared, motion: Motion, steps: int | None = None) -> np.ndarray:
        """(S, S, 3) uint8: the reference with a motion of one frame, always from the same noise."""
        asked = self.conditions(motion, prepared.shape)
        result = self.pipeline(
            prepared.reference,
            condition=asked.condition,
            drive_coeff=asked.drive_coeff,
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure: the arguments of `Bench.of`."""
    parser.add_argument("--release", default="demo", help="name of a release or a model folder")
    parser.add_argument("--identities", type=int, default=64)
    parser.add_argument("--steps", type=int, help="denoising steps; the page's default if not given")
    parser.add_argument("--guidance", type=float, help="guidance scale; the page's default if not given")
