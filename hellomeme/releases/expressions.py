"""Which presets of expressions a model draws, where somebody has measured it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from ..face.edit import PRESETS
from ..io.atomic import atomic_write
from .table import Release

FILE = "expression_presets.json"  # in a model folder
FORMAT = "hellomeme presets 1"
LEAST = 0.6  # of the change that the face reader sees where the toon renderer draws the preset


def drawn_presets(row: Release) -> tuple[str, ...]:
    """The presets that come over when a model draws them: those with a measured share of at least LEAST.

    Without a measurement in its folder, or with a damaged one, all of them: nothing is known against any.
    """
    measured: Mapping[str, float] = {}
    if row.root is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            facts = json.loads((row.root / FILE).read_text(encoding="utf-8"))
            if facts["format"] == FORMAT:
                measured = {name: float(share) for name, share in facts["presets"].items()}
    return tuple(name for name in PRESETS if measured.get(name, 1.0) >= LEAST)


def write_measured(folder: Path, shares: Mapping[str, float], portraits: int) -> Path:
    """Writes the measurement into a model folder, and returns its path.

    shares: by preset. portraits: how many they were measured on. Raises HelloMemeError if that fails.
    """
    facts = {"format": FORMAT, "portraits": portraits, "presets": dict(shares)}
    with atomic_write(folder / FILE, "measurement") as draft:
        draft.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder / FILE
