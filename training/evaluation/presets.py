"""Which presets of the Expression tab a model draws, measured: the page does not offer the others.

    python -m training.evaluation.presets --release my-model --write

Each preset, and a calm face, is drawn on the characters of the page's gallery and on as many heads that no
training has seen, and MediaPipe reads the pictures. What counts is how far the marks of the preset (MARKS)
change from the calm picture to the preset's, as a share of the change that MediaPipe reads when the renderer
draws the same on the same heads; of the median portrait, and of the weakest mark. A preset comes over with a
share of `hellomeme.releases.expressions.LEAST` and more. That limit was set by looking at what the demo model
draws: a share of .51 (shocked) looks as it should, and one of .33 (kiss) does not.

Not every coefficient of a preset is a mark: MediaPipe reads hardly anything of the cheeks and squints of
drawn heads, and little of their brows.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.face.arkit import ARKIT_NAMES, INDEX
from hellomeme.face.detect import Face, FaceAnalyzer
from hellomeme.face.edit import PRESETS, preset
from hellomeme.reenactor import Reenactor
from hellomeme.releases.expressions import LEAST, write_measured
from training.dataset import CAST, FIRST_IDENTITY
from training.evaluation.gallery import REFERENCE, SIZE, portrait, unseen
from training.readings import read_back
from training.toon import Identity, make_identity, render

CALM = "calm"
SMILE = {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}
WIDE = {"eyeWideLeft": 0.5, "eyeWideRight": 0.5}
FROWN = {"mouthFrownLeft": 0.5, "mouthFrownRight": 0.5}
# What tells a preset from the others: sums of coefficients, each of which has to come over
MARKS: dict[str, tuple[Mapping[str, float], ...]] = {
    "laugh": (SMILE, {"jawOpen": 1}),
    "wink": ({"eyeBlinkLeft": 1, "eyeBlinkRight": -1},),
    "shocked": ({"jawOpen": 1}, WIDE),
    "kiss": ({"mouthPucker": 1},),
    "sad": (FROWN,),
    "sceptical": ({"browOuterUpLeft": 1, "browOuterUpRight": -1},),
}


def faces_to_draw() -> dict[str, dict[str, float]]:
    """The coefficients of the calm face and of each preset, by name."""
    return {CALM: dict.fromkeys(ARKIT_NAMES, 0.0)} | {name: preset(name) for name in PRESETS}


def drawn(reenactor: Reenactor, people: list[Identity]) -> dict[str, np.ndarray]:
    """Pictures (people, faces, S, S, 3) uint8 of "model" and "renderer", in the same crop."""
    pictures, pose = {"model": [], "renderer": []}, REFERENCE[1]
    for identity in people:
        reference = reenactor.set_reference(portrait(identity))
        for values in faces_to_draw().values():
            truth = render(identity, np.array(list(values.values())), pose, SIZE, 1)
            pictures["model"].append(np.asarray(reenactor.expression(values).picture))
            pictures["renderer"].append(reference.crop.apply(truth, reenactor.release.size))
    shape = len(people), len(faces_to_draw())
    return {name: np.stack(frames).reshape(*shape, *frames[0].shape) for name, frames in pictures.items()}


def mark_changes(faces: list[Face | None], marks: tuple[Mapping[str, float], ...], face: int) -> np.ndarray:
    """(marks, people) change of each mark from the calm face, the first of a person's, to the one with the
    index `face`; 0 where no face was found.

    faces: of all pictures, person by person.
    """
    count, changes = len(faces_to_draw()), []
    for first in range(0, len(faces), count):
        calm, shown = faces[first], faces[first + face]
        found = calm is not None and shown is not None
        change = shown.blendshapes - calm.blendshapes if found else np.zeros(len(ARKIT_NAMES))
        changes.append([sum(weight * change[INDEX[name]] for name, weight in mark.items()) for mark in marks])
    return np.array(changes).T


def shares(pictures: dict[str, np.ndarray], analyzer: FaceAnalyzer) -> dict[str, dict[str, float]]:
    """For each preset the share that comes over: "model", and "renderer" on the scale of its own mean."""
    read = {
        name: read_back(frames.reshape(-1, *frames.shape[2:]), analyzer) for name, frames in pictures.items()
    }
    figures = {}
    for index, name in enumerate(PRESETS, 1):
        changes = {who: mark_changes(faces, MARKS[name], index) for who, faces in read.items()}
        scale = np.maximum(changes["renderer"].mean(1), 1e-6)  # of the reader
        figures[name] = {
            who: round(float((np.median(values, 1) / scale).min()), 2) for who, values in changes.items()
        }
    return figures


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.presets", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--release", default="demo", help="name of a release or a model folder")
    parser.add_argument("--write", action="store_true", help="also write the figures into the model folder")
    parser.add_argument("--picture", type=Path, help="also write what was drawn to this picture")
    args = parser.parse_args(argv)
    with FaceAnalyzer() as analyzer:
        try:
            reenactor = Reenactor.from_release(args.release, analyzer=analyzer, expression_type="drive_coeff")
        except HelloMemeError as error:
            parser.error(str(error))
        if args.write and reenactor.release.root is None:
            parser.error(f"{args.release} has no folder to write to: give a model folder.")
        figures, people, pictures = measured(reenactor)
    print(f"{people} portraits, share that comes over (of which {LEAST:g} is the least)")
    for name, share in figures.items():
        print(f"{name:<10} model {share['model']:5.2f}   renderer {share['renderer']:5.2f}")
    if args.write:
        model = {name: share["model"] for name, share in figures.items()}
        print(write_measured(reenactor.release.root, model, people))
    if args.picture:
        Image.fromarray(np.vstack([np.hstack(row) for row in pictures["model"]])).save(args.picture)


def measured(reenactor: Reenactor) -> tuple[dict[str, dict[str, float]], int, dict[str, np.ndarray]]:
    """The figures of `shares`, the number of portraits, and the pictures of `drawn`."""
    people = [make_identity(FIRST_IDENTITY["cast"] + number) for number in CAST]
    people += unseen(reenactor.analyzer)
    pictures = drawn(reenactor, people)
    return shares(pictures, reenactor.analyzer), len(people), pictures


if __name__ == "__main__":
    main()
