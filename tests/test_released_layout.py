"""Names and shapes of every tensor in the released files, and folders in the released form."""

import json
import re
from pathlib import Path

import pytest
import torch

from hellomeme.models.adapters import (
    HM3ReferenceAdapter,
    HM5bReferenceAdapter,
    HM5ReferenceAdapter,
    HMReferenceAdapter,
)
from hellomeme.models.control import (
    HMControlNet,
    HMControlNet2,
    HMV2ControlNet,
    HMV2ControlNet2,
    HMV3ControlNet,
)
from hellomeme.models.control_base import (
    HM4SD15ControlProj,
    HM5ControlNetBase,
    HM5SD15ControlProj,
    HMControlNetBase,
)
from hellomeme.models.fan_encoder import FanEncoder
from hellomeme.models.knitted_motion import HM3MotionAdapter, HM5MotionAdapter

TABLES = Path(__file__).parent / "fixtures" / "tensors"
RELEASED = {
    "HMControlNet": HMControlNet,
    "HMControlNet2": HMControlNet2,
    "HMV2ControlNet": HMV2ControlNet,
    "HMV2ControlNet2": HMV2ControlNet2,
    "HMV3ControlNet": HMV3ControlNet,
    "HMControlNetBase": HMControlNetBase,
    "HM5ControlNetBase": HM5ControlNetBase,
    "HM4SD15ControlProj": HM4SD15ControlProj,
    "HM5SD15ControlProj": HM5SD15ControlProj,
    "HMReferenceAdapter_v1": HMReferenceAdapter,
    "HMReferenceAdapter_v2": HMReferenceAdapter,
    "HM3ReferenceAdapter": HM3ReferenceAdapter,
    "HM5ReferenceAdapter": HM5ReferenceAdapter,
    "HM5bReferenceAdapter": HM5bReferenceAdapter,
    "HM3MotionAdapter": HM3MotionAdapter,
    "HM5MotionAdapter": HM5MotionAdapter,
    "FanEncoder": FanEncoder,
}


def table(name):
    """The config (None where the released one carries no arguments) and name -> (shape, type) of every
    tensor."""
    lines = (TABLES / f"{name}.tsv").read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    config = json.loads(re.search(r"content=(\{.*\}|null)", header)[1])
    tensors = {}
    for line in lines:
        if not line.startswith("#"):
            tensor, shape, dtype = line.split("\t")[:3]
            tensors[tensor] = (
                [] if shape == "scalar" else [int(n) for n in shape.split("x")],
                f"torch.{dtype}",
            )
    return config, tensors


def layout(net):
    return {name: (list(x.shape), str(x.dtype)) for name, x in net.state_dict().items()}


@pytest.mark.parametrize("name", RELEASED)
def test_default_widths_have_the_released_tensors(name):
    config, tensors = table(name)
    with torch.device("meta"):
        net = RELEASED[name].from_config(config or {"_class_name": name})
    assert layout(net) == tensors


def test_adapter_without_version_is_v1():
    config, tensors = table("HMReferenceAdapter_v1")
    del config["version"]
    with torch.device("meta"):
        assert layout(HMReferenceAdapter.from_config(config)) == tensors
        assert layout(HMReferenceAdapter()) == tensors


DOWN = {"block_out_channels": [8, 16, 32, 32], "cross_attention_dim": 16, "scale_factor": 4}
UP = {"block_out_channels": [8, 16, 16, 32, 32], "cross_attention_dim": 16, "scale_factor": 2}
PLACES = {
    "block_down_channels": [16, 32, 32, 32],
    "block_up_channels": [32, 32, 32, 32],
    "num_attention_heads": 4,
}
BASE = {"in_channels": 3, "cross_attention_dim": 16, "block_out_channels": [8, 16, 32]}
PROJECTION = {"base_channels": [8, 16, 32], "unet_channels": [16, 32, 32, 32]}
SMALL = {
    "HMControlNet": DOWN | {"embedding_channels": 1280, "input_channels": 3},
    "HMControlNet2": DOWN | {"embedding_channels": 1280, "input_channels": 3},
    "HMV2ControlNet": UP,
    "HMV2ControlNet2": UP,
    "HMV3ControlNet": UP | {"down_channels": [8, 16]},
    "HMControlNetBase": BASE,
    "HM5ControlNetBase": BASE,
    "HM4SD15ControlProj": PROJECTION,
    "HM5SD15ControlProj": PROJECTION,
    "HMReferenceAdapter_v1": {  # no version, as in the released file
        "block_out_channels": [16, 32, 32, 32],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "num_attention_heads": 4,
    },
    "HMReferenceAdapter_v2": {
        "block_out_channels": [16, 32, 32, 32],
        "num_attention_heads": 4,
        "version": "v2",
    },
    "HM3ReferenceAdapter": PLACES | {"use_3d": False},
    "HM5ReferenceAdapter": PLACES | {"use_3d": False},
    "HM5bReferenceAdapter": PLACES | {"use_3d": False},
    "HM3MotionAdapter": PLACES | {"use_3d": True},
    "HM5MotionAdapter": {
        "block_down_channels": [32, 32, 32, 32],
        "block_up_channels": [32, 32, 32, 32],
        "num_attention_heads": 4,
    },
    "FanEncoder": {"pose_dim": 6, "eye_dim": 6},
}


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_folder_in_the_released_form_loads_whole(name, dtype, tmp_path):
    cls = RELEASED[name]
    torch.manual_seed(0)
    net = cls(**SMALL[name]).to(dtype).eval()
    net.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    config = {
        "_class_name": cls.__name__,
        "_diffusers_version": "0.31.0",
        "_name_or_path": "/somewhere",
        **SMALL[name],
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    loaded, info = cls.from_pretrained(tmp_path, torch_dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert layout(loaded) == layout(net)
    for tensor, x in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[tensor], x), tensor
