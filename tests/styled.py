"""A tiny release on a tiny Stable Diffusion 1.5, a second base model, and LoRA for them, as files."""

import dataclasses
import shutil
from pathlib import Path

import photos
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file

from hellomeme.models.control import HMControlNet, HMControlNet2
from hellomeme.releases.load import find
from hellomeme.releases.table import Source, coefficients

CASE = Path(__file__).parent / "fixtures" / "e2e_v1_image"
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


def write_inputs(folder):
    """Two pictures with a face, reference.png and face.png, and a LoRA, own.safetensors."""
    for name, seed in (("reference", 3), ("face", 5)):
        Image.fromarray(photos.toon(seed)).save(folder / f"{name}.png")
    write_lora(folder / "own.safetensors", 1)
    return folder


def write_release(folder):
    """The row of v1 at small widths, for ARKit coefficients. Its networks lie in `folder`/nets, its own base
    model in `folder`/official, and another base model in `folder`/base."""
    shutil.copytree(CASE / "hub" / "hm_reference", folder / "nets" / "hm_reference")
    torch.manual_seed(0)
    config = HMControlNet2.load_config(CASE / "hub" / "hm_control2")
    HMControlNet.from_config(config).save_pretrained(folder / "nets" / "hm_control")
    shutil.copytree(CASE / "checkpoint", folder / "base")
    shutil.copytree(CASE / "official_sd15", folder / "official")
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(CASE / "checkpoint" / part, folder / "official" / part)
    return dataclasses.replace(
        find("v1"),
        root=folder / "nets",
        base=Source.of(folder / "official"),
        controls=(coefficients("HMControlNet", Source("hm_control")),),
        emotion_encoder=None,
        face_parts_encoder=None,
        motion=None,
        text_width=None,
        size=128,
        condition_size=128,
        steps=2,
    )


def write_lora(path, seed, text=True):
    """A LoRA of rank 2 for those base models: the keys of all attentions, of the text encoder's too."""
    numbers = torch.Generator().manual_seed(seed)
    tensors = {}
    for kind, file, end in (("unet", UNET, "to_k.weight"), ("text_encoder", TEXT, "k_proj.weight")):
        for key, weight in load_file(CASE / "checkpoint" / file).items():
            if key.endswith(end) and (text or kind == "unet"):
                name = f"{kind}.{key.removesuffix('.weight')}"
                tensors[f"{name}.lora_A.weight"] = torch.randn(2, weight.shape[1], generator=numbers)
                tensors[f"{name}.lora_B.weight"] = 0.2 * torch.randn(weight.shape[0], 2, generator=numbers)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path


def use_hub(monkeypatch, endpoint, cache):
    """Points huggingface_hub, which reads its environment once, to a stand-in and an empty cache."""
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
