"""Conditions of training frames, drawn exactly as inference draws them, with the errors that inference makes.

The reference's neutral shape is estimated from the reference frame alone. The coefficients come, in equal
parts, from the target frame as MediaPipe reads it; from a frame in which somebody else performs the same, as
of a driver; and from what the renderer was given, as from sliders.
"""

from __future__ import annotations

import numpy as np
import torch

from hellomeme.face.conditions import condition_tensor
from hellomeme.face.drawing import POINTS, FaceBasis, FaceShape
from hellomeme.face.motion import FRAME, Motion
from training.dataset import Frames

SOURCES = OWN, OTHER, COMMANDED = range(3)  # of a target's coefficients and rotation


class DrivenFrames:
    """Frames as references and drivers of one another. size: px, side of the condition pictures."""

    def __init__(self, frames: Frames, basis: FaceBasis, size: int) -> None:
        self.frames, self.basis, self.size = frames, basis, size
        self.calibrated, self.twins = frames.calibrated(), frames.twins()
        self.landmarks = frames.landmarks[:, POINTS] * FRAME

    def shape(self, reference: int) -> FaceShape:
        """The shape of a face as it is estimated from one frame, by index."""
        f, i = self.frames, reference
        neutral = self.basis.neutral(
            self.landmarks[i], f.blendshapes[i], f.rotation[i], f.origin[i], f.scale[i]
        )
        return FaceShape(self.basis, neutral)

    def motion(
        self, targets: np.ndarray, sources: np.ndarray, rng: np.random.Generator | None = None
    ) -> Motion:
        """The motion of frames (T,), by index, each from its source (T,), one of SOURCES.

        Every head stays in the target's place. rng: chooses among those who perform the same, where a source
        is OTHER; a frame that nobody else performs is its own driver.
        """
        f, drivers = self.frames, targets.copy()
        for i in np.flatnonzero(sources == OTHER):
            if len(self.twins[targets[i]]):
                drivers[i] = rng.choice(self.twins[targets[i]])
        commanded = (sources == COMMANDED)[:, None]
        return Motion(
            np.where(commanded, self.calibrated[targets], f.blendshapes[drivers]),
            f.rotation[drivers].astype(float),
            f.origin[targets].astype(float),
            f.scale[targets].astype(float),
            f.found[targets],
        )

    def conditions(
        self,
        references: np.ndarray,
        targets: np.ndarray,
        sources: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """What the control nets see of targets (B, T), drawn with the shapes of references (B,).

        sources: (B, T), see `motion`; the targets themselves if not given. Returns poses (B, 3, T, S, S) in
        [-1, 1] and coefficients (B, T, 51).
        """
        sources = np.full(targets.shape, OWN) if sources is None else sources
        motions = [self.motion(*row, rng) for row in zip(targets, sources, strict=True)]
        shapes = map(self.shape, references)
        poses = [condition_tensor(m, self.size, shape) for m, shape in zip(motions, shapes, strict=True)]
        coefficients = np.stack([motion.blendshapes for motion in motions])
        return dict(poses=torch.stack(poses), coefficients=torch.from_numpy(coefficients))
