"""The results that the page opens with, drawn before by the demo model: see `examples.results`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from hellomeme.face.edit import Edit
from hellomeme.io import metadata
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style

from . import components, state
from .face_mix import CALM, face_of
from .kept import KeptPicture

MODEL = "demo"  # which drew the shipped results
OWN = "own"  # in place of a driver: the face that the portrait has itself


def own_face(reference: str | None) -> list[float]:
    """What the sliders of the Expression tab open with: the own face of an example file, as it was read
    before; a calm one where that is not known."""
    path = components.EXAMPLES / "results" / f"{Path(reference or '').stem}-{OWN}.json"
    if state.STATE.face_models != "mediapipe" or not path.is_file():
        return list(CALM)
    return face_of(Edit.load(path))


def shipped(reference: str | None, driver: str | None) -> str | None:
    """The picture or clip of these example files; None where there is none, or where the page does not open
    with the model that drew it."""
    if not (reference and driver) or (state.STATE.release, state.STATE.style) != (MODEL, Style()):
        return None
    name = f"{Path(reference).stem}-{Path(driver).stem}"
    paths = ((components.EXAMPLES / "results" / f"{name}{end}") for end in (".webp", ".mp4"))
    return next((str(path) for path in paths if path.is_file()), None)


def kept_file(path: str, reference: str) -> KeptPicture:
    """A picture that the page opens with, or of the gallery, as a kept result. reference: an example file."""
    stamp, releases = metadata.read(path), {find(name).name: name for name in state.STATE.models}
    release = releases.get(stamp.release if stamp else "", state.STATE.release)
    with Image.open(path) as picture:
        known = {"picture": picture.convert("RGB"), "stamp": stamp, "name": Path(path).stem}
        return KeptPicture(release, reference, **known)


def shipped_grid(references: list[str], drivers: list[str]) -> list[tuple[str, str]]:
    """The pictures of every reference with every driver, row by row, and their captions; none if one of them
    is not there."""
    cells = [
        (shipped(reference, driver), caption(reference, driver))
        for reference in references
        for driver in drivers
    ]
    return cells if all(path for path, _ in cells) else []


def caption(reference: str, driver: str) -> str:
    """What a result of two example files is called."""
    return f"{Path(reference).stem} · {Path(driver).stem}"
