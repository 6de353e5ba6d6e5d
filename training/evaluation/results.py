"""All measurements of a model in one page: tables, pictures, and what was aimed at beside what was
reached."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from hellomeme.errors import HelloMemeError
from hellomeme.face.detect import FaceAnalyzer
from training.evaluation.bench import KNOWN, UNSEEN, Bench, add_arguments, cast_pairs
from training.evaluation.causal import causal
from training.evaluation.cross import crossed, identity_drift
from training.evaluation.curves import curves, read_logs
from training.evaluation.evaluate import as_table, reenactment
from training.evaluation.gallery import EXPRESSIONS as GALLERY, TURNS, gallery
from training.evaluation.photographs import EDITED, OWN_MOTION, READINGS, driven
from training.evaluation.steps import IDENTITIES, by_steps
from training.evaluation.text_grid import GUIDANCE, STEPS, text

PAGE = Path(__file__).parents[1] / "RESULTS.md"
LARGEST = 300_000  # bytes of a picture: they are part of the repository
SHOWN = 10  # identities in a grid
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


def save(picture: np.ndarray | Image.Image, path: Path) -> None:
    """As the largest JPEG below LARGEST bytes, of good quality: large pictures are made smaller."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    for share in (1, 3 / 4, 1 / 2, 3 / 8, 1 / 4):
        scaled = picture if share == 1 else picture.resize([round(share * side) for side in picture.size])
        for quality in (92, 85, 75):
            scaled.save(path, quality=quality)
            if path.stat().st_size < LARGEST:
                return
    raise HelloMemeError(f"{path.name} is larger than {LARGEST} bytes: show fewer pictures in it.")


def grid(*rows: np.ndarray) -> np.ndarray:
    """Rows of (N, S, S, 3) pictures, the first SHOWN of each."""
    return np.vstack([np.hstack(row[:SHOWN]) for row in rows])


# One function a section: bench and the folder for pictures -> Markdown and figures.


def own_driver(bench: Bench, folder: Path) -> tuple[str, dict]:
    figures, pictures = reenactment(bench, bench.pairs)
    cast, _ = reenactment(bench, cast_pairs(len(bench.pairs), bench.analyzer))
    rows = ("copied reference", "warped reference", "model", "autoencoder alone", "truth")
    save(grid(*(pictures[row] for row in rows)), folder / "self.jpg")
    markdown = f"""## Self-reenactment

One frame of a held-out identity is the reference, another frame of it is driver and truth ({len(bench.pairs)}
identities). "Warped reference" is the classical way: the reference pulled from its landmarks to the driver's.
"Autoencoder alone" is the truth encoded and decoded, about the best that a model on these latents can draw. "As on the
page" is cropped around the face and keeps the reference's place, so that it cannot be laid over the truth.

`faces`: share of pictures in which MediaPipe finds a face; all below it is over those. `aed`: mean absolute difference
of the 51 coefficients between driver and picture, `apd`: of the three angles, in degrees; below, correlations.

{as_table(figures)}

Rows: {", ".join(rows)}.

![self-reenactment](results/self.jpg)

The same of the gallery's characters, in {len(bench.pairs)} pairs of frames that no training has seen:

{as_table(cast)}
"""
    return markdown, {UNSEEN: figures, KNOWN: cast}


def other_driver(bench: Bench, folder: Path) -> tuple[str, dict]:
    pairs = crossed(bench.pairs)
    figures, pictures = reenactment(bench, pairs)
    drift = identity_drift(bench, pairs, pictures["model"], pictures["truth"])
    drivers = bench.small(pair.driver.frame for pair in pairs)
    save(
        grid(pictures["copied reference"], drivers, pictures["model"], pictures["truth"]),
        folder / "cross.jpg",
    )
    markdown = f"""## Cross-reenactment

The driver is the next identity's. The truth is the reference's identity, rendered with the driver's coefficients and
pose; expression and pose are compared with the driver, as MediaPipe reads both.

{as_table(figures)}

How far identity drifts is measured without a face recogniser, which would know photographs and not toons: by quantiles
of the picture's colours outside the inner face (CIELAB units), and by mean and spread of the autoencoder's latent
channels; neither looks at where things are. `self`, `output`, `driver`: mean distance of truth, output and driver
picture to the reference. `drift`: 0 where the output is as near as the truth, 1 where it is as far as the other person.
`recognised`: share of outputs nearer to their own reference than to the {len(pairs) - 1} others
(chance {1 / len(pairs):.3f}).

{as_table(drift)}

Rows: reference, driver, output, truth.

![cross-reenactment](results/cross.jpg)
"""
    return markdown, figures


