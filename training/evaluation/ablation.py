"""Ablation of the paper's claim: knitted against plain attention, all else being equal.

Three pairs, after the paper's ablations: reference and control nets together (its SD_EXP and SK_EXP), the
reference alone (IPAdapter and IPAdapterSK), and the control nets alone (ControlNet and ControlNetSK). The two
runs of a pair share the frozen base, the data, the number of steps, the number of parameters, and with each
seed the very weights they begin at and every draw of frames and noise. Only where a query looks differs
(`plain_attention.py`). As in the demo's training, the control nets see the face drawn into the
condition picture, and the loss is that of one step from pure noise.

The base should have learnt from captions alone: one that went through `together` has grown used to knitted
attention.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from tqdm import tqdm

from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.control import HMControlNet, HMV2ControlNet
from training.evaluation.plain_attention import PlainControlNet, PlainReferenceAdapter, PlainV2ControlNet
from training.loop import Schedule, load_averaged, read_log, train, trained, write_log
from training.pictures import attention_weights, psnr
from training.run import CONFIGS
from training.stages.adapters import FACE_WEIGHT, AdapterStage, network_inputs
from training.stages.base import BaseStage
from training.workshop import Workshop

PARTS = {"both": "reference and control", "reference": "reference alone", "control": "control alone"}
ATTENTIONS = {  # name -> classes of the reference adapter and of the two control nets
    "knitted": (HMReferenceAdapter, HMControlNet, HMV2ControlNet),
    "plain": (PlainReferenceAdapter, PlainControlNet, PlainV2ControlNet),
}
FIGURES = {"validation": "validation loss", "psnr": "PSNR in 1 step, dB"}
SHOWN = 8  # pictures to a row of the grid


class AblationStage(AdapterStage):
    """The loss of the adapters with the reference, the control nets or both; validated at fixed noise.

    parts: which of the adapters take part, a key of `PARTS`. adapter_parts: what `Workshop.adapter_parts`
    returned.
    """

    name = "ablation"

    def __init__(self, parts: str, identities: int, unet: nn.Module, *adapter_parts) -> None:
        super().__init__(unet, *adapter_parts, dropped=0.0)  # nothing here is drawn with guidance
        self.looks_at_reference = parts != "control"
        if not self.looks_at_reference:
            self.adapter.requires_grad_(False)
        if parts == "reference":
            self.controls = nn.ModuleList()
        self.identities = identities

    def prepare(self, reference: torch.Tensor, own: dict[str, torch.Tensor] | None = None) -> dict:
        return super().prepare(reference, own) if self.looks_at_reference else {}

    def validation_batch(self) -> dict[str, torch.Tensor]:
        """What `draw` returns, from identities never trained on: one target each."""
        references, targets = self.pairs(self.identities).T
        targets = targets[:, None]  # (B, 1)
        frames, latents = self.validation, self.validation_latents
        weights = attention_weights(frames.landmarks, frames.found, latents.shape[-1], FACE_WEIGHT)[targets]
        batch = network_inputs(self.driven_validation, latents, references, targets) | dict(
            latents=latents[targets].float().transpose(1, 2), weights=torch.from_numpy(weights)[:, None]
        )
        return {key: value.to(self.empty_text.device) for key, value in batch.items()}

    def validate(self) -> dict[str, float]:
        """The loss that is trained, and the likeness of what one step draws from pure noise, in dB."""
        torch.manual_seed(0)
        pairs = self.pairs(self.identities)
        drawn = self.reenact(self.driven_validation, self.validation_latents, pairs)
        truth = self.validation.images[pairs[:, 1]]
        return dict(validation=self.forward(self.validation_batch()).item(), psnr=psnr(drawn, truth).mean())

    def picture(self) -> Image.Image:
        """Rows of: reference, truth, result in 1 step."""
        pairs = self.pairs(SHOWN)
        drawn = self.reenact(self.driven_validation, self.validation_latents, pairs)
        rows = [self.validation.images[pairs[:, 0]], self.validation.images[pairs[:, 1]], drawn]
        return Image.fromarray(np.vstack([np.hstack(row) for row in rows]))


@dataclass(frozen=True)
class Run:
    """One training of the ablation. work: the work folder; base: the folder of its base; config: its
    configuration."""

    work: Path
    base: Path
    config: Path
    plan: Path
    out: Path
    parts: str
    attention: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.parts}_{self.attention}_{self.seed}"

    @property
    def curve(self) -> Path:
        """The csv that is there once the run has finished."""
        return self.out / "runs" / f"{self.name}.csv"

    @property
    def picture(self) -> Path:
        return self.curve.with_suffix(".jpg")

    def stage(self) -> AblationStage:
        """The stage at its start: the two attentions of a pair begin at the same weights."""
        shop, base = open_workshop(self.work, self.base, self.config)
        torch.manual_seed(self.seed)
        parts = shop.adapter_parts(base, ATTENTIONS[self.attention])
        return AblationStage(self.parts, read_json(self.plan)["validation_identities"], base.unet, *parts)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


@cache
def open_workshop(work: Path, base: Path, config: Path) -> tuple[Workshop, BaseStage]:
    """The work folder and its trained base; read once, for all runs of a process."""
    shop = Workshop(work, read_json(config))
    return shop, load_averaged(shop.base_stage(), base).requires_grad_(False).eval()


def validation_steps(plan: dict) -> list[int]:
    """The steps at which the curves have a point: evenly spaced, from the start to the last step."""
    return [round(plan["steps"] * i / plan["looks"]) for i in range(plan["looks"] + 1)]


def finish(run: Run) -> Run:
    """Train a run from where it was left, on one core, and write its curve; a finished run is left as it
    is."""
    if run.curve.exists():
        return run
    torch.set_num_threads(1)
    plan, folder = read_json(run.plan), run.out / "unfinished" / run.name
    folder.mkdir(parents=True, exist_ok=True)
    schedule = Schedule(
        minutes=1e9,  # the budget is counted in steps
        validate_minutes=1e9,
        **{key: plan[key] for key in ("batch", "learning_rate", "steps", "warmup", "ema")},
    )
    with (folder / "log.txt").open("a") as log, redirect_stdout(log), redirect_stderr(log):
        stage = run.stage()
        for step in validation_steps(plan):
            train(stage, replace(schedule, stop=step), folder, run.seed)
    facts = dict(parts=run.parts, attention=run.attention, seed=run.seed)
    parameters = sum(p.numel() for p in trained(stage).values())
    # A step that was resumed may be there twice
    rows = {int(row["step"]): row for row in read_log(folder / "log.csv")}
    run.curve.parent.mkdir(exist_ok=True)
    shutil.copy(folder / f"grid_{plan['steps']:07d}.jpg", run.picture)
    write_log(
        run.curve, [facts | rows[step] | dict(parameters=parameters) for step in validation_steps(plan)]
    )
    shutil.rmtree(folder)
    return run


@dataclass(frozen=True)
class Curves:
    """Of one attention of one pair: values of a column of the csv by seed and step (S, L); their
    steps (L,)."""

    rows: list[dict]

    def __getitem__(self, column: str) -> np.ndarray:
        seeds = sorted({int(row["seed"]) for row in self.rows})
        return np.array(
            [[float(row[column]) for row in self.rows if int(row["seed"]) == seed] for seed in seeds]
        )

    @property
    def steps(self) -> np.ndarray:
        return self["step"][0]


def by_attention(rows: list[dict]) -> dict[tuple[str, str], Curves]:
    """(parts, attention) -> curves, in the order of `PARTS` and `ATTENTIONS`."""
    return {
        (parts, attention): Curves(
            [row for row in rows if (row["parts"], row["attention"]) == (parts, attention)]
        )
        for parts in PARTS
        for attention in ATTENTIONS
    }


def mean_and_range(values: np.ndarray, digits: int) -> str:
    return f"{values.mean():.{digits}f} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def table(curves: dict[tuple[str, str], Curves]) -> str:
    """The last point of every curve as a Markdown table: mean over seeds, lowest and highest."""
    lines = [
        "| | attention | parameters | validation loss | PSNR, dB | seconds a step |",
        "|---|---|---|---|---|---|",
    ]
    for parts, title in PARTS.items():
        ends = {}
        for attention in ATTENTIONS:
            curve = curves[parts, attention]
            end = ends[attention] = {column: curve[column][:, -1] for column in ("validation", "psnr")}
            speed = (curve["seconds"][:, -1] / curve.steps[-1]).mean()
            figures = f"{mean_and_range(end['validation'], 4)} | {mean_and_range(end['psnr'], 2)}"
            lines.append(
                f"| {title} | {attention} | {int(curve['parameters'][0, 0]):,} | {figures} | {speed:.2f} |"
            )
        less = [ends["knitted"][column] - ends["plain"][column] for column in ("validation", "psnr")]
        figures = f"{mean_and_range(less[0], 4)} | {mean_and_range(less[1], 2)}"
        lines.append(f"| {title} | knitted less plain, seed by seed | | {figures} | |")
    return "\n".join(lines) + "\n"


def plot(curves: dict[tuple[str, str], Curves], path: Path) -> None:
    """A column a pair; lines are means over seeds, bands reach from the lowest to the highest."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(PARTS), 6), layout="constrained")
    axes = figure.subplots(2, len(PARTS), sharex=True)
    for (parts, attention), curve in curves.items():
        column = list(PARTS).index(parts)
        for axis, (name, label) in zip(axes[:, column], FIGURES.items(), strict=True):
            values, colour = curve[name], f"C{list(ATTENTIONS).index(attention)}"
            axis.plot(curve.steps, values.mean(0), color=colour, label=attention)
            axis.fill_between(curve.steps, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
            axis.set_ylabel(label)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(PARTS[parts])
        axes[1, column].set_xlabel("steps")
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def grid(runs: list[Run], path: Path) -> None:
    """Rows of: reference, truth, and what the first seed of every run of `runs` draws in 1 step, in their
    order."""
    pictures = [np.asarray(Image.open(run.picture)) for run in runs if run.seed == runs[0].seed]
    side = len(pictures[0]) // 3
    Image.fromarray(
        np.vstack([pictures[0][: 2 * side], *(picture[2 * side :] for picture in pictures)])
    ).save(path)


def report(runs: list[Run], out: Path) -> str:
    """Write what the runs add up to: `curves.csv`, `curves.png`, `grid.jpg` and `table.md`; returns the
    table."""
    rows = [row for run in runs for row in read_log(run.curve)]
    curves = by_attention(rows)
    write_log(out / "curves.csv", rows)
    plot(curves, out / "curves.png")
    grid(runs, out / "grid.jpg")
    (out / "table.md").write_text(table(curves))
    return table(curves)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluation.ablation", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="work folder with data, autoencoder and base"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the results; finished runs in it are kept"
    )
    parser.add_argument("--base", type=Path, help="folder of another base than the work folder's")
    parser.add_argument("--config", type=Path, default=CONFIGS / "demo.json", help="that of the work folder")
    parser.add_argument(
        "--plan", type=Path, default=CONFIGS / "ablation.json", help="seeds, steps and the like"
    )
    parser.add_argument("--processes", type=int, default=2, help="runs side by side, one core each")
    args = parser.parse_args(argv)

    base = args.base or args.folder / "base"
    for needed in (args.folder / "data", args.folder / "autoencoder", base):
        if not needed.is_dir():
            parser.error(f"There is no folder {needed}: run `python -m training.run {needed.name}` first.")
    plan = read_json(args.plan)
    runs = [
        Run(args.folder, base, args.config, args.plan, args.out, parts, attention, seed)
        for seed in plan["seeds"]
        for parts in PARTS
        for attention in ATTENTIONS
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    begun = args.out / "plan.json"
    if begun.exists() and read_json(begun) != plan:
        parser.error(f"{args.out} was begun with another plan: choose another folder, or remove it.")
    shutil.copy(args.plan, begun)

    bar = tqdm(total=len(runs), desc="runs")
    if args.processes == 1:
        for _ in map(finish, runs):
            bar.update()
    else:
        # A spawned process opens the work folder once, for all of its runs.
        with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
            for _ in pool.imap_unordered(finish, runs):
                bar.update()
    bar.close()
    shutil.rmtree(args.out / "unfinished", ignore_errors=True)
    print(report(runs, args.out))


if __name__ == "__main__":
    main()
