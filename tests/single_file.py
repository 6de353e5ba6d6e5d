"""Writes a diffusers folder as one file in the layout of the original Stable Diffusion 1.5 checkpoints."""

import re
from pathlib import Path

from safetensors.torch import load_file, save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_key(key: str, layers: int = 2) -> str:
    if match := re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", key):
        side, block, kind, i, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        place = (layers + 1) * block + i
        if kind == "resnets":
            part, _, end = rest.partition(".")
            rest = f"{RESNET[part]}.{end}"
        if side == "down":
            if kind == "downsamplers":
                return f"input_blocks.{(layers + 1) * (block + 1)}.0.{rest.replace('conv', 'op')}"
            return f"input_blocks.{place + 1}.{0 if kind == 'resnets' else 1}.{rest}"
        if kind == "upsamplers":
            return f"output_blocks.{(layers + 1) * block + layers}.{1 if block == 0 else 2}.{rest}"
        return f"output_blocks.{place}.{0 if kind == 'resnets' else 1}.{rest}"
    if match := re.match(r"mid_block\.(\w+\.\d)\.(.*)", key):
        rest = match[2]
        if match[1].startswith("resnets"):
            part, _, end = rest.partition(".")
            rest = f"{RESNET[part]}.{end}"
        return f"middle_block.{MIDDLE[match[1]]}.{rest}"
    name, _, end = key.rpartition(".")
    return f"{OUTER[name]}.{end}"


def vae_key(key: str, blocks: int = 4) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0." in key:
        head, part = key.split("mid_block.attentions.0.")
        name, _, end = part.rpartition(".")
        key = f"{head}mid.attn_1.{ATTENTION[name]}.{end}"
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


def write_single_file(folder: Path, path: Path) -> Path:
    """The UNet, autoencoder and text encoder of `folder` in one .safetensors file."""
    tensors = {}
    for key, value in load_file(folder / "unet/diffusion_pytorch_model.safetensors").items():
        tensors[f"model.diffusion_model.{unet_key(key)}"] = value
    for key, value in load_file(folder / "vae/diffusion_pytorch_model.safetensors").items():
        name = vae_key(key)
        is_projection = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        tensors[f"first_stage_model.{name}"] = (
            value[:, :, None, None].contiguous() if is_projection else value
        )
    for key, value in load_file(folder / "text_encoder/model.safetensors").items():
        key = key if key.startswith("text_model.") else f"text_model.{key}"
        tensors[f"cond_stage_model.transformer.{key}"] = value
    save_file(tensors, path)
    return path
