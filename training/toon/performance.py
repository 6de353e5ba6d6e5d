"""What a toon does over time: single poses, or a clip that moves smoothly from one to the next."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from training.toon.camera import Pose
from training.toon.expression import random_expression, random_pose, strong_expression

Performance = list[tuple[np.ndarray, Pose]]  # expression (51,) in [0, 1] and head pose, one pair per frame


def random_stills(rng: np.random.Generator, frames: int) -> Performance:
    """Frames that have nothing to do with each other.

    A third of them show one clear expression; the first has a straight face three times out of ten.
    """
    performance = []
    for number in range(frames):
        strong = rng.random() < 1 / 3
        expression, pose = (strong_expression if strong else random_expression)(rng), random_pose(rng)
        if number == 0 and rng.random() < 0.3:
            expression = np.zeros_like(expression)
        performance.append((expression, pose))
    return performance


def random_clip(rng: np.random.Generator, frames: int) -> Performance:
    """A clip: random expressions and poses 6 to 24 frames apart, a quarter of a second to a whole one at 25
    frames a second, eased into one another, in one place."""
    keys = [0]
    while keys[-1] < frames:
        keys.append(keys[-1] + int(rng.integers(6, 25)))
    stops = [(random_expression(rng), random_pose(rng)) for _ in keys]
    place = stops[0][1]
    performance = []
    for frame in range(frames):
        i = int(np.searchsorted(keys, frame, side="right")) - 1
        t = (frame - keys[i]) / (keys[i + 1] - keys[i])
        ease = t * t * (3 - 2 * t)
        (expression, pose), (next_expression, next_pose) = stops[i], stops[i + 1]

        def between(a: ArrayLike, b: ArrayLike, ease: float = ease) -> np.ndarray:
            return a + ease * (b - a)

        turned = {
            name: between(getattr(pose, name), getattr(next_pose, name)) for name in ("yaw", "pitch", "roll")
        }
        performance.append((between(expression, next_expression), dataclasses.replace(place, **turned)))
    return performance
