"""Whole clips recorded of the released code from v3 on, drawn again from the first random draw on:
`python benchmarks/released_run.py FOLDER ...`.

Prints how far the results are from the recorded ones. A folder holds the networks at tiny widths
(`checkpoint`, `official_sd15`, `hub`) and the run (`ref_image.png`, `run.json`, `run.safetensors`); a
stand-in takes the place of the control net. The tests draw a clip of v3 in this way.
"""

import sys
import time
from pathlib import Path

from common import machine
from stand_ins import RecordedRun

print(machine())
for folder in map(Path, sys.argv[1:]):
    run = RecordedRun(folder / "checkpoint", folder / "official_sd15", folder / "hub", folder)
    began = time.monotonic()
    latents = run.draw()
    seconds = time.monotonic() - began
    pictures = run.pipeline.decode(latents[:, :, :2])[0].permute(1, 2, 3, 0)
    figures = {"latents": run.deviation(latents), "pictures": (pictures - run.tensors["images"]).abs().max()}
    print(f"{folder.name}: {run.facts['f']} frames in {seconds:.1f} s; of the largest value,", end=" ")
    print(", ".join(f"{name} deviate by {figure:.1e}" for name, figure in figures.items()))