def one_control(bench: Bench, folder: Path) -> tuple[str, dict]:
    figures, strips = causal(bench)
    markdown = f"""## One control changed

For each identity a straight face is drawn, and one with a single control changed (jaw 0.8, blink 1, smile 1, yaw 25°,
roll 15°); both drive the same reference from the same noise. `picture`: correlation over pixels between the output's
change and the renderer's, mean over identities; `ceiling`: of the renderer's pictures through the autoencoder. `gain`:
how much of the renderer's change is made. Below: the mean change of what MediaPipe reads of either (coefficient or °).

{as_table(figures)}
"""
    if strips:
        save(np.vstack(strips), folder / "causal.jpg")
        markdown += """
For some identities, the renderer above and the output below: straight, jaw, blink, smile, yaw, roll.

![one control changed](results/causal.jpg)
"""
    return markdown, figures


def by_photographs(bench: Bench, folder: Path) -> tuple[str, dict]:
    figures, rows = driven(bench)
    save(rows, folder / "photographs.jpg")
    own, large = figures[OWN_MOTION], figures[EDITED]["photographs"]
    markdown = f"""## Driven by photographs

{own["photographs"]} photographs in all, those that come with packages of `requirements.txt`: {large} of ordinary
size, and {own["of them 25 px"]} thumbnails of 25 px that were enlarged. "Own motion": each drives one toon.
"Edited": jaw, smile and yaw are commanded at random on the motion of the {large} large ones. The figures are
correlations of what was asked for with what MediaPipe reads of the output. The toons are held-out ones, the gallery's
characters ("the cast"), or the held-out ones as they are rendered, uncropped, with the same coefficients and angles;
these last are no ceiling, as the renderer takes the values for its own, of which a jaw of .8 is wide open.
No clip of a person was to be had offline.

{as_table(figures)}

A row for each of the large photographs, whose motion is left as it is, given an open jaw, a smile, and turned to either
side. (The photographs are other people's, and not shown.)

![driven by photographs](results/photographs.jpg)
"""
    return markdown, figures


def in_gallery(bench: Bench, folder: Path) -> tuple[str, dict]:
    figures, picture = gallery(bench)
    save(picture, folder / "gallery.jpg")
    markdown = f"""## The gallery

The eight example characters, which the training data has many frames of, and eight identities that it has none of,
each with {len(GALLERY) * len(TURNS)} drivers that it has none of either: {len(GALLERY)} expressions, each by one identity
in a mild turn and by another in a stronger one. Drawn as on the page. `faces`: share of pictures in which MediaPipe finds
a face. `edges`: strength of the edges, as a share of the reference's. The others: correlations between what MediaPipe
reads of driver and picture; `wink` is left less right eye closed. Renderer: the same identities, rendered with the
driver's coefficients and pose, and read in the same way.

{as_table(figures)}

First row: drivers. Then the reference, and what is drawn of it.

![the gallery](results/gallery.jpg)
"""
    return markdown, figures


def number_of_steps(bench: Bench, folder: Path) -> tuple[str, dict]:
    figures = by_steps(bench)
    markdown = f"""## Steps

Self-reenactment of {min(IDENTITIES, len(bench.pairs))} identities by number of denoising steps; the page's default is
{bench.release.steps}. `seconds`: median time of a picture, from motion to pixels, the reference being prepared
({bench.pipeline.device.type}, {os.cpu_count()} cores).

{as_table(figures)}
"""
    return markdown, figures


