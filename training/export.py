"""Write a trained demo model in the layout of a released one: a base folder, and a folder for each adapter."""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn


def export_base(folder: Path, autoencoder, unet, text_encoder, tokenizer, scheduler) -> None:
    """The base as Stable Diffusion's folders, fp16 safetensors."""
    for name, part in (("vae", autoencoder), ("unet", unet), ("text_encoder", text_encoder)):
        part.half().save_pretrained(folder / name, safe_serialization=True)
        part.float()
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["hellomeme.autoencoder", "PatchAutoencoder"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def export_adapters(folder: Path, adapters: dict[str, nn.Module]) -> None:
    """Folder name -> adapter or control net, fp16 safetensors."""
    for name, module in adapters.items():
        module.half().save_pretrained(folder / name, safe_serialization=True)
        module.float()
