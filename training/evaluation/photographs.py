"""Driven by photographs: do the toons do what real faces do?

The photographs are those that come with packages the requirements install anyway: scikit-image's astronaut
and photographer, matplotlib's Grace Hopper, and the 100 faces of scikit-image's `lfw_subset`, 25 x 25 px each
and enlarged. None of them is in this repository. The large ones are also edited: jaw, smile and yaw are
commanded, the rest of the motion is the photograph's.

Beside the model stands the renderer, given the same coefficients and angles.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hellomeme.errors import NoFaceError
from hellomeme.face.detect import Face
from hellomeme.face.edit import Turn, edited
from hellomeme.face.motion import Motion
from hellomeme.face.rotation import to_angles
from hellomeme.portrait import ReferencePortrait
from training.dataset import CAST, FIRST_IDENTITY, RENDER_SIZE
from training.evaluation.bench import KNOWN, Bench, Prepared
from training.evaluation.gallery import portrait
from training.readings import FEWEST, control, correlation, read_back
from training.toon import Pose, make_identity, render

THUMBNAILS = 100  # of lfw_subset's pictures, the first half, are faces
ENLARGED, MARGIN = 200, 60  # px, of a thumbnail: MediaPipe wants some surroundings
READINGS = ("jawOpen", "smile", "yaw")
OWN_MOTION, EDITED = "own motion", "edited"
SMILE = dict(mouthSmileLeft=1.0, mouthSmileRight=1.0)
SHOWN = {
    "as it is": ({}, 0),
    "jaw": (dict(jawOpen=0.8), 0),
    "smile": (SMILE, 0),
    "left": ({}, -25),
    "right": ({}, 25),
}


@dataclass(frozen=True)
class Photograph:
    """The motion that MediaPipe reads of it, in its own crop; small: a thumbnail enlarged."""

    motion: Motion
    small: bool


def pictures() -> list[tuple[np.ndarray, bool]]:
    """Frames (H, W, 3) uint8 and whether they are enlarged thumbnails."""
    from matplotlib.cbook import get_sample_data
    from skimage import data

    with get_sample_data("grace_hopper.jpg") as file:
        hopper = np.asarray(Image.open(file).convert("RGB"))
    large = [data.astronaut(), np.stack([data.camera()] * 3, axis=-1), hopper]
    return [(frame, False) for frame in large] + [
        (enlarged(face), True) for face in data.lfw_subset()[:THUMBNAILS]
    ]


def enlarged(thumbnail: np.ndarray) -> np.ndarray:
    """(25, 25) in [0, 1] to (320, 320, 3) uint8, the border repeated outwards."""
    grey = Image.fromarray((255 * thumbnail).astype(np.uint8)).resize(
        (ENLARGED, ENLARGED), Image.Resampling.BICUBIC
    )
    return np.pad(np.asarray(grey.convert("RGB")), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="edge")


def photographs(bench: Bench) -> list[Photograph]:
    """The photographs in which a face is found."""
    found = []
    for frame, small in pictures():
        with contextlib.suppress(NoFaceError):
            found.append(Photograph(bench.reenactor.portrait(frame).motion, small))
    return found


def commands(motion: Motion, count: int, rng: np.random.Generator) -> list[Motion]:
    """A photograph's motion with random jaw 0..0.8, smile 0..1 and turns of the head of up to 25 degrees."""
    motions = []
    for jaw, smile, yaw in rng.uniform((0, 0, -25), (0.8, 1, 25), (count, 3)):
        coefficients = dict(jawOpen=jaw, mouthSmileLeft=smile, mouthSmileRight=smile)
        motions.append(edited(motion, coefficients, Turn(yaw=yaw)))
    return motions


def wanted(motion: Motion) -> np.ndarray:
    """(3,) what READINGS should be of a picture with this motion."""
    stand_in = Face(None, motion.blendshapes[0], motion.rotation[0], None, 1.0, None)
    return np.array([control(stand_in, name) for name in READINGS])