def by_text(bench: Bench, folder: Path) -> tuple[str, dict]:
    figures, picture = text(bench)
    save(picture, folder / "text.jpg")
    markdown = f"""## Text keeps working

Captions of held-out identities, drawn from the same noise by the plain base and by the base with the adapters
inserted, without conditions (empty reference, no pose, no expression); {STEPS} steps, guidance {GUIDANCE:g}.
The figure is the share of pictures whose background, shirt or hair is nearer to the caption's colour word than to all
other words (11, 11 and 9 of them). It looks at fixed places of the picture; what that costs shows in the renderer's
own pictures of the captions (a drawn one can do better). A word that the plain base ignores is none that adapters could
harm. Chance is measured with captions exchanged.

{as_table(figures)}

Left the plain base, right with the adapters inserted.

![captions](results/text.jpg)
"""
    return markdown, figures


SECTIONS = {
    "gallery": in_gallery,
    "self": own_driver,
    "cross": other_driver,
    "causal": one_control,
    "photographs": by_photographs,
    "steps": number_of_steps,
    "text": by_text,
}


# Correlations in the gallery: figure -> aim for the cast, aim for identities never trained on
GALLERY_AIMS = {
    "faces": (1.0, 0.99),
    "jawOpen": (0.82, 0.8),
    "blink left": (0.93, 0.8),
    "blink right": (0.93, 0.8),
    "wink": (0.8, 0.65),
    "smile": (0.82, 0.8),
    "pucker": (0.75, 0.6),
    "brow up": (0.75, 0.8),
    "gaze": (0.87, 0.8),
    "yaw": (0.95, 0.8),
    "roll": (0.95, 0.8),
    "edges": (0.9, 0.85),
}


def aims(bench: Bench, figures: dict[str, dict]) -> str:
    """What was aimed at and what was reached, as Markdown tables: in the gallery, otherwise, and for a
    picture."""
    rows = [
        (name, "≥", *goals, *(figures["gallery"].get(group, {}).get(name, 0.0) for group in (KNOWN, UNSEEN)))
        for name, goals in GALLERY_AIMS.items()
    ]
    tables = [_aims("in the gallery", rows)]

    own = [figures["self"][group] for group in (KNOWN, UNSEEN)]
    gains = (group["model"]["psnr"] - group["copied reference"]["psnr"] for group in own)
    rows = [
        ("PSNR above the copied reference's, dB", "≥", 9, 6.5, *gains),
        ("SSIM", "≥", 0.82, 0.72, *(group["model"]["ssim"] for group in own)),
    ]
    if all("aed" in group[way] for group in own for way in ("model", "copied reference")):
        shares = (group["model"]["aed"] / group["copied reference"]["aed"] for group in own)
        rows.append(("AED, as a share of the copied reference's", "≤", 0.45, 0.55, *shares))
    photographed = figures["photographs"]
    for name in READINGS:
        reached = (
            min(photographed[way + group].get(name, 0.0) for way in (OWN_MOTION, EDITED))
            for group in (f": {KNOWN}", "")
        )
        rows.append((f"correlation of {name}, driven by photographs", "≥", 0.75, 0.65, *reached))
    tables.append(_aims("driven by themselves, in frames not trained on, and by photographs", rows))

    seconds = figures["steps"][str(bench.settings.steps)]["seconds"]
    tables.append(
        f"""| a picture | aim | reached |
|---|---|---|
| side, px | {_aim("≥", 192, bench.release.size)} |
| seconds | {_aim("≤", 0.2, seconds)} |"""
    )
    return "\n\n".join(tables)


def _aims(title: str, rows: list[tuple]) -> str:
    """A table of rows of (name, sign, aim for the cast, aim for others, what was reached by either)."""
    lines = [f"| {title} | aim, {KNOWN} | reached | aim, {UNSEEN} | reached |", "|---|---|---|---|---|"]
    for name, sign, known, unseen, *reached in rows:
        lines.append(f"| {name} | {_aim(sign, known, reached[0])} | {_aim(sign, unseen, reached[1])} |")
    return "\n".join(lines)


def _aim(sign: str, goal: float, value: float) -> str:
    """Two cells: the aim, and what was reached with a mark where it is met."""
    met = value >= goal if sign == "≥" else value <= goal
    return f"{sign} {goal:g} | {value:.3f}{' ✓' if met else ''}"


