"""The networks reproduce the fixtures of the released implementation, in float32, to 1e-5 of the largest
output.

`python -m tests.test_parity` prints the achieved figure of each.
"""

import inspect
import json
import zlib
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors import safe_open

from hellomeme.models import adapters, control, control_base
from hellomeme.models.attention import SKCrossAttention, SKReferenceAttention
from hellomeme.models.fan_encoder import FanEncoder
from hellomeme.models.knitted_motion import (
    HM3MotionAdapter,
    HM5MotionAdapter,
    SKMotionModule,
    SKMotionModuleV5,
)
from hellomeme.models.stk_attention import SKReferenceAttentionV5, STKCrossAttention, STKReferenceModule
from hellomeme.models.unet import HMDenoisingNet, HMReferenceNet, adapted_unet_forward

FIXTURES = Path(__file__).parent / "fixtures" / "parity"
TOLERANCE = 1e-5


@cache
def fixture(name):
    """(constructor arguments and more, weights, inputs, outputs), all tensors in float32 or as stored
    integers."""
    parts = {"weights": {}, "in": {}, "out": {}}
    facts, tensors = stored(name)
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        parts[part][rest] = tensor.float() if tensor.is_floating_point() else tensor
    return facts, *parts.values()


def stored(name):
    """The facts and tensors of a file. It holds those only once that it has in common with another one: the
    fact `shared` says which, name of the other file -> tensors."""
    with safe_open(FIXTURES / f"{name}.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["json"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    for other, keys in facts.get("shared", {}).items():
        known = stored(other)[1]
        tensors |= {key: known[key] for key in keys}
    return facts, tensors


def under(tensors, prefix):
    return {key.removeprefix(prefix + "."): x for key, x in tensors.items() if key.startswith(prefix + ".")}


def deviation(ours, theirs):
    """Largest difference over the largest output, over tensors or dicts of tensors with the very same
    keys."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        return max(deviation(ours[key], theirs[key]) for key in theirs)
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def reference_attention(name, kind):
    facts, weights, inputs, outputs = fixture(name)
    kwargs = facts["kwargs"]
    if "blocks_time_embed_dim" in kwargs:
        kwargs = kwargs | {"time_width": kwargs["blocks_time_embed_dim"]}
        del kwargs["blocks_time_embed_dim"]
    net = kind(**kwargs)
    net.load_state_dict(weights)
    ours = {case: net(inputs[f"hidden_{case}"], net.prepare(inputs[f"ref_{case}"])) for case in outputs}
    return deviation(ours, outputs)


def cross_attention():
    facts, weights, inputs, outputs = fixture("b_sk_cross_attention")
    net = SKCrossAttention(**facts["kwargs"])
    net.load_state_dict(weights)
    ours = {"conv": net.conv(inputs["input"]), "y": net(inputs["input"], inputs["tokens"])}
    return deviation(ours, outputs)


def stk_cross_attention(name, tables):
    facts, weights, inputs, outputs = fixture(name)
    kwargs = {key: x for key, x in facts["kwargs"].items() if key != "temporal_attn"}
    net = STKCrossAttention(**kwargs, tables=tables)
    net.load_state_dict(weights)
    ours = net(inputs["input"].flatten(0, 1), inputs["tokens"].flatten(0, 1))  # frames as pictures
    return deviation(ours, outputs["y"].flatten(0, 1))


def control_net(name):
    facts, weights, inputs, outputs = fixture(name)
    net = getattr(control, facts["cls"])(**facts["kwargs"])
    net.load_state_dict(weights)
    return deviation(net(**inputs), outputs)


def motion_module():
    facts, weights, inputs, outputs = fixture("m_v3_sk_motion_module")
    net = SKMotionModule(**facts["kwargs"])
    net.load_state_dict(weights)
    return deviation(net(inputs["hidden"], inputs["temb"], facts["num_frames"], inputs["pad"]), outputs["y"])


def motion_module_v5():
    facts, weights, inputs, outputs = fixture("m_v5_sk_motion_module")
    net = SKMotionModuleV5(**facts["kwargs"])
    net.load_state_dict(weights)
    frames = facts["num_frames"]
    ours = {
        "y_pad": net(inputs["hidden"], None, frames, inputs["pad"]),
        "y_nopad": net(inputs["hidden"], None, frames),
    }
    return deviation(ours, outputs)


def denoiser(name):
    """Deviations of the noise prediction, of the reference's feature maps and, where stored, of the
    denoiser's own."""
    facts, weights, inputs, outputs = fixture(name)
    widths = facts["unet_kwargs"]["block_out_channels"]
    adapter = made(getattr(adapters, facts["adapter"]), widths, **facts["adapter_kwargs"])
    base = UNet2DConditionModel(**facts["unet_kwargs"])
    unet = base
    if "motion_adapter_kwargs" in facts:
        unet = UNetMotionModel.from_unet2d(base, MotionAdapter(**facts["motion_adapter_kwargs"]))
    unet_weights = {key: x for key, x in weights.items() if not key.startswith("reference_modules")}
    adapter_keys = adapter.load_state_dict(
        {k: x for k, x in weights.items() if k not in unet_weights}, strict=False
    )
    assert not adapter_keys.unexpected_keys and all(key.endswith(".pe") for key in adapter_keys.missing_keys)
    missing, unexpected = unet.load_state_dict(unet_weights, strict=False)
    assert not unexpected and all(key.endswith(".pe") for key in missing)
    base.load_state_dict({key: x for key, x in unet_weights.items() if "motion_modules" not in key})

    reference = HMReferenceNet(base)(inputs["ref_latent"].squeeze(2), inputs["ref_text"])
    prepared = adapter.prepare(reference)
    controls = under(inputs, "control")
    net = HMDenoisingNet(unet, adapter)
    noise = net(inputs["sample"], facts["timestep"], inputs["text"], prepared, controls)
    own = adapted_unet_forward(
        unet, inputs["sample"], inputs["timestep"], inputs["text"], adapter, prepared, controls
    ).features

    ref_cache, main_cache = under(outputs, "ref_cache"), under(outputs, "main_cache")
    result = {
        "noise_pred": deviation(noise, outputs["noise_pred"]),
        "ref_cache": deviation({place: reference[place] for place in ref_cache}, ref_cache),
    }
    if main_cache:
        result["main_cache"] = deviation({place: own[place] for place in main_cache}, main_cache)
    return result


def made(kind, unet_widths, **sizes):
    """With the width of the time embedding, where it depends on that."""
    has_time = "time_width" in inspect.signature(kind).parameters
    return kind(**sizes, **({"time_width": 4 * unet_widths[0]} if has_time else {}))


def moving_denoiser(name, adapter_class, motion_class):
    """Deviations of the noise prediction with motion modules at the places, and of the reference's feature
    maps."""
    facts, weights, inputs, outputs = fixture(name)
    unet = UNet2DConditionModel(**facts["unet_kwargs"])
    widths, heads = facts["unet_kwargs"]["block_out_channels"], facts["adapter_kwargs"]["num_attention_heads"]
    places = {"block_down_channels": widths, "block_up_channels": [widths[-1], *widths[:0:-1]]}

    adapter = made(adapter_class, widths, **facts["adapter_kwargs"])
    motion = made(motion_class, widths, **places, num_attention_heads=heads)
    for net, prefix in ((adapter, "reference_modules"), (motion, "motion_")):
        own = {key: x for key, x in weights.items() if key.startswith(prefix)}
        missing, unexpected = net.load_state_dict(own, strict=False)
        assert own and not unexpected and all(key.endswith(".pe") for key in missing)
    unet.load_state_dict(
        {key: x for key, x in weights.items() if not key.startswith(("reference_modules", "motion_"))}
    )

    reference = HMReferenceNet(unet)(inputs["ref_latent"].squeeze(2), inputs["ref_text"])
    noise = HMDenoisingNet(unet, adapter)(
        inputs["sample"],
        inputs["timestep"],
        inputs["text"],
        adapter.prepare(reference),
        under(inputs, "control"),
        motion.modules_at(under(inputs, "pad")),
    )
    cache = under(outputs, "ref_cache")
    return {
        "noise_pred": deviation(noise, outputs["noise_pred"]),
        "ref_cache": deviation({place: reference[place] for place in cache}, cache),
    }


def seeded_weights(net):
    """The fixture of the encoder holds no weights but the rule that makes them, from the tensors' names."""
    state = net.state_dict()
    for name, old in state.items():
        if name.endswith(("num_batches_tracked", ".pe")):
            continue
        r = torch.randn(old.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if name.endswith("running_var"):
            state[name] = 1 + 0.1 * r.abs()
        elif r.ndim >= 2:
            state[name] = r / r[0].numel() ** 0.5
        elif name.endswith(".weight"):
            state[name] = 1 + 0.1 * r
        else:
            state[name] = 0.1 * r
    return state


def full_size(name, kind):
    """A network at its released size, which is too large for a fixture: its weights follow from their names,
    and of its outputs every 16th channel is stored."""
    facts, _, inputs, outputs = fixture(name)
    net = kind().eval()
    net.load_state_dict(seeded_weights(net))
    return net, inputs, outputs, slice(None, None, facts["every"])


def either_control(name, kind, proj_name=None, proj_kind=None):
    """A control net with each of the expressions; projections were recorded on those of the code."""
    net, inputs, outputs, stored = full_size(name, kind)
    pose, result = inputs["condition"], {}
    for case, expression in {"coeff": ("drive_coeff", "face_parts"), "emo": ("emo_embedding",)}.items():
        maps = net(pose, **{key: inputs[key] for key in expression})
        result[case] = deviation({key: x[:, stored] for key, x in maps.items()}, under(outputs, case))
    if proj_name:
        net, _, outputs, stored = full_size(proj_name, proj_kind)
        result["proj"] = deviation({key: x[:, stored] for key, x in net(maps).items()}, outputs)
    return result


def fan_encoder():
    _, _, inputs, outputs = fixture("r_fan_encoder")
    net = FanEncoder().eval()
    net.load_state_dict(seeded_weights(net))
    return deviation({"code": net(inputs["image"]), "negative": net.negative()}, outputs)


CASES = {
    **{
        name: lambda name=name, kind=kind: reference_attention(name, kind)
        for name, kind in {
            "a_sk_reference_attention": SKReferenceAttention,
            "a_v3_sk_reference_attention": SKReferenceAttention,
            "a_v5_sk_reference_attention": SKReferenceAttentionV5,
            "a_v5b_stk_reference_module": STKReferenceModule,
        }.items()
    },
    "b_sk_cross_attention": cross_attention,
    "b_v4_stk_cross_attention": lambda: stk_cross_attention("b_v4_stk_cross_attention", (64, 64)),
    "b_v5_stk_cross_attention": lambda: stk_cross_attention("b_v5_stk_cross_attention", None),
    **{
        name: lambda name=name: control_net(name)
        for name in ("c_hm_control_net", "c_v2_control_net", "d_hm_control_net2", "d_v2_control_net2")
    },
    **{
        name: lambda name=name: denoiser(name)
        for name in (
            *(f"e_{release}_denoising3d" for release in ("v1", "v2", "v3", "v5", "v5b")),
            "f_v1_denoising_motion",
        )
    },
    "f_v3_denoising3d_motion": lambda: moving_denoiser(
        "f_v3_denoising3d_motion", adapters.HM3ReferenceAdapter, HM3MotionAdapter
    ),
    "f_v5_denoising3d_motion": lambda: moving_denoiser(
        "f_v5_denoising3d_motion", adapters.HM5ReferenceAdapter, HM5MotionAdapter
    ),
    "m_v3_sk_motion_module": motion_module,
    "m_v5_sk_motion_module": motion_module_v5,
    "r_fan_encoder": fan_encoder,
    "r_v3_control_mix": lambda: either_control("r_v3_control_mix", control.HMV3ControlNet),
    "r_v4_control": lambda: either_control(
        "r_v4_control_base",
        control_base.HMControlNetBase,
        "r_v4_control_proj",
        control_base.HM4SD15ControlProj,
    ),
    "r_v5_control": lambda: either_control(
        "r_v5_control_base",
        control_base.HM5ControlNetBase,
        "r_v5_control_proj",
        control_base.HM5SD15ControlProj,
    ),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_reproduces_the_released_implementation(name):
    result = CASES[name]()
    figures = result if isinstance(result, dict) else {"output": result}
    for what, figure in figures.items():
        print(f"{name:28} {what:12} {figure:.1e}")
        assert figure < TOLERANCE, (what, figure)


if __name__ == "__main__":
    for case in CASES:
        test_reproduces_the_released_implementation(case)
