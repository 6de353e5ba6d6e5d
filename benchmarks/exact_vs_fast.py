"""The fast first pass against the exact one, on whole clips:
`python benchmarks/exact_vs_fast.py [--release v1]`.

Exact, each frame begins from the one before it; fast, each begins from noise, several in a batch. The second
pass is the same. Prints how far the results are apart, beside how far another seed takes them, and how long
each takes.

The demo has no first pass: its noise schedule ends in pure noise, under which nothing of a first pass is
left. So that the question can be put to trained networks without v1's weights, it is given both here: the
first pass, and Stable Diffusion's own schedule, which leaves something (a signal of 0.07 beside the noise).
That is near to what its networks were trained on, but not the same, and its pictures are worse for it.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import head, machine, model
from photos import toon

from hellomeme.io.ffmpeg import read_frames
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import add_motion, face_basis, load
from hellomeme.releases.table import ClipSampler
from hellomeme.settings import ClipSettings, Settings
from hellomeme.video import Report

OTHER_SEED = "exact, another seed"
WAYS = {"exact": (False, 0), "fast": (True, 0), OTHER_SEED: (False, 1)}  # fast, seed


def signal_to_noise(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two clips (T, H, W, 3) uint8; infinite if they are the same."""
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def with_first_pass(release: str, device: str | None = None) -> tuple[Reenactor, str]:
    """A reenactor whose clips have a first pass, and in words what it was given for that."""
    pipeline, encoders, row = load(model(release), device=device)
    about = "as released"
    if not row.clip_sampler.first_pass:
        row, about = (
            dataclasses.replace(row, clip_sampler=ClipSampler(first_pass=True)),
            "given a first pass and Stable Diffusion's schedule",
        )
        pipeline.scheduler = type(pipeline.scheduler).from_config(
            pipeline.scheduler.config, rescale_betas_zero_snr=False
        )
    if not add_motion(pipeline, row):
        # Without a motion module there is no second pass: one without effect shows the first as it is
        from training.stages.motion_module import make_motion_adapter

        unet = pipeline.unet
        widths = unet.config.block_out_channels
        made = make_motion_adapter(widths, unet.config.layers_per_block, 4, (1,) * len(widths))
        pipeline.register_modules(motion_adapter=torch.nn.Module.to(made, unet.device, unet.dtype))
        about += ", with a motion module that has no effect"
    return Reenactor(pipeline, row, encoders, basis=face_basis(row)), about


@dataclasses.dataclass
class Clips:
    """The clips of each way, (T, H, W, 3) uint8, the seconds that each took, and a report of one of them."""

    made: dict[str, np.ndarray]
    seconds: dict[str, float]
    report: Report


def drawn(reenactor: Reenactor, frames: int, steps: int | None) -> Clips:
    """A clip of each way."""
    reenactor.set_reference(toon(3))
    clips = Clips({}, {}, None)
    with tempfile.TemporaryDirectory() as folder:
        driver = head(Path(folder) / "driver.mp4", 1)
        for way, (fast, seed) in {"warm-up": (True, 0), **WAYS}.items():
            began = time.monotonic()
            clips.report = reenactor.video(
                driver,
                Path(folder) / "out.mp4",
                Settings(steps=steps, seed=seed),
                ClipSettings(frames=2 if way == "warm-up" else frames, start=0, fast=fast),
            )
            clips.made[way] = np.stack(list(read_frames(clips.report.path, clips.report.rate)))
            clips.seconds[way] = time.monotonic() - began
    return clips


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--release", default="demo", help="a release, a folder, or tiny: random networks of the demo's layout"
    )
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument(
        "--steps", type=int, help="of the second pass; of the first it is as many, but at most 10"
    )
    parser.add_argument("--device")
    options = parser.parse_args()
    print(machine())
    reenactor, about = with_first_pass(options.release, options.device)
    clips = drawn(reenactor, options.frames, options.steps)
    made, seconds, settings = clips.made, clips.seconds, clips.report.settings
    print(
        f"{reenactor.release.name}, {about}: {options.frames} frames, {settings.steps} steps, "
        f"guidance {settings.guidance:g}"
    )
    for way in ("fast", OTHER_SEED):
        print(f"{way} against exact: {signal_to_noise(made['exact'], made[way]):.1f} dB PSNR")
    for way in ("exact", "fast"):
        steps = np.square(np.diff(made[way].astype(float), axis=0)).mean()
        print(
            f"{way}: {seconds[way]:.1f} s with reading and writing; squared difference between frames "
            f"{steps:.1f}"
        )
    print(f"time of fast against exact: {seconds['fast'] / seconds['exact']:.2f}")


if __name__ == "__main__":
    main()
