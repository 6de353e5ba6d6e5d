"""Gap filling and smoothing of a motion: interpolation, and a One-Euro filter without lag."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from .motion import Motion

MIN_CUTOFF = 0.5  # Hz: cutoff at speed 0 and strength 1; at strength s it is MIN_CUTOFF / s
# Beta of the One-Euro filter: Hz of cutoff per unit of speed. Units per second: the range of a blendshape;
# radians; half sides of the pose square; logarithm of the scale; standard deviations of a code.
BETA = {"blendshapes": 6.0, "rotation": 10.0, "origin": 6.0, "scale": 10.0, "codes": 2.0}
COLUMNS = 128  # of a code that are filtered at once
SPEED_CUTOFF = 1.0  # Hz: of the speed that `LiveSmoother` measures, as in the paper
LONGEST_GAP = 1.0  # s: after a longer one `LiveSmoother` begins anew
SPEED_WINDOW = 0.04  # s: standard deviation of the Gaussian, and half width of the maximum, of a speed


def bridged(motion: Motion) -> Motion:
    """The motion with frames that are not `valid` interpolated between the nearest valid frames. Frames
    before the first and after the last valid one repeat its values."""
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
        **{name: mixed(code) for name, code in motion.codes.items()},
    )


def smoothed(motion: Motion, rate: float, strength: float) -> Motion:
    """The motion without jitter. rate: frames per second. strength: 0 (unchanged) to 1.

    Rotations are filtered as rotation vectors from their mean, scales as logarithms, and origins in units of
    the mean scale.
    """
    if strength == 0 or len(motion) < 3:
        return motion
    size = np.exp(np.log(motion.scale).mean())

    def filtered(name: str, values: np.ndarray) -> np.ndarray:
        return one_euro(values, rate, MIN_CUTOFF / strength, BETA[name])

    rotation = Rotation.from_matrix(motion.rotation)
    mean = rotation.mean()
    turns = filtered("rotation", (mean.inv() * rotation).as_rotvec())

    def calmed(code: np.ndarray) -> np.ndarray:
        result = np.empty((len(code), code[0].size), np.float32)
        for start in range(0, result.shape[1], COLUMNS):  # some at a time: the filter needs several copies
            columns = slice(start, start + COLUMNS)
            values = code.reshape(result.shape)[:, columns]
            spread = values.std(0) + 1e-6
            result[:, columns] = filtered("codes", values / spread) * spread
        return result.reshape(code.shape)

    return replace(
        motion,
        blendshapes=np.clip(filtered("blendshapes", motion.blendshapes), 0, 1).astype(np.float32),
        rotation=(mean * Rotation.from_rotvec(turns)).as_matrix(),
        origin=filtered("origin", motion.origin / size) * size,
        scale=np.exp(filtered("scale", np.log(motion.scale)[:, None])[:, 0]),
        **{name: calmed(code) for name, code in motion.codes.items()},
    )


def one_euro(values: np.ndarray, rate: float, cutoff: float, beta: float) -> np.ndarray:
    """One-Euro filter (Casiez et al. 2012) of (T, D) values at `rate` per second, without lag.

    A low-pass filter with a cutoff of `cutoff + beta * speed` Hz. It differs from the paper in two ways,
    since the whole clip is known: the speed is the maximum around each frame, so that a blink passes at its
    turning point too, and a forward and a backward pass are averaged.
    """
    values = np.asarray(values, float)
    deviation = SPEED_WINDOW * rate  # frames
    velocity = gaussian_filter1d(
        np.gradient(values, axis=0) * rate,
        max(deviation, 1e-3),
        axis=0,
        mode="nearest",
        radius=max(math.ceil(2 * deviation), 1),
    )
    speed = maximum_filter1d(np.abs(velocity), 2 * max(round(deviation), 1) + 1, axis=0, mode="nearest")
    omega = 2 * np.pi * (cutoff + beta * speed) / rate  # radians per frame
    alpha = omega / (1 + omega)
    return (_low_pass(values, alpha) + _low_pass(values[::-1], alpha[::-1])[::-1]) / 2


def _low_pass(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Exponential smoothing of (T, D) values. alpha: (T, D); SciPy's filters have constant factors."""
    result = values.copy()
    for t in range(1, len(values)):
        result[t] = result[t - 1] + alpha[t] * (values[t] - result[t - 1])
    return result


class LiveSmoother:
    """The One-Euro filter of Casiez et al. (2012) for motions of one frame each, as they come.

    It lags a little where a face moves slowly, and hardly where it moves fast. Blendshapes and rotation are
    filtered; codes are not.
    """

    def __init__(self, strength: float):
        """strength: 0 (unchanged) to 1, as for `smoothed`."""
        self.strength = strength
        self.reset()

    def reset(self) -> None:
        """Forget what was before."""
        self._time: float | None = None

    def __call__(self, motion: Motion, seconds: float) -> Motion:
        """motion: one frame. seconds: when it was, on any clock."""
        passed = None if self._time is None else seconds - self._time
        if self.strength == 0 or passed is None or not 0 < passed < LONGEST_GAP:
            self._velocity = {"blendshapes": 0.0, "rotation": 0.0}
            result = motion
        else:
            last = Rotation.from_matrix(self._last.rotation)
            turn = (last.inv() * Rotation.from_matrix(motion.rotation)).as_rotvec()
            change = motion.blendshapes - self._last.blendshapes
            result = replace(
                motion,
                blendshapes=self._last.blendshapes + self._share("blendshapes", change, passed) * change,
                rotation=(
                    last * Rotation.from_rotvec(self._share("rotation", turn, passed) * turn)
                ).as_matrix(),
            )
        self._time, self._last = seconds, result
        return result

    def _share(self, name: str, change: np.ndarray, passed: float) -> np.ndarray:
        """How much of a change since the last result is taken over, 0 to 1, as an array like it."""
        share = _factor(SPEED_CUTOFF, passed)
        self._velocity[name] += share * (change / passed - self._velocity[name])
        cutoff = MIN_CUTOFF / self.strength + BETA[name] * np.abs(self._velocity[name])
        return _factor(cutoff, passed).astype(change.dtype)


def _factor(cutoff: float | np.ndarray, passed: float) -> np.ndarray:
    """The factor of a low-pass filter with a cutoff in Hz, for `passed` seconds."""
    omega = 2 * np.pi * np.asarray(cutoff) * passed
    return omega / (1 + omega)
