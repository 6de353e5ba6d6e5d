"""Retargeting: how the reference performs the driver's motion, absolute or relative, and in which region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import HelloMemeError
from ..settings import ClipSettings, Settings
from .arkit import ARKIT_NAMES
from .motion import Motion
from .rotation import ANGLES, from_angles, to_angles

# Which of the 51 blendshapes belong to a region
EYE_SHAPES = np.array([name.startswith(("eye", "brow")) for name in ARKIT_NAMES])
MOUTH_SHAPES = np.array([name.startswith(("mouth", "jaw", "cheekPuff", "nose")) for name in ARKIT_NAMES])
# The eyes' and the mouth's part of a code of `Motion`; in FanEncoder's, the mood is between them
CODES_EYES = {"emotion": slice(0, 6), "face_parts": slice(0, 2)}
CODES_MOUTH = {"emotion": slice(36, 548), "face_parts": slice(2, 3)}


def retarget(driver: Motion, reference: Motion, settings: Settings, clip: ClipSettings) -> Motion:
    """The driver's T frames as the reference (one frame) performs them: strengths, relative motion, region.

    Relative motion is reference + (driver - driver's neutral frame). Raises HelloMemeError for a neutral
    frame beyond the end of the clip.
    """
    neutral = 0
    if clip.relative:
        neutral = neutral_frame(driver) if clip.neutral is None else clip.neutral
        if neutral >= len(driver):
            raise HelloMemeError(
                f"Neutral frame {neutral} was asked for, but the clip has {len(driver)} frames: "
                f"choose a number from 0 to {len(driver) - 1}."
            )
        driver = relative(driver, reference, neutral)
    motion = driver.onto(reference, settings.expression, settings.head, settings.translation, since=neutral)
    return restricted(motion, reference, clip.region)


Limits = Mapping[str, tuple[float, float]]


def held_turns(motion: Motion, limits: Limits | None) -> tuple[Motion, tuple[str, ...]]:
    """The motion with each angle of the head held at the edge of its range, and the names of those that were.

    limits: "pitch", "yaw", "roll" -> lowest and highest, in degrees, as `rotation.to_angles` reads them, for
    models that were trained on a range of turns and draw anything beyond it badly; None for no limits.
    """
    if limits is None:
        return motion, ()
    angles = to_angles(motion.rotation)  # (T, 3)
    low, high = np.array([limits[name] for name in ANGLES]).T
    held = np.clip(angles, low, high)
    names = tuple(name for name, off in zip(ANGLES, (held != angles).any(0), strict=True) if off)
    if not names:
        return motion, names
    return replace(motion, rotation=np.stack([from_angles(*frame) for frame in held])), names


def neutral_frame(motion: Motion) -> int:
    """The index of the valid frame with the least expression and head rotation."""
    activity = motion.blendshapes.sum(1)
    angle = Rotation.from_matrix(motion.rotation).magnitude()
    score = sum(value / max(value.max(), 1e-6) for value in (activity, angle))
    return int(np.where(motion.valid, score, np.inf).argmin())


def relative(driver: Motion, reference: Motion, neutral: int) -> Motion:
    """The driver, shifted so that its neutral frame has the reference's expression and head rotation.
    Blendshapes may leave [0, 1]."""

    def shifted(values: np.ndarray, start: np.ndarray) -> np.ndarray:
        return start + (values - values[neutral : neutral + 1])

    return replace(
        driver,
        blendshapes=shifted(driver.blendshapes, reference.blendshapes),
        # The rotation since the neutral frame, in camera axes: a shake of the head stays level
        rotation=driver.rotation @ driver.rotation[neutral].T @ reference.rotation[0],
        **{name: shifted(code, reference.codes[name]) for name, code in driver.codes.items()},
    )


def restricted(motion: Motion, reference: Motion, region: str) -> Motion:
    """The motion in one region, and the reference's values elsewhere.

    region: "all", "expression", "head", "eyes" or "mouth".
    """
    if region == "all":
        return motion

    def still(value: np.ndarray) -> np.ndarray:
        return np.repeat(value, len(motion), 0)

    place = {name: still(getattr(reference, name)) for name in ("rotation", "origin", "scale")}
    blendshapes = still(reference.blendshapes)
    codes = {name: still(code) for name, code in reference.codes.items()}
    if region == "head":
        return replace(motion, blendshapes=blendshapes, **codes)
    if region == "expression":
        return replace(motion, **place)
    moving, parts = (EYE_SHAPES, CODES_EYES) if region == "eyes" else (MOUTH_SHAPES, CODES_MOUTH)
    for name, code in codes.items():
        code[:, parts[name]] = motion.codes[name][:, parts[name]]
    return replace(motion, blendshapes=np.where(moving, motion.blendshapes, blendshapes), **codes, **place)
