"""How well a model follows the driver, on toon identities it was never trained on.

Self-reenactment: one frame of an identity is the reference, another frame of it drives and is the truth. The model's
column draws in the driver's own frame, so that the outputs can be laid over the truth; the page's column goes through
`Reenactor` as the page does, crop and all, where only what MediaPipe reads of the outputs can be compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity

from hellomeme.arkit import INDEX
from hellomeme.conditions import pose_tensor
from hellomeme.crop import Crop
from hellomeme.face import FaceAnalyzer
from hellomeme.motion import Motion
from hellomeme.reenactor import Reenactor
from hellomeme.releases import load
from hellomeme.settings import Settings
from training.autoencoder import psnr, to_tensor
from training.dataset import FIRST_IDENTITY, RENDER_SIZE
from training.toon import make_identity, random_expression, random_pose, render

FOLLOWED = {
    "jawOpen": ("jawOpen",),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "pucker": ("mouthPucker",),
    "browDown": ("browDownLeft", "browDownRight"),
    "browInnerUp": ("browInnerUp",),
    "squint": ("eyeSquintLeft", "eyeSquintRight"),
    "wide": ("eyeWideLeft", "eyeWideRight"),
    "gaze": ("eyeLookOutLeft", "eyeLookInRight"),
}
ANGLES = ("pitch", "yaw", "roll")


def angles(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) rotation R = Rz Ry Rx to pitch, yaw and roll in degrees."""
    pitch = np.arctan2(rotation[2, 1], rotation[2, 2])
    yaw = np.arcsin(np.clip(-rotation[2, 0], -1, 1))
    roll = np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.degrees([pitch, yaw, roll])


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two (H, W, 3) uint8 pictures."""
    return structural_similarity(a, b, channel_axis=2)


def heldout_pairs(count: int, analyzer: FaceAnalyzer) -> list[dict]:
    """Reference and driver frames of held-out identities, 256 px, with the faces found in them."""
    pairs, seed = [], FIRST_IDENTITY["heldout"]
    whole = Crop(0, 0, RENDER_SIZE)
    while len(pairs) < count:
        identity, rng = make_identity(seed), np.random.default_rng([seed, 1])
        seed += 1
        frames = [render(identity, random_expression(rng), random_pose(rng), RENDER_SIZE, 2) for _ in range(2)]
        faces = [analyzer.faces(frame) for frame in frames]
        if all(faces):
            motion = Motion.from_faces([faces[1][0]], whole)
            pairs.append(dict(reference=frames[0], driver=frames[1], face=faces[1][0], motion=motion))
    return pairs


def through_the_page(reenactor: Reenactor, pairs: list[dict], settings: Settings) -> np.ndarray:
    """(N, S, S, 3) uint8: every reference with its driver, as the page draws them."""
    pictures = []
    for pair in pairs:
        reenactor.set_reference(pair["reference"])
        pictures.append(np.asarray(reenactor.image(pair["driver"], settings).picture))
    return np.stack(pictures)


def reenact(pipeline, release, pairs: list[dict], steps: int, guidance: float, seed: int = 0) -> np.ndarray:
    """(N, S, S, 3) uint8: every reference with its driver's motion, each in its own frame (no crop)."""
    whole, pictures = Crop(0, 0, RENDER_SIZE), []
    for pair in pairs:
        picture = to_tensor(whole.apply(pair["reference"], release.size)[None])
        reference = pipeline.prepare_reference(pipeline.encode(picture))
        result = pipeline(
            reference,
            condition=torch.as_tensor(pose_tensor(pair["motion"], release.condition_size))[None],
            drive_coeff=torch.as_tensor(pair["motion"].blendshapes)[None],
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(seed),
            output_type="pil",
        )
        pictures.append(np.asarray(result.frames[0]))
    return np.stack(pictures)


def read_back(pictures: np.ndarray, analyzer: FaceAnalyzer) -> list:
    """The largest face of each picture, or None."""
    found = (analyzer.faces(picture) for picture in pictures)
    return [faces[0] if faces else None for faces in found]


