"""Steady motion: frames without a face are bridged, and what trembles is smoothed without lagging behind."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from .motion import Motion

SLOWEST = 0.5  # Hz: cutoff for what stands still, at strength 1; at strength s it is SLOWEST / s
# Hz of cutoff per unit of speed, the beta of the One-Euro filter. Units: a blendshape's whole range a second;
# radians; half sides of the head's square; the code's own spread.
LIVELY = {"blendshapes": 6.0, "rotation": 10.0, "origin": 6.0, "scale": 10.0, "emotion": 2.0}
# s: standard deviation of the window in which a speed is measured, and how far around it counts
SPEED_SPAN = 0.04


def bridged(motion: Motion) -> Motion:
    """The motion with frames that are not `valid` interpolated between their neighbours on both sides; before
    the first and after the last valid frame that frame's values stand."""
    known = np.flatnonzero(motion.valid)
    if len(known) == len(motion):
        return motion
    frames = np.arange(len(motion))
    after = known[np.clip(np.searchsorted(known, frames), 0, len(known) - 1)]
    before = known[np.clip(np.searchsorted(known, frames, side="right") - 1, 0, len(known) - 1)]
    share = np.where(after > before, (frames - before) / np.maximum(after - before, 1), 0.0)

    def mixed(values: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        return (values[before] + weight * (values[after] - values[before])).astype(values.dtype)

    start = Rotation.from_matrix(motion.rotation[before])
    turn = (start.inv() * Rotation.from_matrix(motion.rotation[after])).as_rotvec()
    return replace(
        motion,
        blendshapes=mixed(motion.blendshapes),
        rotation=(start * Rotation.from_rotvec(share[:, None] * turn)).as_matrix(),
        origin=mixed(motion.origin),
        scale=mixed(motion.scale),
        emotion=None if motion.emotion is None else mixed(motion.emotion),
    )


def smoothed(motion: Motion, rate: float, strength: float) -> Motion:
    """The motion with its trembling taken out; `rate` in frames a second, `strength` 0 (untouched) to 1.

    Rotations are smoothed as turns from their mean, sizes as logarithms, places in units of the size.
    """
    if strength == 0 or len(motion) < 3:
        return motion
    size = np.exp(np.log(motion.scale).mean())

    def one(name: str, values: np.ndarray) -> np.ndarray:
        return one_euro(values, rate, SLOWEST / strength, LIVELY[name])

    rotation = Rotation.from_matrix(motion.rotation)
    middle = rotation.mean()
    turns = one("rotation", (middle.inv() * rotation).as_rotvec())
    emotion = motion.emotion
    if emotion is not None:
        spread = emotion.std(0) + 1e-6
        emotion = (one("emotion", emotion / spread) * spread).astype(np.float32)
    return replace(
        motion,
        blendshapes=np.clip(one("blendshapes", motion.blendshapes), 0, 1).astype(np.float32),
        rotation=(middle * Rotation.from_rotvec(turns)).as_matrix(),
        origin=one("origin", motion.origin / size) * size,
        scale=np.exp(one("scale", np.log(motion.scale)[:, None])[:, 0]),
        emotion=emotion,
    )


def one_euro(values: np.ndarray, rate: float, cutoff: float, beta: float) -> np.ndarray:
    """The One-Euro filter (Casiez et al. 2012) over (T, D) values at `rate` a second, run forwards and
    backwards.

    A low-pass whose cutoff in Hz is `cutoff + beta * speed`: what stands still is calmed, what moves is
    followed. As the whole clip is known, the speed is the highest just around each moment, so that a blink is
    let through at its turning point too, and the two runs are averaged: nothing lags.
    """
    values = np.asarray(values, float)
    deviation = SPEED_SPAN * rate  # frames
    velocity = gaussian_filter1d(
        np.gradient(values, axis=0) * rate,
        max(deviation, 1e-3),
        axis=0,
        mode="nearest",
        radius=max(math.ceil(2 * deviation), 1),
    )
    speed = maximum_filter1d(np.abs(velocity), 2 * max(round(deviation), 1) + 1, axis=0, mode="nearest")
    turn = 2 * np.pi * (cutoff + beta * speed) / rate
    alpha = turn / (1 + turn)
    return (_low_pass(values, alpha) + _low_pass(values[::-1], alpha[::-1])[::-1]) / 2


def _low_pass(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    result = values.copy()
    for t in range(1, len(values)):
        result[t] = result[t - 1] + alpha[t] * (values[t] - result[t - 1])
    return result
