"""Editing a face without a driver: blendshapes by their ARKit names, presets, and a turn of the head.

>>> reenactor.expression({"jawOpen": 0.7, "browInnerUp": 0.4}, Turn(yaw=20))
>>> reenactor.expression(preset("laugh"))

`face.controls` has ten plain controls that stand for the coefficients.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import HelloMemeError
from ..io.atomic import atomic_write
from ..settings import check, number
from .arkit import ARKIT_NAMES, INDEX
from .motion import Motion
from .rotation import from_angles, to_angles

MOST, STEP = 1.0, 0.01  # highest value and step of a slider; the lowest is 0
FORMAT = "hellomeme expression 1"
MAX_FILE_SIZE = 1 << 16  # bytes: a file has about 1,000


def _beginning(*starts: str) -> tuple[str, ...]:
    return tuple(name for name in ARKIT_NAMES if name.startswith(starts))


GROUPS: dict[str, tuple[str, ...]] = {  # each of the 51 names is in exactly one
    "brows": _beginning("brow"),
    "eyes": _beginning("eye"),  # lids and gaze
    "mouth": _beginning("mouth"),
    "jaw": _beginning("jaw"),
    "cheeks": _beginning("cheek", "nose"),
}


def _both(**values: float) -> dict[str, float]:
    return {f"{name}{side}": value for name, value in values.items() for side in ("Left", "Right")}


# All but zeros. "Left" is the person's own left, on the right of the picture
PRESETS: dict[str, dict[str, float]] = {
    "laugh": {
        "jawOpen": 0.6,
        "browInnerUp": 0.2,
        **_both(
            mouthSmile=0.95,
            mouthUpperUp=0.5,
            mouthLowerDown=0.4,
            cheekSquint=0.6,
            eyeSquint=0.6,
            eyeBlink=0.25,
        ),
    },
    "wink": {
        "eyeBlinkLeft": 0.95,
        "eyeSquintLeft": 0.7,
        "cheekSquintLeft": 0.6,
        "browDownLeft": 0.4,
        "mouthSmileLeft": 0.8,
        "mouthSmileRight": 0.4,
        "browOuterUpRight": 0.3,
    },
    "shocked": {
        "jawOpen": 0.75,
        "browInnerUp": 0.9,
        "mouthFunnel": 0.3,
        **_both(eyeWide=0.9, browOuterUp=0.85),
    },
    "kiss": {"mouthPucker": 0.95, "mouthFunnel": 0.2, "browInnerUp": 0.2, **_both(eyeBlink=0.8)},
    "sad": {
        "browInnerUp": 0.85,
        "mouthShrugLower": 0.6,
        **_both(mouthFrown=0.85, eyeLookDown=0.4, eyeSquint=0.3, eyeBlink=0.2),
    },
    "sceptical": {
        "browOuterUpLeft": 0.95,
        "browInnerUp": 0.2,
        "browDownRight": 0.8,
        "eyeSquintRight": 0.5,
        "eyeWideLeft": 0.2,
        "mouthLeft": 0.4,
        "mouthFrownRight": 0.3,
        **_both(mouthPress=0.5),
    },
}


@dataclass(frozen=True)
class Turn:
    """A rotation of the head from the reference's own pose, in degrees, about the axes of the camera.

    Angles out of range raise HelloMemeError.
    """

    yaw: float = number(
        float, 0.0, -60.0, 60.0, 1.0, "Yaw", "Above 0 the head turns to the right of the picture."
    )
    pitch: float = number(float, 0.0, -40.0, 40.0, 1.0, "Pitch", "Above 0 the head looks down.")
    roll: float = number(float, 0.0, -45.0, 45.0, 1.0, "Roll", "Above 0 the head tilts counter-clockwise.")

    def __post_init__(self):
        check(self)

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3): Rz(roll) Ry(yaw) Rx(pitch)."""
        return from_angles(self.pitch, self.yaw, self.roll)


TURNS = {field.name: field.metadata for field in dataclasses.fields(Turn)}  # name -> range and texts