def follow(faces: list, pairs: list[dict]) -> dict[str, float]:
    """Share of outputs with a face, distances and correlations between driver and output, as MediaPipe reads both.

    aed: mean absolute difference of the 51 coefficients. apd: mean absolute difference of the angles, degrees.
    """
    seen = [i for i, face in enumerate(faces) if face is not None]
    figures = {"faces": len(seen) / len(faces)}
    if len(seen) < 3:
        return figures
    ours = np.stack([faces[i].blendshapes for i in seen])
    theirs = np.stack([pairs[i]["face"].blendshapes for i in seen])
    our_angles = np.stack([angles(faces[i].rotation) for i in seen])
    their_angles = np.stack([angles(pairs[i]["face"].rotation) for i in seen])
    figures |= {"aed": np.abs(ours - theirs).mean(), "apd": np.abs(our_angles - their_angles).mean()}
    for i, name in enumerate(ANGLES):
        figures[name] = correlation(our_angles[:, i], their_angles[:, i])
    for name, parts in FOLLOWED.items():
        columns = [INDEX[part] for part in parts]
        figures[name] = correlation(ours[:, columns].mean(1), theirs[:, columns].mean(1))
    return figures


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r; 0 where one side never changes."""
    return float(np.corrcoef(a, b)[0, 1]) if min(a.std(), b.std()) > 1e-6 else 0.0


def likeness(pictures: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"psnr": psnr(pictures, truth).mean(), "ssim": np.mean([ssim(a, b) for a, b in zip(pictures, truth)])}


def evaluate(name: str, count: int, steps: int | None = None, guidance: float | None = None) -> tuple[dict, dict]:
    """Figures of the model `name`, of copying the reference and of the autoencoder alone; and the pictures.

    steps and guidance: the release's own (the page's defaults) if not given.
    """
    pipeline, _, release = load(name)
    whole = Crop(0, 0, RENDER_SIZE)
    with FaceAnalyzer() as analyzer:
        pairs = heldout_pairs(count, analyzer)
        truth = np.stack([whole.apply(pair["driver"], release.size) for pair in pairs])
        copied = np.stack([whole.apply(pair["reference"], release.size) for pair in pairs])
        latents = [pipeline.encode(to_tensor(picture[None])) for picture in truth]
        decoded = [pipeline.decode(z[:, :, None])[0, :, 0].permute(1, 2, 0).numpy() for z in latents]
        pictures = {
            "copied reference": copied,
            "model": reenact(pipeline, release, pairs, steps or release.steps, guidance or release.guidance),
            "autoencoder alone": (np.stack(decoded) * 255).round().astype(np.uint8),
        }
        figures = {
            row: likeness(images, truth) | follow(read_back(images, analyzer), pairs)
            for row, images in pictures.items()
        }
        page = through_the_page(Reenactor(pipeline, release, analyzer=analyzer), pairs, Settings(steps=steps, guidance=guidance))
        figures["as on the page"] = follow(read_back(page, analyzer), pairs)
    return figures, pictures | {"truth": truth}


def as_table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table, one column a row of `figures`."""
    rows = [f"| | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    names = dict.fromkeys(name for column in figures.values() for name in column)
    for name in names:
        cells = (f"{column[name]:.3f}" if name in column else "" for column in figures.values())
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--release", default="demo", help="name of a release or a model folder")
    parser.add_argument("--identities", type=int, default=64)
    parser.add_argument("--steps", type=int, help="denoising steps; the page's default if not given")
    parser.add_argument("--guidance", type=float, help="guidance scale; the page's default if not given")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--grid", type=Path, help="also write rows of reference, output and truth to this picture")
    args = parser.parse_args()
    figures, pictures = evaluate(args.release, args.identities, args.steps, args.guidance)
    print(as_table(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    if args.grid:
        from PIL import Image

        rows = [pictures[row][:12] for row in ("copied reference", "model", "autoencoder alone", "truth")]
        Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(args.grid)


if __name__ == "__main__":
    main()
