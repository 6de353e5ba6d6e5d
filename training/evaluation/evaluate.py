"""How well a model follows the driver, on toon identities it was never trained on.

Self-reenactment: one frame of an identity is the reference, another frame of it drives and is the truth. The
model draws in the driver's own frame, so that its pictures can be laid over the truth; "as on the page" goes
through `Reenactor` as the page does, crop and all, where only what MediaPipe reads of the pictures can be
compared.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from hellomeme.errors import HelloMemeError
from hellomeme.evaluation.baselines import warped
from hellomeme.face.detect import FaceAnalyzer
from training.evaluation.bench import Bench, Pair, add_arguments, cast_pairs
from training.pictures import psnr
from training.readings import follow, read_back

# Measures


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two (H, W, 3) uint8 pictures."""
    return structural_similarity(a, b, channel_axis=2)


def likeness(pictures: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean PSNR in dB and SSIM of (N, H, W, 3) uint8 pictures."""
    return {
        "psnr": psnr(pictures, truth).mean(),
        "ssim": np.mean([ssim(a, b) for a, b in zip(pictures, truth, strict=True)]),
    }


# The table


def reenactment(bench: Bench, pairs: list[Pair]) -> tuple[dict[str, dict], dict[str, np.ndarray]]:
    """Figures of the model, of its ceiling and of what needs no model; and the pictures (N, S, S, 3) they are
    of.

    The ceiling is the truth through the autoencoder. Without a model: the reference copied, and the reference
    warped from its landmarks to the driver's. All are compared with the truth and the driver.
    """
    drivers, truth = [pair.driver.face for pair in pairs], bench.small(pair.truth for pair in pairs)
    warps = (warped(p.reference.frame, p.reference.face.landmarks, p.driver.face.landmarks) for p in pairs)
    pictures = {
        "copied reference": bench.small(pair.reference.frame for pair in pairs),
        "warped reference": bench.small(warps),
        "model": bench.reenact(pairs),
        "autoencoder alone": bench.reconstruct(truth),
    }
    figures = {
        name: likeness(images, truth) | follow(read_back(images, bench.analyzer), drivers)
        for name, images in pictures.items()
    }
    page = bench.through_the_page(pairs)
    figures["as on the page"] = follow(read_back(page, bench.analyzer), drivers)
    return figures, pictures | {"as on the page": page, "truth": truth}


def as_table(figures: dict[str, dict]) -> str:
    """The figures as a Markdown table, one column to a row of `figures`."""

    def cell(value: float | None) -> str:
        return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"

    lines = [f"| | {' | '.join(figures)} |", "|---" * (len(figures) + 1) + "|"]
    for name in dict.fromkeys(name for column in figures.values() for name in column):
        lines.append(f"| {name} | {' | '.join(cell(column.get(name)) for column in figures.values())} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.evaluate", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    parser.add_argument(
        "--cast", action="store_true", help="instead, of the gallery's characters, in frames not trained on"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--grid", type=Path, help="also write rows of reference, output and truth to this picture"
    )
    args = parser.parse_args()
    with FaceAnalyzer() as analyzer:
        try:
            bench = Bench.of(args.release, analyzer, args.identities, args.steps, args.guidance)
        except HelloMemeError as error:
            parser.error(str(error))
        pairs = cast_pairs(args.identities, analyzer) if args.cast else bench.pairs
        figures, pictures = reenactment(bench, pairs)
    print(as_table(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2, default=float) + "\n")
    if args.grid:
        rows = [pictures[name][:12] for name in ("copied reference", "warped reference", "model", "truth")]
        Image.fromarray(np.vstack([np.hstack(row) for row in rows])).save(args.grid)


if __name__ == "__main__":
    main()