def followed(motions: list[Motion], faces: list[Face | None]) -> dict[str, float]:
    """Number of pictures, share with a face, and correlation of READINGS between motion and picture."""
    seen = [(wanted(motion), face) for motion, face in zip(motions, faces, strict=True) if face is not None]
    figures = {"pictures": len(faces), "faces": len(seen) / len(faces)}
    if len(seen) >= FEWEST:
        asked = np.stack([values for values, _ in seen])
        got = np.array([[control(face, name) for name in READINGS] for _, face in seen])
        figures |= {name: correlation(asked[:, i], got[:, i]) for i, name in enumerate(READINGS)}
    return figures


def prepared(bench: Bench, reference: ReferencePortrait) -> Prepared:
    return Prepared(bench.reenactor.prepared(reference, bench.settings), reference.shape)


def draw(bench: Bench, motions: list[Motion], frames: list[np.ndarray]) -> np.ndarray:
    """(N, S, S, 3) uint8: motions put onto the references in these frames in turn, as the page does."""
    references = [bench.reenactor.set_reference(frame) for frame in frames[: len(motions)]]
    drawn = []
    for i, motion in enumerate(motions):
        reference = references[i % len(references)]
        drawn.append(bench.draw(prepared(bench, reference), motion.onto(reference.motion)))
    return np.stack(drawn)


def rendered(bench: Bench, motions: list[Motion]) -> np.ndarray:
    """(N, S, S, 3) uint8: the held-out identities in turn, rendered with the coefficients and the angles of
    the motions."""
    drawn = []
    for motion, pair in zip(motions, itertools.cycle(bench.pairs), strict=False):
        pitch, yaw, roll = to_angles(motion.rotation[0])
        drawn.append(render(pair.identity, motion.blendshapes[0], Pose(yaw, pitch, roll), RENDER_SIZE, 1))
    return bench.small(drawn)


def examples(bench: Bench, motion: Motion) -> np.ndarray:
    """(S, 5 S, 3) uint8: the first reference with a photograph's motion, then edited as SHOWN says."""
    motions = [edited(motion, coefficients, Turn(yaw=yaw)) for coefficients, yaw in SHOWN.values()]
    reference = bench.reenactor.set_reference(bench.pairs[0].reference.frame)
    ready = prepared(bench, reference)
    return np.hstack([bench.draw(ready, motion.onto(reference.motion)) for motion in motions])


def driven(bench: Bench, edits: int = 32) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Figures by kind of driver, and a row of pictures for each large photograph, see `examples`.

    own motion: every photograph drives one held-out reference with what MediaPipe reads of it. edited:
    `edits` random commands for each large photograph. Drawn as on the page: crop, and the reference's own
    place. The same for the gallery's characters as references, and for the held-out identities as the
    renderer draws them. The photographs themselves are not shown.
    """
    unseen = [pair.reference.frame for pair in bench.pairs]
    cast = [portrait(make_identity(FIRST_IDENTITY["cast"] + number)) for number in CAST]
    found = photographs(bench)
    large = [photograph.motion for photograph in found if not photograph.small]
    rng = np.random.default_rng(0)
    motions = {
        OWN_MOTION: [photograph.motion for photograph in found],
        EDITED: [motion for own in large for motion in commands(own, edits, rng)],
    }
    counts = {
        OWN_MOTION: {"photographs": len(found), "of them 25 px": len(found) - len(large)},
        EDITED: {"photographs": len(large), "of them 25 px": 0},
    }
    figures = {}
    for name, asked in motions.items():
        pictures = {
            name: draw(bench, asked, unseen),
            f"{name}: {KNOWN}": draw(bench, asked, cast),
            f"{name}: renderer": rendered(bench, asked),
        }
        for title, drawn in pictures.items():
            figures[title] = counts[name] | followed(asked, read_back(drawn, bench.analyzer))
    return figures, np.vstack([examples(bench, motion) for motion in large])
