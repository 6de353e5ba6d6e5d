"""The logs of a work folder as a picture: how each stage of training went."""

from __future__ import annotations

import csv
from pathlib import Path

from hellomeme.errors import HelloMemeError

AXES = ("step", "seconds")  # columns of a log that are not figures
COLUMNS = 4  # of panels


def read_logs(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Stage -> rows of its `log*.csv` in order of steps (a stage that was run in parts may have several).

    Raises HelloMemeError where there is none.
    """
    stages: dict[str, list[dict[str, float]]] = {}
    for path in sorted(folder.glob("*/log*.csv")):
        with path.open(newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)
            ]
        stages.setdefault(path.parent.name, []).extend(rows)
    if not any(stages.values()):
        raise HelloMemeError(
            f"There are no logs of training in {folder}: give the work folder of training.run."
        )
    return {name: sorted(rows, key=lambda row: row["step"]) for name, rows in stages.items() if rows}


def curves(folder: Path, path: Path) -> None:
    """Plot every figure of every log under `folder` over the steps into the JPEG `path`."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = {}  # title -> points
    for stage, rows in read_logs(folder).items():
        for name in dict.fromkeys(name for row in rows for name in row if name not in AXES):
            panels[f"{stage}: {name}"] = [(row["step"], row[name]) for row in rows if name in row]
    shape = (-(-len(panels) // COLUMNS), COLUMNS)
    size = (2.6 * shape[1], 2.1 * shape[0])  # inches
    figure, axes = pyplot.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, points) in zip(axes.flat, panels.items(), strict=False):
        axis.plot(*zip(*points, strict=True), marker=".", linewidth=1)
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90, pil_kwargs={"quality": 88})
    pyplot.close(figure)
