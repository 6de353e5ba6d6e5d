"""Cross-reenactment: the driver is somebody else. Does the drawn person stay who they are?

The truth is rendered: the reference's identity with the driver's coefficients and pose. How far identity
drifts is measured without a face recogniser (those are made for photographs, not for toons), on what makes a
toon recognisable: its colours outside the inner face, and the latents of the whole picture.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from skimage.color import rgb2lab

from hellomeme.face.detect import Face
from hellomeme.face.landmarks import BROWS, EYES, MOUTH
from training.dataset import RENDER_SIZE
from training.evaluation.bench import Bench, Pair
from training.toon import render

INNER_FACE = BROWS + EYES + MOUTH
QUANTILES = np.linspace(0, 1, 51)


def crossed(pairs: list[Pair]) -> list[Pair]:
    """Every reference with the driver of the next identity, and the truth as the renderer draws it."""
    drivers = [pair.driver for pair in pairs[1:] + pairs[:1]]
    return [
        replace(pair, driver=driver, truth=render(pair.identity, driver.expression, driver.pose, RENDER_SIZE))
        for pair, driver in zip(pairs, drivers, strict=True)
    ]


def colours(picture: np.ndarray, face: Face) -> np.ndarray:
    """(51 * 3,) quantiles of L, a and b over a picture (S, S, 3) without the inner face.

    face: in pixels of the 256 px frame that the picture is a smaller version of.
    """
    outside = np.ones(picture.shape[:2], np.uint8)
    points = face.landmarks[list(INNER_FACE)] * len(picture) / RENDER_SIZE
    cv2.fillConvexPoly(outside, cv2.convexHull(points.round().astype(np.int32)), 0)
    return np.quantile(rgb2lab(picture)[outside > 0], QUANTILES, axis=0).ravel()


def seen_by_autoencoder(bench: Bench, picture: np.ndarray) -> np.ndarray:
    """(2 * C,) mean and spread of each latent channel over a picture (S, S, 3): what is there, wherever it
    lies."""
    latents = bench.encode(picture)[0].flatten(1)
    return np.concatenate([latents.mean(1).numpy(), latents.std(1).numpy()])


def distances(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, M) mean absolute differences between features (N, D) and (M, D)."""
    return np.abs(features[:, None] - others[None]).mean(-1)


def drift(
    references: np.ndarray, outputs: np.ndarray, truth: np.ndarray, drivers: np.ndarray
) -> dict[str, float]:
    """Features (N, D) each, row i of one reenactment: how far outputs are from their references.

    self, output, driver: mean distance of truth, output and driver picture to the reference. drift: where the
    output lies between the two others, 0 as near as the truth and 1 as far as the other person. recognised:
    share of outputs (and of the truth) that are nearer to their own reference than to every other; chance is
    1 / N.
    """
    mean = {
        name: np.diag(distances(features, references)).mean()
        for name, features in (("self", truth), ("output", outputs), ("driver", drivers))
    }
    own = np.arange(len(references))
    recognised = {
        name: (distances(features, references).argmin(1) == own).mean()
        for name, features in (("recognised", outputs), ("truth recognised", truth))
    }
    return mean | {"drift": (mean["output"] - mean["self"]) / (mean["driver"] - mean["self"])} | recognised


def identity_drift(
    bench: Bench, pairs: list[Pair], outputs: np.ndarray, truth: np.ndarray
) -> dict[str, dict]:
    """`drift` of outputs (N, S, S, 3), by colours (in CIELAB units) and by the autoencoder."""
    references = bench.small(pair.reference.frame for pair in pairs)
    drivers = bench.small(pair.driver.frame for pair in pairs)
    # Output, truth and driver have their faces in the same place: the one that was asked for.
    faces = {"reference": [p.reference.face for p in pairs], "driver": [p.driver.face for p in pairs]}

    def by_colour(pictures: np.ndarray, who: str) -> np.ndarray:
        return np.stack([colours(picture, face) for picture, face in zip(pictures, faces[who], strict=True)])

    def by_autoencoder(pictures: np.ndarray, who: str) -> np.ndarray:
        return np.stack([seen_by_autoencoder(bench, picture) for picture in pictures])

    return {
        name: drift(
            *(
                features(pictures, who)
                for pictures, who in (
                    (references, "reference"),
                    (outputs, "driver"),
                    (truth, "driver"),
                    (drivers, "driver"),
                )
            )
        )
        for name, features in (("colours", by_colour), ("autoencoder", by_autoencoder))
    }
