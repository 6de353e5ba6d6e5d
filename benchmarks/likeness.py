"""What is saved, in likeness: `python benchmarks/likeness.py`.

The demo model draws pairs of the examples in bfloat16, and with 25 steps also with deep features reused and
with guidance on some of the steps only; each is compared with the exact picture, by PSNR. The recorded run of
release v1 (tests/fixtures: small random networks, 25 steps) is drawn in the same ways and compared with the
released code's picture. For released weights: `--release v1`.
"""

import argparse
import dataclasses
import itertools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import ROOT, machine
from exact_vs_fast import signal_to_noise
from PIL import Image
from safetensors.torch import load_file

from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import find, load
from hellomeme.releases.table import Source
from hellomeme.settings import Settings

CASE = ROOT / "tests/fixtures/e2e_v1_image"
STEPS = 25
PLAIN, GUIDED = Settings(steps=STEPS), Settings(steps=STEPS, guidance=2)  # the demo is drawn without guidance
WAYS = {  # what is saved: the exact settings, and what changes
    "deep features at every 2nd step": (PLAIN, {"reuse": 2}),
    "deep features at every 3rd step": (PLAIN, {"reuse": 3}),
    "guidance on the first half of the steps": (GUIDED, {"guidance_end": 0.5}),
}


def pairs(count: int = 6) -> list[tuple]:
    """Example portraits with faces of others."""
    references, drivers = (
        sorted((ROOT / "examples" / name).glob("*.png")) for name in ("references", "drivers")
    )
    return list(itertools.islice(zip(itertools.cycle(references), itertools.cycle(drivers)), count))


def pictures(reenactor: Reenactor, settings: Settings) -> list[np.ndarray]:
    """A picture (H, W, 3) uint8 of each pair."""
    made = []
    for reference, driver in pairs():
        reenactor.set_reference(reference)
        made.append(np.asarray(reenactor.image(driver, settings).picture))
    return made


def compared(release: str, device: str | None) -> Iterator[tuple[str, list[float]]]:
    """Yields what is saved, and for each pair how near the picture is to the exact one, in dB."""
    exact = Reenactor.from_release(release, device=device, dtype=torch.float32)
    half = Reenactor.from_release(release, device=device, dtype=torch.bfloat16)
    yield "bfloat16", [*map(signal_to_noise, pictures(exact, Settings()), pictures(half, Settings()))]
    whole = {settings: pictures(exact, settings) for settings in (PLAIN, GUIDED)}
    for what, (settings, changes) in WAYS.items():
        made = pictures(exact, dataclasses.replace(settings, **changes))
        yield what, [*map(signal_to_noise, whole[settings], made)]


def recorded() -> Iterator[tuple[str, float]]:
    """Yields what is saved, and how near the picture of the recorded run is to the released code's, in dB."""
    facts, tensors = json.loads((CASE / "run.json").read_text()), load_file(CASE / "run.safetensors")
    picture = torch.from_numpy(np.array(Image.open(CASE / "ref_image.png").convert("RGB")))
    prompts = facts["prompt"], facts["negative"]
    expected = (tensors["images"][0] * 255).round().byte().numpy()
    with tempfile.TemporaryDirectory() as folder:
        official = shutil.copytree(CASE / "official_sd15", Path(folder) / "sd15")
        for part in ("tokenizer", "scheduler"):
            shutil.copytree(CASE / "checkpoint" / part, official / part)
        row = dataclasses.replace(
            find("v1"),
            root=CASE / "hub",
            base=Source.of(CASE / "checkpoint"),
            emotion_encoder=None,
            text_width=None,
        )
        exact, half = (
            load(row, device="cpu", dtype=dtype, reference_base=str(official))[0]
            for dtype in (torch.float32, torch.bfloat16)
        )
    for what, pipeline, changes in (
        ("bfloat16", half, {}),
        *((what, exact, changes) for what, (_, changes) in WAYS.items()),
    ):
        generator = torch.Generator().manual_seed(facts["generator_seed"])
        latents = pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, generator)
        made = pipeline(
            pipeline.prepare_reference(latents, *prompts),
            tensors["in.drive.condition"],
            emotion=tensors["in.drive.pd_fpg"],
            negative_emotion=tensors["in.drive.neg_pd_fpg"],
            prompt=prompts[0],
            negative_prompt=prompts[1],
            num_inference_steps=facts["steps"],
            guidance_scale=facts["guidance_scale"],
            generator=generator,
            **changes,
        ).frames[0]
        yield what, signal_to_noise(expected, np.asarray(made))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--release", default="demo", help="a release, or a folder")
    parser.add_argument("--device")
    options = parser.parse_args()
    print(machine())
    for what, values in compared(options.release, options.device):
        told = f"{np.median(values):6.1f} dB ({min(values):.1f} to {max(values):.1f})"
        print(f"{options.release + ': ' + what:<45}{told}", flush=True)
    for what, value in recorded():
        print(f"{'recorded run of v1: ' + what:<60}{value:6.1f} dB", flush=True)


if __name__ == "__main__":
    main()