def ablation(folder: Path) -> str:
    """What `training.evaluation.ablation` left in `folder`/ablation."""
    results = folder / "ablation"
    if not (results / "table.md").exists():
        return f"{BEGIN}\nNot measured yet.\n{END}"
    plan = json.loads((results / "plan.json").read_text())
    shown = plan.get("condition", "the square on the head alone, at several noise levels")
    return f"""{BEGIN}
Three pairs after the paper's ablations (`training/evaluation/ablation.py`): the same frozen base, frames, noise, parameters and
starting weights in both runs of a pair; only where a query looks differs. {plan["steps"]} steps of {plan["batch"]} references
with {plan.get("targets", 3)} targets each, {len(plan["seeds"])} seeds; mean (lowest to highest). Validation on {plan["validation_identities"]} identities never trained
on; a lower loss and a higher PSNR are better. Trained with {shown}.

{(results / "table.md").read_text(encoding="utf-8").strip()}

![curves](results/ablation/curves.png)

Rows: reference, truth, then what the first seed of each run draws in one step, in the order of the table.

![grid](results/ablation/grid.jpg)
{END}"""


def with_ablation(page: str, folder: Path) -> str:
    """The page with its section on the ablation as it is now."""
    before, _, rest = page.partition(BEGIN)
    return before + ablation(folder) + rest.partition(END)[2]


def page(bench: Bench, folder: Path, work: Path | None) -> str:
    """Measure everything and return the page; its pictures go to `folder`."""
    folder.mkdir(exist_ok=True)
    sections, figures = [], {}
    for name, section in SECTIONS.items():
        started = time.monotonic()
        markdown, figures[name] = section(bench, folder)
        sections.append(markdown)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if work is not None:
        curves(work, folder / "curves.jpg")
    if (folder / "curves.jpg").exists():
        sections.append(
            "## Training\n\nEvery figure in the logs of the work folder's stages, over their steps; logs of earlier trainings are not among them.\n\n"
            "![training](results/curves.jpg)\n"
        )
    settings = bench.settings
    head = f"""# Results

Written by `python -m training.evaluation.results`; the model is `{bench.release.name}` with {settings.steps} step(s) and guidance
{settings.guidance:g}, measured on {len(bench.pairs)} toon identities that no training has seen and on the gallery's characters in frames that none
has seen, all in one run but for the section on knitted and plain attention.

{aims(bench, figures)}

✓: the aim is met; no mark: missed. By photographs: the lower of "own motion" and "edited" below.
"""
    return "\n".join([head, *sections, f"## Knitted against plain attention\n\n{ablation(folder)}\n"])


def write(bench: Bench, out: Path, work: Path | None = None) -> None:
    """Write the page to `out` and its pictures to a folder `results` beside it."""
    markdown = page(bench, out.parent / "results", work)
    part = out.with_name(f"{out.name}.part")
    part.write_text(markdown, encoding="utf-8")
    part.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.results", description=__doc__.splitlines()[0]
    )
    add_arguments(parser)
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write")
    parser.add_argument("--folder", type=Path, help="work folder of training.run, whose logs are plotted")
    parser.add_argument(
        "--ablation", action="store_true", help="only put in what training.evaluation.ablation has left since"
    )
    args = parser.parse_args()
    if args.ablation:
        if not (args.out.exists() and END in args.out.read_text(encoding="utf-8")):
            parser.error(f"{args.out} is no page that this script wrote: write it first, without --ablation.")
        args.out.write_text(
            with_ablation(args.out.read_text(encoding="utf-8"), args.out.parent / "results"), encoding="utf-8"
        )
        return
    if not args.out.parent.is_dir():
        parser.error(f"There is no folder {args.out.parent}: make it, or choose another place for the page.")
    with FaceAnalyzer() as analyzer:
        try:
            if args.folder is not None:
                read_logs(args.folder)  # before the minutes of work
            bench = Bench.of(args.release, analyzer, args.identities, args.steps, args.guidance)
            write(bench, args.out, args.folder)
        except HelloMemeError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
