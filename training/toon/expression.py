"""Random ARKit expressions and head poses."""

import numpy as np
from numpy.typing import ArrayLike

from hellomeme.face.arkit import ARKIT_NAMES, INDEX
from training.toon.camera import Pose


def coefficients(named: dict[str, float]) -> np.ndarray:
    """(51,) float32 from ARKit names, 0 for those left out; a name without a side means both sides."""
    values = np.zeros(len(ARKIT_NAMES), np.float32)
    for name, value in named.items():
        for full in (name,) if name in INDEX else (name + "Left", name + "Right"):
            values[INDEX[full]] = value
    return values


def random_expression(rng: np.random.Generator) -> np.ndarray:
    """(51,) float32 blendshapes in [0, 1]: one mood of mouth, eyes and brows each, and a gaze."""
    e = dict.fromkeys(ARKIT_NAMES, 0.0)

    def both(name: str, value: float, asymmetric: float = 0.15) -> None:
        uneven = rng.random() < asymmetric
        for side in ("Left", "Right"):
            e[name + side] = value * (rng.uniform(0, 1) if uneven else rng.uniform(0.93, 1.0))

    if rng.random() < 0.55:
        e["jawOpen"] = rng.uniform(0, 1)
    mouth = rng.random()
    if mouth < 0.40:
        both("mouthSmile", rng.uniform(0.15, 1))
    elif mouth < 0.55:
        both("mouthFrown", rng.uniform(0.2, 1))
    elif mouth < 0.68:
        e["mouthPucker"] = rng.uniform(0.3, 1)
        e["jawOpen"] *= 0.4
    elif mouth < 0.78:
        e["mouthFunnel"] = rng.uniform(0.3, 1)
        e["jawOpen"] = max(e["jawOpen"], 0.15)
    if rng.random() < 0.15:
        e["mouthLeft" if rng.random() < 0.5 else "mouthRight"] = rng.uniform(0.2, 1)

    lids = rng.random()
    if lids < 0.22:
        both("eyeBlink", rng.uniform(0.6, 1), 0.3)
    elif lids < 0.34:
        both("eyeBlink", rng.uniform(0, 0.6))
    elif lids < 0.50:
        both("eyeWide", rng.uniform(0.3, 1), 0.05)
    elif lids < 0.65:
        both("eyeSquint", rng.uniform(0.3, 1), 0.05)

    brows = rng.random()
    if brows < 0.20:
        both("browDown", rng.uniform(0.3, 1))
    elif brows < 0.40:
        e["browInnerUp"] = rng.uniform(0.3, 1)
    if 0.30 < brows < 0.55:
        both("browOuterUp", rng.uniform(0.3, 1), 0.25)
    if rng.random() < 0.08:
        e["cheekPuff"] = rng.uniform(0.4, 1)
        e["jawOpen"] *= 0.2

    if rng.random() < 0.7:
        look(e, *np.clip(rng.normal(0, 0.45, 2), -1, 1) * (1, 0.8))
    return np.clip([e[name] for name in ARKIT_NAMES], 0, 1).astype(np.float32)


def strong_expression(rng: np.random.Generator) -> np.ndarray:
    """(51,) float32: one clear expression, such as a wink, a kiss or a grin, over a face otherwise at rest.

    `random_expression` seldom closes one eye alone or puckers fully, and then with much else going on.
    """
    e = dict.fromkeys(ARKIT_NAMES, 0.0)

    def both(name: str, value: float) -> None:
        for side in ("Left", "Right"):
            e[name + side] = value * rng.uniform(0.9, 1.0)

    strength = rng.uniform(0.7, 1)
    kind = rng.choice(
        ("wink", "kiss", "grin", "sad", "angry", "surprised", "asleep", "look", "talk", "one brow")
    )
    side = "Left" if rng.random() < 0.5 else "Right"
    if kind == "wink":
        e["eyeBlink" + side] = rng.uniform(0.85, 1)
        if rng.random() < 0.6:
            both("mouthSmile", strength)
        if rng.random() < 0.3:
            e["eyeSquint" + side] = e["cheekSquint" + side] = strength
    elif kind == "kiss":
        e["mouthPucker"] = strength
        if rng.random() < 0.5:
            both("eyeBlink", rng.uniform(0.7, 1))
    elif kind == "grin":
        both("mouthSmile", strength)
        e["jawOpen"] = rng.uniform(0, 1) * (rng.random() < 0.7)
    elif kind == "sad":
        both("mouthFrown", strength)
        e["browInnerUp"] = strength * (rng.random() < 0.7)
    elif kind == "angry":
        both("browDown", strength)
        both("mouthFrown", strength * (rng.random() < 0.6))
        both("eyeSquint", strength * (rng.random() < 0.4))
    elif kind == "surprised":
        e["browInnerUp"] = strength
        both("browOuterUp", strength)
        both("eyeWide", strength * (rng.random() < 0.7))
        e["jawOpen"] = rng.uniform(0.3, 1) * (rng.random() < 0.7)
    elif kind == "asleep":
        both("eyeBlink", rng.uniform(0.85, 1))
    elif kind == "look":
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1)
        look(e, far * np.cos(angle), far * np.sin(angle))
    elif kind == "talk":
        e["jawOpen"] = rng.uniform(0.2, 1)
        e["mouthFunnel"] = strength * (rng.random() < 0.4)
    else:
        e["browOuterUp" + side] = strength
        e["browDown" + ("Right" if side == "Left" else "Left")] = strength * (rng.random() < 0.5)
    return np.clip([e[name] for name in ARKIT_NAMES], 0, 1).astype(np.float32)


def look(e: dict, right: float, up: float) -> None:
    """Point both eyes of the expression `e` (name -> value); `right` is the image's right, so the head's
    left."""
    e["eyeLookOutLeft"] = e["eyeLookInRight"] = max(right, 0)
    e["eyeLookInLeft"] = e["eyeLookOutRight"] = max(-right, 0)
    for side in ("Left", "Right"):
        e["eyeLookUp" + side], e["eyeLookDown" + side] = max(up, 0), max(-up, 0)


def random_pose(rng: np.random.Generator) -> Pose:
    """Mostly frontal heads: standard deviations of 17, 10 and 7 degrees, yaw within 38 degrees."""
    return Pose(
        yaw=float(np.clip(rng.normal(0, 17), -38, 38)),
        pitch=float(np.clip(rng.normal(0, 10), -22, 22)),
        roll=float(np.clip(rng.normal(0, 7), -18, 18)),
        tx=rng.uniform(-0.06, 0.06),
        ty=rng.uniform(-0.05, 0.05),
        scale=rng.uniform(0.92, 1.08),
    )


class Controls:
    """An expression read by name: `controls["jawOpen"]`, and as (right, left) pairs:
    `controls.pair("mouthSmile")`. Right comes first because the head's right is at negative x."""

    def __init__(self, expression: ArrayLike) -> None:
        self.values = np.asarray(expression, float)

    def __getitem__(self, name: str) -> float:
        return float(self.values[INDEX[name]])

    def pair(self, name: str) -> tuple[float, float]:
        return self[name + "Right"], self[name + "Left"]
