"""Fits the basis from coefficients to landmarks (`hellomeme.face.drawing.FaceBasis`) to labelled frames.

In half sides of the pose square, a landmark as seen in a frame is the first two rows of the head's rotation
times (shape of the person + sum of coefficients * displacements). With the rotation known this is linear in
shapes and displacements, which are solved for in turn. Each frame counts twice, with the coefficients as
detected and as commanded: drivers give the one kind, sliders the other, and the detector cannot read some
commands.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.drawing import PARTS, POINTS, ROWS, FaceBasis, FaceShape
from hellomeme.face.motion import FRAME, Motion
from training.dataset import Frames

ROUNDS = 8
RIDGE = 3.0  # on displacements, in frames in which a coefficient is fully on
SHAPE_RIDGE = 0.3  # on the difference between a person's shape and the mean, in frames


def fit(frames: Frames) -> FaceBasis:
    """The basis closest to the landmarks of all frames with a face, in the sense of regularised least
    squares."""
    commanded = frames.calibrated()[frames.found].astype(float)
    frames = frames.only(frames.found)
    seen = frames.landmarks[:, POINTS] * FRAME - frames.origin[:, None]
    seen = seen / frames.scale[:, None, None] * (1, -1)  # (N, P, 2), x right, y up
    rotation = frames.rotation[:, :2].astype(float)  # (N, 2, 3)
    persons, person = np.unique(frames.identity, return_inverse=True)
    # The mean shape is the displacement of a coefficient that is always 1.
    codes = [np.insert(code.astype(float), 0, 1, axis=1) for code in (frames.blendshapes, commanded)]
    design = [np.einsum("nk,nad->nakd", code, rotation).reshape(2 * len(code), -1) for code in codes]
    ridge = np.repeat([1e-6] + [RIDGE] * (codes[0].shape[1] - 1), 3)
    normal = sum(matrix.T @ matrix for matrix in design) + np.diag(ridge)  # (52 * 3,)²
    grams = np.zeros((len(persons), 3, 3))  # normal matrices of the persons' shapes
    np.add.at(grams, person, np.einsum("nad,nae->nde", rotation, rotation))

    own = np.zeros((len(persons), len(POINTS), 3))  # a person's shape less the mean
    for _ in range(ROUNDS):
        rest = seen - own[person] @ rotation.transpose(0, 2, 1)
        flat = rest.transpose(0, 2, 1).reshape(2 * len(rest), -1)  # (2N, P)
        right = sum(matrix.T @ flat for matrix in design)  # (52 * 3, P)
        solved = np.zeros_like(right)
        for points, free in one_sided():
            free = np.repeat(np.insert(free, 0, True), 3)
            solved[np.ix_(free, points)] = np.linalg.solve(normal[np.ix_(free, free)], right[free][:, points])
        table = solved.reshape(-1, 3, len(POINTS)).transpose(0, 2, 1)  # (52, P, 3)
        moved = np.einsum("nk,kpd->npd", sum(codes) / len(codes), table, optimize=True)
        missed = np.zeros_like(own)
        np.add.at(missed, person, (seen - moved @ rotation.transpose(0, 2, 1)) @ rotation)
        own = np.linalg.solve(grams + SHAPE_RIDGE * np.eye(3), missed.transpose(0, 2, 1)).transpose(0, 2, 1)
    mean, displacements = table[0], table[1:]
    return FaceBasis(mean.astype(np.float32), displacements.astype(np.float32))


def one_sided() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of POINTS, and which of the 51 coefficients (51,) bool may move them.

    The eye and the brow of one side are moved by the coefficients of that side alone. The detector reads half
    a wink of the open eye as well, and without this a wink would be drawn with both eyes half closed.
    """
    upper = np.array([name.startswith(("eye", "brow")) for name in ARKIT_NAMES])
    rest = np.ones(len(POINTS), bool)
    for number, (side, other) in enumerate((("right", "Left"), ("left", "Right"))):
        points = np.concatenate(
            [ROWS[f"{side} eye"], ROWS[f"{side} brow"], ROWS["irises"][number : number + 1]]
        )
        rest[points] = False
        yield points, ~(upper & np.array([name.endswith(other) for name in ARKIT_NAMES]))
    yield np.flatnonzero(rest), np.ones(len(ARKIT_NAMES), bool)


def errors(basis: FaceBasis, frames: Frames, coefficients: np.ndarray) -> dict[str, float]:
    """Mean distance, in px of the 512 px crop, between landmarks as detected and as the basis places them.

    By part of the face, one of PARTS. Each person's shape is estimated from another of their frames.
    coefficients: (N, 51), of the frames.
    """
    truth = frames.landmarks[:, POINTS] * FRAME
    distance = []
    for group in frames.by_identity():
        for n, m in zip(group, np.roll(group, 1), strict=True):
            f, moment = frames, slice(n, n + 1)
            shape = basis.neutral(truth[m], f.blendshapes[m], f.rotation[m], f.origin[m], f.scale[m])
            motion = Motion(
                coefficients[moment], f.rotation[moment], f.origin[moment], f.scale[moment], f.found[moment]
            )
            drawn = FaceShape(basis, shape).landmarks(motion)[0]
            distance.append(np.linalg.norm(drawn - truth[n], axis=1))
    return {part: float(np.mean(distance, axis=0)[ROWS[part]].mean()) for part in PARTS}
