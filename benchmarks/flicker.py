"""Flicker with and without the motion module: `python benchmarks/flicker.py [--release demo] [--clips 12]`.

Rendered clips of identities never trained on drive their own first frame, so that every frame of the output
has a truth. Flicker is the mean squared difference between neighbouring frames of (output - truth), in levels
of 255: it counts movement that is missed as well as movement that should not be there. Beside it stand the
mean squared difference between neighbouring frames of the output alone, whose aim is the truth's, and the
same over the pixels that do not change in the truth alone, which is what one sees as flicker. For comparison:
a clip that stands still, whose flicker is the movement itself, and the truth through the autoencoder, which
no module could beat.
"""

import argparse

import cv2
import numpy as np
import torch
from common import machine, model

from hellomeme.face.conditions import condition_tensor
from hellomeme.face.crop import Crop
from hellomeme.face.detect import Face, FaceAnalyzer
from hellomeme.face.drawing import FaceShape
from hellomeme.face.motion import Motion
from hellomeme.face.smooth import bridged, smoothed
from hellomeme.pipeline import Conditions, HelloMemePipeline, Reference
from hellomeme.releases.load import add_motion, face_basis, load
from hellomeme.releases.table import Release
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.plan import ClipPlan
from hellomeme.settings import ClipSettings
from training.dataset import FIRST_IDENTITY, RENDER_SIZE
from training.pictures import to_tensor
from training.toon import make_identity, random_clip, render

STILL = 1  # levels: pixels of the truth that change by no more in any colour stand still
RATE = 25  # frames a second that the clips are taken for when they are smoothed


def performed(
    seed: int, frames: int, analyzer: FaceAnalyzer, size: int
) -> tuple[np.ndarray, Motion, Face] | None:
    """A clip (T, size, size, 3) uint8, its motion as read, and the face of its first frame.

    None where most frames show no face, or the first does not.
    """
    identity, whole = make_identity(seed), Crop(0, 0, RENDER_SIZE)
    drawn = [
        render(identity, *moment, RENDER_SIZE, 1)
        for moment in random_clip(np.random.default_rng([seed, 1]), frames)
    ]
    faces = [(analyzer.faces(picture) or [None])[0] for picture in drawn]
    if faces[0] is None or 2 * faces.count(None) > frames:
        return None
    small = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for picture in drawn]
    return np.stack(small), bridged(Motion.from_faces(faces, whole)), faces[0]


def seen(motion: Motion, release: Release, shape: FaceShape | None) -> Conditions:
    """What the control nets see of a motion, for a face of this shape."""
    condition = condition_tensor(motion, release.condition_size, shape)[None]
    return Conditions(condition, torch.from_numpy(motion.blendshapes)[None])


def reenacted(
    pipeline: HelloMemePipeline,
    release: Release,
    reference: Reference,
    shape: FaceShape | None,
    motion: Motion,
    together: bool,
    overlap: int,
) -> np.ndarray:
    """(T, H, W, 3) in [0, 255]: the motion as it stands, with the release's own steps.

    shape: of the reference, for releases that draw the face into the condition picture.
    """
    first_pass = release.clip_sampler.first_pass
    plan = ClipPlan(len(motion), release.steps, release.guidance, together, first_pass, overlap)

    def conditions(frames: np.ndarray) -> Conditions:
        return seen(motion.at(frames), release, shape)

    generator, text = torch.Generator().manual_seed(0), pipeline.encode_prompt(release.prompt)
    latents = torch.cat(list(draw_clip(pipeline, reference, conditions, plan, text, generator)), 2)
    return levels(pipeline.decode(latents))


def levels(pictures: torch.Tensor) -> np.ndarray:
    """(1, 3, T, H, W) in [0, 1] to (T, H, W, 3) in [0, 255]."""
    return 255 * pictures[0].permute(1, 2, 3, 0).cpu().numpy()


def flicker(output: np.ndarray, truth: np.ndarray) -> float:
    return np.square(np.diff(output - truth.astype(np.float32), axis=0)).mean().item()


def change(output: np.ndarray) -> float:
    return np.square(np.diff(output, axis=0)).mean().item()


def trembling(output: np.ndarray, truth: np.ndarray) -> float:
    """The change of the output where the truth stands still."""
    still = np.abs(np.diff(truth.astype(np.int16), axis=0)).max(axis=-1) <= STILL
    return np.square(np.diff(output, axis=0))[still].mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--release", default="demo", help="a release that takes coefficients, a folder, or tiny"
    )
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument(
        "--frames", type=int, default=28, help="of each clip: with an overlap of 4, 28 are three windows"
    )
    parser.add_argument(
        "--smoothing", type=float, default=ClipSettings().smoothing, help="as in a clip's settings"
    )
    parser.add_argument("--overlap", type=int, default=ClipSettings().overlap)
    options = parser.parse_args()

    print(machine())
    pipeline, _, release = load(model(options.release), device="cpu")
    basis = face_basis(release)
    ways = {
        "a picture that stands still": None,
        "the truth through the autoencoder": None,
        "without the motion module": False,
    }
    if add_motion(pipeline, release):
        ways["with the motion module"] = True
    else:
        print(f"{release.name} has no motion module")

    rows, truths, seed = {way: [] for way in ways}, [], FIRST_IDENTITY["heldout_clips"]
    with FaceAnalyzer() as analyzer:
        while len(truths) < options.clips:
            seed, clip = seed + 1, performed(seed, options.frames, analyzer, release.size)
            if clip is None:
                continue
            truth, motion, face = clip
            shape = None if basis is None else FaceShape.of(face, basis)
            motion = smoothed(motion, RATE, options.smoothing)
            latents = torch.cat([pipeline.encode(to_tensor(frame[None])) for frame in truth])  # (T, C, h, w)
            own = seen(motion.at([0]), release, shape) if release.reference_control else None
            reference = pipeline.prepare_reference(latents[:1], release.prompt, conditions=own)
            made = {
                "a picture that stands still": np.repeat(truth[:1], len(truth), 0).astype(np.float32),
                "the truth through the autoencoder": levels(pipeline.decode(latents.transpose(0, 1)[None])),
            }
            for way, together in ways.items():
                output = made.get(way)
                if output is None:
                    output = reenacted(pipeline, release, reference, shape, motion, together, options.overlap)
                error = np.square(output - truth).mean()
                rows[way].append((flicker(output, truth), change(output), trembling(output, truth), error))
            truths.append(change(truth.astype(np.float32)))

    print(
        f"{release.name}, {options.clips} clips of {options.frames} frames, {release.steps} steps, "
        f"smoothing {options.smoothing:g}, "
        f"overlap {options.overlap}"
    )
    print(f"change from frame to frame of the truth: {np.mean(truths):.2f}")
    for way in ways:
        flickers, changes, trembles, errors = np.mean(rows[way], axis=0)
        print(
            f"{way}: flicker {flickers:.2f}, change {changes:.2f}, "
            f"change where the truth stands still {trembles:.3f}, "
            f"squared error {errors:.1f}"
        )
    if "with the motion module" in ways:
        without, with_module = (np.array(rows[f"{word} the motion module"]) for word in ("without", "with"))
        for column, name in ((0, "flicker"), (2, "change where the truth stands still")):
            lower = (with_module < without)[:, column].sum()
            ratio = with_module[:, column].mean() / without[:, column].mean()
            print(f"{name}: ratio {ratio:.3f}; lower in {lower} of {len(without)} clips")


if __name__ == "__main__":
    main()
