"""The recorded clip of release v1, from the first draw to the pictures, exact and fast:
`python benchmarks/released_clip.py`.

Prints how far the result is from what the released code made, and how far the fast first pass is from the
exact one. The networks are the tests' tiny random ones; differences of trained networks are other than
theirs.
"""

import dataclasses
import shutil
import tempfile
import time
from pathlib import Path

import torch
from common import machine
from test_clip_sampling import CASE, NETWORKS, Image, deviation, json, load_file, np

from hellomeme.pipeline import Conditions
from hellomeme.releases.load import add_motion, find, load
from hellomeme.releases.table import Source, motion_module
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.plan import ClipPlan

print(machine())
facts, recorded = json.loads((CASE / "run.json").read_text()), load_file(CASE / "run.safetensors")
with tempfile.TemporaryDirectory() as folder:
    official = Path(folder) / "sd15"
    shutil.copytree(NETWORKS / "official_sd15", official)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(NETWORKS / "checkpoint" / part, official / part)
    row = dataclasses.replace(
        find("v1"),
        root=NETWORKS / "hub",
        base=Source.of(NETWORKS / "checkpoint"),
        emotion_encoder=None,
        text_width=None,
        motion=(motion_module(Source.of(CASE / "hm_animatediff_frame12")),),
    )
    pipeline = load(row, device="cpu", reference_base=str(official))[0]
add_motion(pipeline, row)
prompts = facts["prompt"], facts["negative"]
picture = torch.from_numpy(np.array(Image.open(NETWORKS / "ref_image.png").convert("RGB")))


def draw(fast: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(facts["generator_seed"])
    latents = pipeline.encode(picture.permute(2, 0, 1)[None] / 127.5 - 1, generator)
    plan = ClipPlan(facts["f"], facts["steps"], facts["guidance_scale"], fast=fast)

    def conditions(frames: np.ndarray) -> Conditions:
        return Conditions(
            recorded["in.drive.condition"][:, :, frames] / 127.5 - 1,
            emotion=recorded["in.drive.pd_fpg"][:, frames],
            negative_emotion=recorded["in.drive.neg_pd_fpg"],
        )

    reference, text = pipeline.prepare_reference(latents, *prompts), pipeline.encode_prompt(*prompts)
    began = time.monotonic()
    result = torch.cat(list(draw_clip(pipeline, reference, conditions, plan, text, generator)), 2)
    print(f"{'fast' if fast else 'exact'}: {facts['f']} frames in {time.monotonic() - began:.1f} s")
    return result


exact, fast = draw(False), draw(True)
expected = recorded["latents_over_scale"][:, :, : facts["f"]] * pipeline.vae.config.scaling_factor
frames = [pipeline.decode(latents)[0].permute(1, 2, 3, 0) for latents in (exact, fast)]
print(
    f"exact against the recording: latents {deviation(exact, expected):.1e}, "
    f"pictures {deviation(frames[0][:2], recorded['images']):.1e} of the largest value"
)
error = (frames[0] - frames[1]).square().mean().item()
print(
    f"fast against exact: latents {deviation(fast, exact):.1e} of the largest value, "
    f"pictures {-10 * np.log10(error):.1f} dB PSNR"
)
