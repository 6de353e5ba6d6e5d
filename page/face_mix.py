"""Two faces of the Expression tab, and what a slider between them makes of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hellomeme.face import edit
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.edit import TURNS, Edit

NAMES = (*TURNS, *ARKIT_NAMES)  # of a face: the order of its values
CALM = (0.0,) * len(NAMES)
_LOWEST = [*(facts["min"] for facts in TURNS.values()), *[0.0] * len(ARKIT_NAMES)]
_HIGHEST = [*(facts["max"] for facts in TURNS.values()), *[edit.MOST] * len(ARKIT_NAMES)]
Face = Sequence[float]  # in the order of NAMES


@dataclass(frozen=True)
class FaceMix:
    """before: the face that the sliders showed when another was chosen; chosen: that other; shown: what they
    were set to last."""

    before: tuple[float, ...] = CALM
    chosen: tuple[float, ...] = CALM
    shown: tuple[float, ...] = CALM

    @classmethod
    def choose(cls, face: Face, now: Face) -> FaceMix:
        """For a face that the sliders now get, in place of what they show."""
        return cls(tuple(now), tuple(face), tuple(face))

    def mixed(self, share: float, now: Face) -> FaceMix:
        """With `share` of the chosen face, and the rest of the one before.

        now: what the sliders show. What somebody has moved by hand since stays moved, whatever the share.
        """
        by_hand = np.subtract(now, self.shown)
        before, chosen = (np.clip(face + by_hand, _LOWEST, _HIGHEST) for face in (self.before, self.chosen))
        mixture = edit_of(before).mixed(edit_of(chosen), share)
        return FaceMix(tuple(before.tolist()), tuple(chosen.tolist()), tuple(face_of(mixture)))


def edit_of(face: Face) -> Edit:
    return Edit.parse(dict(zip(NAMES, map(float, face), strict=True)))


def face_of(edited: Edit) -> list[float]:
    """The values, rounded for sliders."""
    return [round(edited.values[name], 2) for name in NAMES]
