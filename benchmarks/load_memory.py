"""Peak memory and time of loading release v1 at its real size, with weights that are all zero:
`python benchmarks/load_memory.py [--kinds bfloat16 float32]`. It writes some 9 GB to a temporary folder."""

import argparse
import dataclasses
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, machine, status

LIMIT = 1.15
CHECKPOINT = ROOT / "tests" / "fixtures" / "e2e_v1_image" / "checkpoint"  # for its tokenizer
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--kinds", nargs="+", default=["bfloat16", "float16", "float32"], help="used as")
parser.add_argument("--one", nargs=4, help="load this folder and base with this kind and reference base")
options = parser.parse_args()


def row(folder: Path):
    from hellomeme.releases.load import find
    from hellomeme.releases.table import Source

    base = Source.of(folder / "base_f16")
    return dataclasses.replace(find("v1"), root=folder / "nets", base=base, emotion_encoder=None)


def one(folder: str, base: str, kind: str, reference_base: str) -> None:
    """Loads in this process, and prints the peak and the size of the weights, in bytes, and the seconds."""
    import torch

    from hellomeme.releases.load import load

    load("demo", device="cpu")  # so that the libraries' own memory is taken before
    before, began = status("VmRSS"), time.monotonic()
    dtype = getattr(torch, kind)
    pipeline = load(row(Path(folder)), base, "cpu", dtype, reference_base=reference_base or None)[0]
    seconds, peak = time.monotonic() - began, status("VmHWM") - before
    networks = {id(part): part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)}
    size = sum(tensor.nbytes for part in networks.values() for tensor in part.parameters())
    print(peak, size, seconds)


def write(folder: Path) -> None:
    import torch
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from safetensors.torch import save_file
    from single_file import write_single_file
    from transformers import CLIPTextConfig, CLIPTextModel

    from hellomeme.models.adapters import HMReferenceAdapter
    from hellomeme.models.control import HMControlNet2

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    widths = (128, 256, 512, 512)
    text = CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_attention_heads=12)
    with init_empty_weights():
        networks = {
            "base/unet": UNet2DConditionModel(cross_attention_dim=768),
            "base/vae": AutoencoderKL(3, 3, down, up, widths, 2),
            "base/text_encoder": CLIPTextModel(text),
            "nets/hm_reference": HMReferenceAdapter(),
            "nets/hm_control2": HMControlNet2(),
        }
    for end, dtype in {"f16": torch.float16, "f32": torch.float32}.items():
        for name, network in networks.items():
            place = folder / name.replace("base", f"base_{end}")
            place.mkdir(parents=True, exist_ok=True)
            tensors = {key: torch.zeros(x.shape, dtype=dtype) for key, x in network.state_dict().items()}
            file = "model" if "text_encoder" in name else "diffusion_pytorch_model"
            save_file(tensors, place / f"{file}.safetensors")
            save = network.config.save_pretrained if "text_encoder" in name else network.save_config
            save(place)
        for part in ("tokenizer", "scheduler"):
            shutil.copytree(CHECKPOINT / part, folder / f"base_{end}" / part)
        write_single_file(folder / f"base_{end}", folder / f"{end}.safetensors")


if options.one:
    one(*options.one)
    sys.exit()
print(machine())
worst = 0.0
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write(folder)
    bases = [(f"base_{end}", f"{end}.safetensors") for end in ("f16", "f32")]
    for base in (name for pair in bases for name in pair):
        for kind in options.kinds:
            for seeing in ("", str(folder / base)) if base == "base_f16" else ("",):
                command = [sys.executable, __file__, "--one", name, str(folder / base), kind, seeing]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                peak, size, seconds = map(float, done.stdout.split()[-3:])
                worst = max(worst, peak / size)
                print(
                    f"{base} as {kind}{', seen by itself' if seeing else ''}: peak {peak / 1e9:.2f} GB, "
                    f"weights {size / 1e9:.2f} GB, ratio {peak / size:.2f}, {seconds:.1f} s",
                    flush=True,
                )
print(f"{'pass' if worst <= LIMIT else 'FAIL'}: worst ratio {worst:.2f}, at most {LIMIT}")
sys.exit(worst > LIMIT)
