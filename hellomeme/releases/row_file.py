"""The row of a saved pipeline, as a file beside its parts: `release.json`.

The file names the row of the table, which has the networks, and holds the rest of the row. It may come from
anybody: no class is taken from it, and every value is checked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import HelloMemeError
from .hub import download_again
from .table import FACE_BASIS, RELEASES, ClipSampler, Network, Release, Sampler, Source
from .weights import read_config

FILE, FORMAT, TYPES = "release.json", "hellomeme release 1", "expression_types"
INDEX = "model_index.json"  # of a saved pipeline
PLAIN = ("title", "size", "condition_size", "crop_scale", "steps", "guidance", "text_width", "turns")
PLAIN += ("prompt", "negative_prompt", "negative_emotion", "license")
SAMPLERS = {"image_sampler": Sampler, "clip_sampler": ClipSampler}
ENCODERS = {
    "emotion": "emotion_encoder",
    "face_parts": "face_parts_encoder",
}  # in ExpressionEncoders: in a row
LARGEST, LONGEST = 1024, 2000  # px, for a size; letters, for a text


def write_row(row: Release, expression_types: Sequence[str], folder: Path) -> None:
    """Writes a row into the folder of its pipeline, unless its networks are none of the table's.

    expression_types: of the pipeline's control nets.
    """
    if (original := _of_table(row)) is None:
        return
    facts = {"format": FORMAT, "release": original.name, "name": row.name, TYPES: list(expression_types)}
    facts |= {name: getattr(row, name) for name in PLAIN}
    facts |= {name: dataclasses.asdict(getattr(row, name)) for name in SAMPLERS}
    facts["reference_control"] = row.reference_control
    facts |= {name: getattr(row, name) is not None for name in ("face_basis", *ENCODERS.values())}
    (folder / FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def read_row(folder: Path) -> Release | None:
    """The row of a saved pipeline, with its folder as the root; None where none is saved.

    Raises HelloMemeError for a damaged file, or one of a release that this version does not know.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    facts = read_config(folder, FILE)
    try:
        row = next((row for row in RELEASES if row.name == facts["release"]), None)
        if facts["format"] != FORMAT or row is None:
            raise HelloMemeError(
                f"{path} is of the release {str(facts['release'])[:40]}, which this version of HelloMeme "
                "does not know: get a newer one."
            )
        values = {name: _checked(name, facts[name], row) for name in ("name", *PLAIN)}
        values |= {name: _sampler(kind, facts[name]) for name, kind in SAMPLERS.items()}
        values |= {name: None for name in ENCODERS.values() if not facts[name]}
        values["reference_control"] = _seen_with_its_own(folder, facts)
        values["face_basis"] = FACE_BASIS if facts["face_basis"] else None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, HelloMemeError):
            raise
        raise HelloMemeError(f"{path} is damaged: {download_again(path)}.") from error
    types = saved_types(folder)
    networks = {
        "reference": _saved(folder, (row.reference,))[0],
        # The first one's expression type is the default
        "controls": tuple(
            sorted(_saved(folder, row.controls), key=lambda net: net.expression_type not in types)
        ),
        "motion": _saved(folder, row.motion),
    }
    return dataclasses.replace(row, root=folder, base=Source(""), **values, **networks)


def _seen_with_its_own(folder: Path, facts: dict) -> bool:
    """Whether the reference is seen with control maps of its own. Older files leave that to the pipeline's
    index."""
    index = read_config(folder, INDEX) if (folder / INDEX).is_file() else {}
    value = facts.get("reference_control", index.get("reference_control", False))
    if type(value) is not bool:
        raise ValueError("reference_control")
    return value


def saved_types(folder: Path) -> list[str]:
    """The expression types of a saved pipeline; all there are, where no row is saved."""
    types = read_config(folder, FILE).get(TYPES) if (folder / FILE).is_file() else None
    return types if isinstance(types, list) else ["drive_coeff", "pd_fpg"]


def encoder_networks(row: Release) -> dict[str, Network]:
    """The encoders of a row, by their names in ExpressionEncoders."""
    return {name: net for name, field in ENCODERS.items() if (net := getattr(row, field)) is not None}


def _of_table(row: Release) -> Release | None:
    """The row of the table that a row is, or was made from: the one with its name, or with its networks."""

    def kinds(row: Release) -> set[tuple[str, str]]:
        return {(net.slot, net.class_path) for net in (row.reference, *row.controls, *row.motion)}

    named = [other for other in RELEASES if other.name == row.name]
    return next((other for other in (*named, *RELEASES) if kinds(other) == kinds(row)), None)


def _checked(name: str, value: Any, row: Release) -> Any:
    """A value of PLAIN, or the name, from a file; ValueError if the field cannot have it."""
    known = getattr(row, name)
    if name == "name":
        fits = re.fullmatch(r"[\w .-]{1,100}", value)  # a part of file names
    elif name == "turns":
        from ..face.rotation import ANGLES

        if value is None:
            return None
        fits = value.keys() == set(ANGLES) and all(-180 <= low <= high <= 180 for low, high in value.values())
        value = {angle: (float(low), float(high)) for angle, (low, high) in value.items()}
    elif name == "text_width":
        fits = value is None or (type(value) is int and value > 0)
    elif isinstance(known, str):
        fits = isinstance(value, str) and len(value) <= LONGEST
    else:
        fits = type(value) in (int, type(known)) and 0 < value <= LARGEST
    if not fits:
        raise ValueError(name)
    return value


def _sampler(kind: type[Sampler], facts: dict) -> Sampler:
    """A sampler from a file; ValueError for a class that is no scheduler's, or a switch that is none."""
    scheduler, settings = facts["scheduler"], facts["settings"]
    if not (scheduler is None or re.fullmatch(r"\w+Scheduler", scheduler)) or not isinstance(settings, dict):
        raise ValueError(scheduler)
    switches = [value for name, value in facts.items() if name not in ("scheduler", "settings")]
    if not all(isinstance(value, bool) for value in switches):
        raise ValueError("a switch")
    return kind(**facts)


def _saved(folder: Path, nets: tuple[Network, ...]) -> tuple[Network, ...]:
    """Networks, those first that are saved, under the names of their slots."""
    here = [dataclasses.replace(net, source=Source(net.slot)) for net in nets if (folder / net.slot).is_dir()]
    return (*here, *(net for net in nets if not (folder / net.slot).is_dir()))
