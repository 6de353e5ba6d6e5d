"""Write a trained demo model in the layout of a released one, and take one apart again to train it
further."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from hellomeme.models.autoencoder import PatchAutoencoder
from hellomeme.releases.table import FACE_BASIS


def export_base(
    folder: Path,
    autoencoder: PatchAutoencoder,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scheduler: DDIMScheduler,
    reference_control: bool = True,
) -> None:
    """The base as Stable Diffusion's folders, fp16 safetensors.

    reference_control: whether the adapters were trained with a reference that is seen with control maps of
    its own.
    """
    for name, part in (("vae", autoencoder), ("unet", unet), ("text_encoder", text_encoder)):
        part.half().save_pretrained(folder / name, safe_serialization=True)
        part.float()
    tokenizer.save_pretrained(folder / "tokenizer")
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "reference_control": reference_control,
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", type(scheduler).__name__],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["hellomeme.models.autoencoder", "PatchAutoencoder"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def export_adapters(folder: Path, adapters: dict[str, nn.Module]) -> None:
    """Folder name -> adapter or control net, fp16 safetensors."""
    for name, module in adapters.items():
        module.half().save_pretrained(folder / name, safe_serialization=True)
        module.float()


# In the metadata of imported adapters that were trained with a reference that is seen without control maps of
# its own. Training overwrites it.
ALONE = "reference alone"

# stage of training: where its parts lie in a model folder, and what its parameters are called there
PARTS = {
    "autoencoder": {"vae/diffusion_pytorch_model": "autoencoder."},
    "base": {"unet/diffusion_pytorch_model": "unet.", "text_encoder/model": "text_encoder."},
    "adapters": {
        "hm_reference/diffusion_pytorch_model": "adapter.",
        "hm_control/diffusion_pytorch_model": "controls.0.",
        "hm_control_up/diffusion_pytorch_model": "controls.1.",
    },
}


def take_apart(model: Path, work: Path) -> None:
    """Write an exported model to a work folder as the results of its stages, to train it further.

    Results that the work folder already has are kept.
    """
    for stage, parts in PARTS.items():
        result = work / stage / "averaged.safetensors"
        if result.exists():
            continue
        tensors = {}
        for file, prefix in parts.items():
            weights = load_file(model / f"{file}.safetensors")
            tensors |= {prefix + name: tensor.float() for name, tensor in weights.items()}
        result.parent.mkdir(parents=True, exist_ok=True)
        index = json.loads((model / "model_index.json").read_text())
        seen = index.get("reference_control") is True
        save_file(tensors, result, None if seen else {ALONE: "yes"})
    shutil.copytree(model / "tokenizer", work / "tokenizer", dirs_exist_ok=True)
    if (model / FACE_BASIS).is_file() and not (work / FACE_BASIS).exists():
        shutil.copy(model / FACE_BASIS, work / FACE_BASIS)
