"""What MediaPipe reads of pictures, and how well it follows what it reads of their drivers."""

from __future__ import annotations

import numpy as np

from hellomeme.evaluation.reading import expression_distance, pose_distance
from hellomeme.face.arkit import INDEX
from hellomeme.face.detect import Face, FaceAnalyzer
from hellomeme.face.rotation import to_angles

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
    figures["aed"] = np.mean([expression_distance(a.blendshapes, b.blendshapes) for a, b in seen])
    figures["apd"] = np.mean([pose_distance(a.rotation, b.rotation) for a, b in seen])
    for name in (*ANGLES, *FOLLOWED):
        ours, theirs = np.array([(control(face, name), control(driver, name)) for face, driver in seen]).T
        figures[name] = correlation(ours, theirs)
    return figures
