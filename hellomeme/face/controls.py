"""Ten plain controls of a face: seven of the expression, each of which stands for several ARKit coefficients,
and the three turns of the head (`edit.TURNS`).

| control | above 0 | below 0 |
|---|---|---|
| smile | mouthSmile, both sides | mouthFrown, both sides |
| mouth_open | jawOpen | |
| blink_right, blink_left | eyeBlink of that eye | |
| brows | browInnerUp, browOuterUp on both sides | browDown, both sides |
| look_sideways (of the picture) | eyeLookOutLeft, eyeLookInRight | eyeLookInLeft, eyeLookOutRight |
| look_down | eyeLookDown, both eyes | eyeLookUp, both eyes |

"Left" of a coefficient is the person's own left, on the right of the picture.

>>> FACE_CONTROLS["smile"].coefficients(0.6)
{'mouthSmileLeft': 0.6, 'mouthSmileRight': 0.6, 'mouthFrownLeft': 0.0, 'mouthFrownRight': 0.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DIGITS = 2  # of values, as sliders show them


@dataclass(frozen=True)
class FaceControl:
    """A number from -1 to 1, or from 0 without `below`, that stands for ARKit coefficients.

    above, below: the coefficients that have its value above 0, and its negative value below 0; the others
    of them are then 0. label, help: texts.
    """

    label: str
    help: str
    above: tuple[str, ...]
    below: tuple[str, ...] = ()

    @property
    def lowest(self) -> float:
        return -1.0 if self.below else 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """All its ARKit coefficients."""
        return self.above + self.below

    def coefficients(self, value: float) -> dict[str, float]:
        """The values of its coefficients, 0..1, for a value of the control."""
        return dict.fromkeys(self.above, max(value, 0.0)) | dict.fromkeys(self.below, max(-value, 0.0))

    def value(self, coefficients: Mapping[str, float]) -> float:
        """The value of the control for coefficients by name, of which it takes means: the inverse of
        `coefficients` for its own results."""

        def mean(names: tuple[str, ...]) -> float:
            return sum(coefficients[name] for name in names) / len(names) if names else 0.0

        return round(mean(self.above) - mean(self.below), DIGITS)


def _both(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{side}" for name in names for side in ("Left", "Right"))


FACE_CONTROLS: dict[str, FaceControl] = {  # no coefficient is in two of them
    "smile": FaceControl(
        "Smile", "Below 0 the corners of the mouth drop.", _both("mouthSmile"), _both("mouthFrown")
    ),
    "mouth_open": FaceControl("Mouth open", "Lowers the jaw.", ("jawOpen",)),
    "blink_right": FaceControl("Blink, right eye", "Of the person: left in the picture.", ("eyeBlinkRight",)),
    "blink_left": FaceControl("Blink, left eye", "Of the person: right in the picture.", ("eyeBlinkLeft",)),
    "brows": FaceControl(
        "Brows",
        "Above 0 they rise, below 0 they are knit.",
        ("browInnerUp", *_both("browOuterUp")),
        _both("browDown"),
    ),
    "look_sideways": FaceControl(
        "Look sideways",
        "Above 0 to the right of the picture.",
        ("eyeLookOutLeft", "eyeLookInRight"),
        ("eyeLookInLeft", "eyeLookOutRight"),
    ),
    "look_down": FaceControl("Look up and down", "Above 0 down.", _both("eyeLookDown"), _both("eyeLookUp")),
}


def control_values(coefficients: Mapping[str, float]) -> dict[str, float]:
    """The value of each control for all 51 coefficients by name."""
    return {name: control.value(coefficients) for name, control in FACE_CONTROLS.items()}
