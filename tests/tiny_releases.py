"""Releases in their released layout at tiny widths, with random weights, for the stand-in of the hub."""

import dataclasses
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import torch
from conftest import write_model_folder
from diffusers import AutoencoderKL

from hellomeme.releases.table import Network, Release

WIDTHS = (32, 32, 32, 32)  # v5 normalises in groups of 32
SIZE = 128  # px
BASE_WIDTHS = (16, 16, 16)  # of the control nets in two parts
PLACES = {"block_down_channels": WIDTHS, "block_up_channels": WIDTHS, "num_attention_heads": 4}
BASE = {"cross_attention_dim": 32, "block_out_channels": BASE_WIDTHS}
PROJECTION = {"base_channels": BASE_WIDTHS, "unet_channels": WIDTHS}
TIME = {"time_width": 4 * WIDTHS[0]}
SMALL = {
    "HM3ReferenceAdapter": PLACES,
    "HM5ReferenceAdapter": PLACES | TIME,
    "HM5bReferenceAdapter": PLACES,
    "HM3MotionAdapter": PLACES | TIME,
    "HM5MotionAdapter": PLACES,
    "HMV3ControlNet": {
        "cross_attention_dim": 32,
        "block_out_channels": (8, *WIDTHS),
        "down_channels": WIDTHS[:2],
    },
    "HMControlNetBase": BASE,
    "HM5ControlNetBase": BASE,
    "HM4SD15ControlProj": PROJECTION,
    "HM5SD15ControlProj": PROJECTION,
    "MotionAdapter": {
        "block_out_channels": WIDTHS,
        "motion_layers_per_block": 1,
        "motion_norm_num_groups": 8,
        "motion_num_attention_heads": 4,
        "use_motion_mid_block": False,
    },
}


def networks(row: Release) -> Iterator[Network]:
    """All networks of a row."""
    yield row.reference
    yield from row.controls
    yield from row.motion


def write_repositories(row: Release, folder: Path) -> dict[str, Path]:
    """Hub id -> folder of everything that the row names, for `hub.serve`."""
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )
    base = write_model_folder(folder / "base", latent_channels=4, vae=vae, widths=WIDTHS)
    repositories = {row.base.elsewhere: base}
    for net in networks(row):
        kind = pkgutil.resolve_name(net.class_path)
        network = kind(**SMALL[kind.__name__])
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        network.save_pretrained(folder / net.source.folder)
        repositories[net.source.elsewhere] = folder / net.source.folder
    return repositories


def tiny(row: Release) -> Release:
    """The row for networks of these sizes, driven by ARKit coefficients alone, which need no encoder."""
    return dataclasses.replace(
        row,
        size=SIZE,
        condition_size=SIZE,
        text_width=None,
        controls=tuple(net for net in row.controls if net.expression_type == "drive_coeff"),
        emotion_encoder=None,
        face_parts_encoder=None,
    )