@dataclass(frozen=True)
class Edit:
    """A complete description of an edited face.

    coefficients: 0..1 by ARKit name; names left out are 0. Raises HelloMemeError for other names or values.

    >>> reenactor.expression(edit.coefficients, edit.turn)
    """

    turn: Turn = Turn()
    coefficients: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self):
        checked = {name: _coefficient(name, value) for name, value in self.coefficients.items()}
        object.__setattr__(self, "coefficients", dict.fromkeys(ARKIT_NAMES, 0.0) | checked)

    @classmethod
    def of(cls, motion: Motion, turn: Turn) -> Edit:
        """The edit that gives the motion of `edited`, including the reference's own coefficients."""
        # 0.7, not 0.699999988079071
        shortest = (float(str(value)) for value in np.clip(motion.blendshapes[0], 0, MOST))
        return cls(turn, dict(zip(ARKIT_NAMES, shortest, strict=True)))

    @classmethod
    def parse(cls, values: Mapping[str, float]) -> Edit:
        """The inverse of `values`. Raises HelloMemeError for other names or values."""
        return cls(
            Turn(**{name: value for name, value in values.items() if name in TURNS}),
            {name: value for name, value in values.items() if name not in TURNS},
        )

    @property
    def values(self) -> dict[str, float]:
        """Yaw, pitch, roll (degrees) and the 51 coefficients by name."""
        return vars(self.turn) | self.coefficients

    def mixed(self, other: Edit, share: float) -> Edit:
        """(1 - share) of this face and `share` (0..1) of the other, for angles and coefficients alike."""
        mixture = {
            name: (1 - share) * value + share * other.values[name] for name, value in self.values.items()
        }
        return Edit.parse(mixture)

    def save(self, path: str | Path) -> None:
        """Writes a JSON file of the values that are not 0, atomically. Raises HelloMemeError if it fails."""
        values = {name: value for name, value in self.values.items() if value}
        with atomic_write(path, "expression") as draft:
            draft.write_text(json.dumps({"format": FORMAT, "values": values}, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Edit:
        """Reads a file of `save`. Raises HelloMemeError if it is missing, damaged or of another kind."""
        if not os.path.isfile(path):
            raise HelloMemeError(f"There is no expression at {path}: check the path.")
        try:
            if os.path.getsize(path) > MAX_FILE_SIZE:
                raise ValueError("too large")
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise ValueError("another format")
            return cls.parse(facts["values"])
        except (HelloMemeError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HelloMemeError(
                f"{Path(path).name} is not an expression of HelloMeme or is damaged: save one again in the "
                "Expression tab."
            ) from error


def preset(name: str) -> dict[str, float]:
    """The 51 coefficients of a preset by name; HelloMemeError for an unknown preset."""
    if name not in PRESETS:
        raise HelloMemeError(f"There is no preset called {name}: choose from {', '.join(PRESETS)}.")
    return dict.fromkeys(ARKIT_NAMES, 0.0) | PRESETS[name]


def start(motion: Motion) -> dict[str, float]:
    """The 51 coefficients of the first frame of a motion by name, rounded for sliders."""
    return {
        name: round(float(value), 2) for name, value in zip(ARKIT_NAMES, motion.blendshapes[0], strict=True)
    }


def turn(driver: Motion, reference: Motion) -> Turn:
    """The turn from the reference's head pose to the driver's, within the ranges of `Turn`."""
    angles = to_angles(driver.rotation[0] @ reference.rotation[0].T)
    return Turn(
        **{
            name: float(np.clip(round(angle, 1), TURNS[name]["min"], TURNS[name]["max"]))
            for name, angle in zip(("pitch", "yaw", "roll"), angles, strict=True)
        }
    )


def edited(
    reference: Motion, coefficients: Mapping[str, float] | np.ndarray | None = None, turn: Turn = Turn()
) -> Motion:
    """The reference's motion (one frame) with other coefficients and a turned head.

    coefficients: 0..1 by ARKit name, where names left out keep their values, or an array (51,). Raises
    HelloMemeError for other names, values or shapes.
    """
    if coefficients is None:
        coefficients = {}
    if not isinstance(coefficients, Mapping):
        array = np.asarray(coefficients)
        if array.shape != (len(ARKIT_NAMES),):
            raise HelloMemeError(
                f"The coefficients are an array of shape {array.shape}: give {len(ARKIT_NAMES)} "
                "numbers, or values by their ARKit names."
            )
        coefficients = dict(zip(ARKIT_NAMES, array.tolist(), strict=True))
    blendshapes = reference.blendshapes.copy()
    for name, value in coefficients.items():
        blendshapes[0, INDEX[name]] = _coefficient(name, value)
    return replace(reference, blendshapes=blendshapes, rotation=turn.matrix @ reference.rotation)


def _coefficient(name: str, value: object) -> float:
    """The value as a float; HelloMemeError for an unknown name or a value outside 0..1."""
    if name not in INDEX:
        raise HelloMemeError(
            f"There is no ARKit coefficient called {str(name)[:40]}: names are like jawOpen or "
            "mouthSmileLeft."
        )
    try:
        valid = not isinstance(value, (str, bytes, bool)) and 0 <= float(value) <= MOST
    except (TypeError, ValueError, OverflowError):
        valid = False
    if not valid:
        raise HelloMemeError(f"{name} must be a number from 0 to 1, not {str(value)[:40]}.")
    return float(value)
