"""The gallery in figures: each example character with each of 28 drivers, drawn as the page draws them.

The drivers show each expression twice, by other identities, in a mild and in a stronger turn. Nobody among
them is in any split of the data. The same is measured with references that are in none either. Beside the
model stands the renderer: the reference's identity, given the driver's coefficients and pose, cropped and
read in the same way. That is about the most that MediaPipe can read of these faces.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.face.detect import FaceAnalyzer
from training.dataset import CAST, FIRST_IDENTITY
from training.evaluation.bench import KNOWN, UNSEEN, Bench, Shot, shoot
from training.evaluation.evaluate import as_table
from training.pictures import edge_strength
from training.readings import follow, read_back
from training.toon import Identity, Pose, coefficients, make_identity, render

SIZE = 512  # px, of references and drivers, as the page's examples have
REFERENCE = dict(mouthSmile=0.15), Pose(pitch=4)  # coefficients and pose of the page's examples
PEOPLE = 8
FIRST = {"unseen": FIRST_IDENTITY["gallery"], "drivers": FIRST_IDENTITY["gallery"] + 1000}
EXPRESSIONS = {  # the first SHOWN of them are in the picture
    "laugh": dict(jawOpen=0.7, mouthSmile=0.9),
    "wink": dict(eyeBlinkLeft=1.0, mouthSmile=0.5),
    "surprised": dict(jawOpen=0.5, browInnerUp=0.9, browOuterUp=0.9, eyeWide=0.9),
    "sad": dict(mouthFrown=0.9, browInnerUp=0.7),
    "kiss": dict(mouthPucker=1.0),
    "angry": dict(browDown=0.9, eyeSquint=0.6, mouthFrown=0.4),
    "asleep": dict(eyeBlink=1.0),
    "look left": dict(eyeLookInLeft=0.9, eyeLookOutRight=0.9),
    "look right": dict(eyeLookOutLeft=0.9, eyeLookInRight=0.9),
    "jaw": dict(jawOpen=0.9),
    "smile": dict(mouthSmile=0.9),
    "other wink": dict(eyeBlinkRight=1.0),
    "brows": dict(browInnerUp=1.0, browOuterUp=0.7),
    "straight": {},
}
TURNS = {"mild": (8, 5, 5), "stronger": (22, 10, 10)}  # largest yaw, pitch and roll in degrees
SHOWN = 8
FIGURES = (
    *("faces", "jawOpen", "blink left", "blink right", "wink", "smile", "pucker", "brow up", "gaze"),
    *("yaw", "roll"),
)


def drivers(analyzer: FaceAnalyzer) -> list[Shot]:
    """Each of EXPRESSIONS in each of TURNS, by another identity each, with a face that is found."""
    seeds, shots = itertools.count(FIRST["drivers"]), []
    for expression, largest in itertools.product(EXPRESSIONS.values(), TURNS.values()):
        shot = None
        while shot is None:
            seed = next(seeds)
            rng = np.random.default_rng([seed, 1])
            yaw, pitch, roll = rng.choice((-1, 1), 3) * rng.uniform(0.5, 1, 3) * largest
            shot = shoot(
                make_identity(seed), coefficients(expression), Pose(yaw, pitch, roll), analyzer, SIZE
            )
        shots.append(shot)
    return shots


def unseen(analyzer: FaceAnalyzer) -> list[Identity]:
    """PEOPLE identities of no split whose face is found."""
    people = map(make_identity, itertools.count(FIRST["unseen"]))
    return list(itertools.islice((who for who in people if analyzer.faces(portrait(who))), PEOPLE))


def portrait(identity: Identity) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8: a reference picture, as the page's examples are drawn."""
    expression, pose = REFERENCE
    return render(identity, coefficients(expression), pose, SIZE)


def drawn(bench: Bench, people: list[Identity], shots: list[Shot]) -> dict[str, np.ndarray]:
    """Pictures (people * drivers, S, S, 3) uint8: "reference", "model" and "renderer", in the same crop."""
    page, pictures = bench.reenactor, {"reference": [], "model": [], "renderer": []}
    faces = [page.portrait(shot.frame) for shot in shots]
    for identity in people:
        reference = page.set_reference(portrait(identity))
        for shot, face in zip(shots, faces, strict=True):
            truth = render(identity, shot.expression, shot.pose, SIZE, 1)
            pictures["reference"].append(np.asarray(reference.picture))
            pictures["model"].append(np.asarray(page.image(face, bench.settings).picture))
            pictures["renderer"].append(reference.crop.apply(truth, bench.release.size))
    return {name: np.stack(frames) for name, frames in pictures.items()}


def gallery(bench: Bench) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Figures of model and renderer, for the cast and for identities never trained on; and a picture of both.

    faces: share of pictures with a face. edges: how strong they are, as a share of the reference's. The
    others: correlations between driver and picture, as MediaPipe reads both, over the pictures with a face.
    The picture (H, W, 3) has a row for each reference; its first row shows the drivers.
    """
    shots = drivers(bench.analyzer)
    chosen = [list(TURNS).index("mild") + len(TURNS) * i for i in range(min(SHOWN, len(EXPRESSIONS)))]
    side = bench.release.size
    heads = [Image.fromarray(shots[i].frame).resize((side, side), Image.Resampling.BOX) for i in chosen]
    rows = [np.hstack([np.full((side, side, 3), 255, np.uint8), *map(np.asarray, heads)])]
    groups = {
        KNOWN: [make_identity(FIRST_IDENTITY["cast"] + number) for number in CAST[:PEOPLE]],
        UNSEEN: unseen(bench.analyzer),
    }
    figures = {}
    for group, people in groups.items():
        pictures = drawn(bench, people, shots)
        read = [shot.face for shot in shots] * len(people)
        for name, title in (("model", group), ("renderer", f"{group}: renderer")):
            followed = follow(read_back(pictures[name], bench.analyzer), read)
            edges = edge_strength(pictures[name]) / edge_strength(pictures["reference"])
            figures[title] = {key: followed[key] for key in FIGURES if key in followed} | {"edges": edges}
        for first in range(0, len(people) * len(shots), len(shots)):
            rows.append(
                np.hstack([pictures["reference"][first], *(pictures["model"][first + i] for i in chosen)])
            )
    return figures, np.vstack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.gallery", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--release", default="demo", help="name of a release or a model folder")
    parser.add_argument("--steps", type=int, help="denoising steps; the page's default if not given")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--picture", type=Path, help="also write what was drawn to this picture")
    args = parser.parse_args()
    with FaceAnalyzer() as analyzer:
        try:
            figures, picture = gallery(Bench.of(args.release, analyzer, steps=args.steps))
        except HelloMemeError as error:
            parser.error(str(error))
    print(as_table(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    if args.picture:
        Image.fromarray(picture).save(args.picture, quality=90)


if __name__ == "__main__":
    main()
