"""The table, and everything that can be wrong with weights: each refusal is one sentence before anything is
drawn."""

import dataclasses
import json
import os
import pickle
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from hub import COMMIT, serve
from safetensors.torch import load_file, save_file
from single_file import write_single_file

from hellomeme.errors import HelloMemeError
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.models.control import HMControlNet, HMControlNet2, HMV2ControlNet2
from hellomeme.models.control_base import ControlProj
from hellomeme.releases import hub
from hellomeme.releases.load import available, choose_device, choose_dtype, find, load
from hellomeme.releases.table import EULER, RELEASES, SD15, ClipSampler, Source

CASE = Path(__file__).parent / "fixtures" / "e2e_v1_image"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def v1(**changes):
    """The row of v1 with the tiny networks of the recorded run, which has no emotion encoder."""
    changes = {
        "root": CASE / "hub",
        "base": Source.of(CASE / "checkpoint"),
        "emotion_encoder": None,
        "face_parts_encoder": None,
        "text_width": None,
        **changes,
    }
    return dataclasses.replace(find("v1"), **changes)


def refusal(name, **arguments):
    with pytest.raises(HelloMemeError) as error:
        load(name, device="cpu", **arguments)
    sentence = str(error.value)
    assert sentence.endswith((".", ").")) and "\n" not in sentence
    return sentence


@pytest.fixture
def copy(model_folder, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


def test_table():
    assert [row.name for row in RELEASES] == ["demo", "v1", "v2", "v3", "v4", "v5", "v5b", "v5c"]
    for row in RELEASES:
        types = {net.expression_type for net in row.controls}
        assert types <= {"drive_coeff", "pd_fpg"}
        assert (row.emotion_encoder is not None) == ("pd_fpg" in types)
        for net in (row.reference, row.emotion_encoder, *row.motion, *row.controls):
            assert net is None or isinstance(pkgutil.resolve_name(net.class_path), type)
        for net in row.controls:
            kind = pkgutil.resolve_name(net.class_path)
            is_projection = issubclass(kind, ControlProj)
            assert is_projection or net.expression_type in kind.expression.types
            assert is_projection == (net.slot == "hm_control_proj")
        assert find(row.name) is row
    assert "demo, v1, v2, v3, v4, v5, v5b, v5c" in refusal("v9")


def test_a_folder_loads_like_a_release(model_folder):
    pipeline, encoders, row = load(str(model_folder), device="cpu")
    assert encoders.emotion is None and pipeline.expression_types == {"drive_coeff"} and row.size == 128
    assert pipeline.unet.dtype == torch.float32 and not pipeline.unet.training
    assert not any(parameter.requires_grad for parameter in pipeline.unet.parameters())
    assert type(pipeline.scheduler).__name__ == "DDIMScheduler"  # the folder's own
    stored = load_file(model_folder / "unet" / WEIGHTS)
    assert all(torch.equal(value, stored[key]) for key, value in pipeline.unet.state_dict().items())


def test_released_rows_bring_their_own_scheduler():
    pipeline, _, row = load(v1(), device="cpu")
    config = pipeline.scheduler.config
    assert type(pipeline.scheduler).__name__ == "EulerDiscreteScheduler"  # the checkpoint has PNDM
    assert (config.beta_start, config.beta_end, config.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert (config.timestep_spacing, config.prediction_type) == ("linspace", "epsilon")
    assert pipeline.expression_types == {"pd_fpg"} and row.expression_type == "pd_fpg"


def test_a_folder_of_released_networks_finds_its_row(tmp_path):
    for name, parts in {
        "v1": ("hm_reference", "hm_control2"),
        "v2": ("hm2_reference", "hm2_control2"),
    }.items():
        for part in parts:
            (tmp_path / name / part).mkdir(parents=True)
        row = find(str(tmp_path / name))
        assert (row.reference, row.root, row.base) == (find(name).reference, tmp_path / name, SD15)
    assert "is not a model folder" in refusal(str(tmp_path))


def test_a_saved_pipeline_of_any_release_finds_its_row(tmp_path):
    """Its folders have the names of the pipeline's parts, which are nearly those of v1 on the hub."""
    for name, kind in (("v1", HMControlNet2), ("v2", HMV2ControlNet2)):
        for part, net in {"hm_reference": HMReferenceAdapter, "hm_control2": kind}.items():
            (tmp_path / name / part).mkdir(parents=True)
            (tmp_path / name / part / "config.json").write_text(json.dumps({"_class_name": net.__name__}))
        row = find(str(tmp_path / name))
        assert row.controls[0].class_path == find(name).controls[0].class_path
        assert row.controls[0].source.folder == "hm_control2" and row.expression_type == "pd_fpg"


def test_a_network_of_another_class_is_refused(copy):
    """The row says what a folder holds, not its config.json."""
    shutil.rmtree(copy / "hm_control")
    shutil.copytree(copy / "hm_control_up", copy / "hm_control")
    assert "hm_control holds a network of class HMV2ControlNet, not HMControlNet" in refusal(str(copy))


def test_control_nets_of_both_expressions_add_up(tmp_path):
    root = Path(shutil.copytree(CASE / "hub", tmp_path / "hub"))
    config = HMControlNet2.load_config(root / "hm_control2")
    torch.manual_seed(0)
    HMControlNet.from_config(config).save_pretrained(root / "hm_control")
    types = ("drive_coeff", "pd_fpg")
    pipeline, _, row = load(v1(root=root), device="cpu", expression_type=types)
    assert pipeline.expression_types == set(types) and len(pipeline.controls) == 2
    reference = pipeline.prepare_reference(torch.ones(1, 4, 16, 16))
    given = {
        "drive_coeff": torch.full((1, 1, 51), 0.5),
        "emotion": torch.linspace(-1, 1, 548).expand(1, 1, -1),
    }

    def draw(**expression):
        return pipeline(
            reference,
            torch.zeros(1, 3, 1, 128, 128),
            **expression,
            noise=torch.ones(1, 4, 1, 16, 16),
            num_inference_steps=1,
            guidance_scale=1.0,
            output_type="latent",
        ).latents

    both = draw(**given)
    assert both.isfinite().all()
    assert not any(torch.equal(both, draw(**{name: tensor})) for name, tensor in given.items())


def test_clips_may_have_a_scheduler_of_their_own():
    row = v1()
    assert load(row, device="cpu")[0].clip_scheduler is None  # the same as for pictures
    other = dataclasses.replace(row, clip_sampler=ClipSampler("DDIMScheduler", EULER))
    pipeline = load(other, device="cpu")[0]
    assert type(pipeline.clip_scheduler).__name__ == "DDIMScheduler"
    assert type(pipeline.scheduler).__name__ == "EulerDiscreteScheduler"


def test_an_expression_type_without_a_control_net_is_refused(model_folder):
    assert "has no control net for pd_fpg: choose from drive_coeff" in refusal(
        str(model_folder), expression_type="pd_fpg"
    )


def test_half_precision_files_are_found(copy):
    for part, name in (("unet", WEIGHTS), ("text_encoder", "model.safetensors")):
        (copy / part / name).rename(copy / part / name.replace(".safetensors", ".fp16.safetensors"))
    assert load(str(copy), device="cpu")[0].unet.dtype == torch.float32


def test_single_file_base_is_the_same_model(tmp_path):
    path = write_single_file(CASE / "checkpoint", tmp_path / "model.safetensors")
    one = load(v1(), base=str(path), device="cpu")[0]
    folder = load(v1(), device="cpu")[0]
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(folder, part).state_dict()
        loaded = getattr(one, part).state_dict()
        assert loaded.keys() == expected.keys() and all(
            torch.equal(loaded[key], expected[key]) for key in expected
        )


def test_lora_goes_through_diffusers_own_loader(model_folder, tmp_path):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = load(str(model_folder), device="cpu")[0]
    sample, text = torch.ones(1, 8, 16, 16), torch.ones(1, 16, 32)
    plain = pipeline.unet(sample, 1, text).sample
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k", "to_q"], init_lora_weights="gaussian"))
    layers = {
        key: torch.full_like(value, 0.1) for key, value in get_peft_model_state_dict(pipeline.unet).items()
    }
    pipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, weight_name="lora.safetensors")

    with_lora = load(str(model_folder), device="cpu", loras=[tmp_path / "lora.safetensors"])[0]
    full = with_lora.unet(sample, 1, text).sample
    halved = load(str(model_folder), device="cpu", loras=[(tmp_path, 0.5)])[0].unet(sample, 1, text).sample
    assert (full - plain).abs().max() > 1e-4
    assert 1e-5 < (halved - plain).abs().max() < (full - plain).abs().max()

    save_file({"nonsense.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    sentence = refusal(str(model_folder), loras=[tmp_path / "other.safetensors"])
    assert "other.safetensors is not a LoRA for this base" in sentence
    (tmp_path / "lora.pt").write_bytes(b"")
    assert "lora.pt is a pickle" in refusal(str(model_folder), loras=[tmp_path / "lora.pt"])
    assert "holds 2 .safetensors files" in refusal(str(model_folder), loras=[tmp_path])


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickles_are_never_opened(copy, tmp_path):
    weights = copy / "hm_reference" / WEIGHTS
    weights.write_bytes(pickle.dumps(Bomb()))
    assert "pickle under a safetensors name" in refusal(str(copy))
    with zipfile.ZipFile(weights, "w") as archive:  # torch.save's format
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    assert "pickle under a safetensors name" in refusal(str(copy))
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    assert "only pickled weights" in refusal(str(copy))
    for suffix in (".ckpt", ".pt", ".bin"):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(pickle.dumps(Bomb()))
        assert f"{path.name} is a pickle" in refusal(v1(), base=str(path))


def test_damage_is_told(copy):
    weights = copy / "hm_control" / WEIGHTS
    whole = weights.read_bytes()
    for damaged in (b"", whole[:1000], whole[:-100], b"<html>" + whole):
        weights.write_bytes(damaged)
        assert "damaged or incomplete" in refusal(str(copy))
    weights.unlink()
    assert f"has no {WEIGHTS}" in refusal(str(copy))
    config = copy / "hm_reference" / "config.json"
    for text in ("{", "[]", ""):
        config.write_text(text)
        assert "config.json is damaged" in refusal(str(copy))
    config.unlink()
    assert "has no config.json" in refusal(str(copy))


def test_missing_and_foreign_tensors_are_told(copy):
    path = copy / "hm_reference" / WEIGHTS
    tensors = load_file(path)
    first = sorted(tensors)[0]
    save_file({key: value for key, value in tensors.items() if key != first}, path)
    assert "hm_reference" in refusal(str(copy)) and first in refusal(str(copy))
    save_file({**tensors, "foreign.weight": torch.zeros(1)}, path)
    assert "foreign.weight" in refusal(str(copy))
    save_file(tensors, path)
    config = copy / "hm_reference" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "block_out_channels": [16, 32, 32, 64]}))
    assert "hm_reference" in refusal(str(copy))


def test_incomplete_base_is_told(copy):
    shutil.rmtree(copy / "vae")
    assert "has no folder vae" in refusal(str(copy))


def change_config(folder, **changes):
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_other_kinds_of_base_are_refused_before_they_are_loaded(copy, tmp_path):
    for part in ("unet", "vae", "text_encoder"):
        for path in (copy / part).glob("*.safetensors"):
            path.write_bytes(b"not looked at")
    change_config(copy, in_channels=4)
    vae = copy / "vae" / "config.json"
    vae.write_text(json.dumps({**json.loads(vae.read_text()), "latent_channels": 4}))
    for width, kind in ((1024, "Stable Diffusion 2"), (2048, "Stable Diffusion XL")):
        change_config(copy, cross_attention_dim=width)
        sentence = refusal(v1(text_width=768), base=str(copy))
        assert (
            f"is {kind} (its text is {width} wide, not 768): choose a model derived from Stable Diff"
            in sentence
        )
    change_config(copy, cross_attention_dim=768, in_channels=9)
    assert "inpainting" in refusal(v1(text_width=768), base=str(copy))
    change_config(copy, in_channels=4, block_out_channels=[320, 640, 1280, 1280])
    assert "does not fit this release" in refusal(v1(text_width=768), base=str(copy))

    single = tmp_path / "xl.safetensors"
    unet = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, 2048),
    }
    save_file(unet, single)
    assert "xl.safetensors is Stable Diffusion XL" in refusal(v1(text_width=768), base=str(single))
    save_file({"some.weight": torch.zeros(1)}, single)
    assert "it holds no UNet" in refusal(v1(), base=str(single))
    assert "There is no file" in refusal(v1(), base=str(tmp_path / "none.safetensors"))
    for typed in ("no/such/model", "./model", "../model", "a/model.safetensors"):
        assert refusal(v1(), base=typed).startswith("There is no ")
    assert "There is no folder or file ./style" in refusal(v1(), loras=["./style"])


def test_without_a_network_the_demo_remains(monkeypatch, tmp_path):
    sentence = refusal("v1")  # conftest keeps huggingface_hub offline
    assert sentence.startswith("The release v1 is not complete on this computer, and downloads are off: ")
    assert "songkey/hm_reference (config.json, weights); " in sentence and "demo" in sentence
    reasons = {name: reason for name, _, reason in available()}
    assert "4.8 GB" in reasons["v1"] and "cannot be reached" in reasons["v1"] and "demo" in reasons["v2"]


def test_what_can_run_here_is_known(model_folder, copy, monkeypatch):
    demo = dataclasses.replace(find("demo"), root=model_folder)
    monkeypatch.setattr("hellomeme.releases.load.RELEASES", (demo,))
    assert available() == [("demo", demo.title, None)]
    (copy / "hm_control" / WEIGHTS).unlink()
    monkeypatch.setattr("hellomeme.releases.load.RELEASES", (dataclasses.replace(demo, root=copy),))
    assert "has no weights for hm_control" in available()[0][2]


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(HelloMemeError, match="no device called gpu"):
        choose_device("gpu")
    with pytest.raises(HelloMemeError, match="cannot be used here: choose from .*cpu"):
        choose_device("cuda:77")


@pytest.mark.parametrize(
    "device, in_hardware, expected",
    [
        ("cuda", True, torch.float16),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, torch.float32),
        ("mps", True, torch.float32),
    ],
)
def test_types_of_weights(device, in_hardware, expected, monkeypatch):
    monkeypatch.setattr("hellomeme.releases.load.multiplies_bfloat16", lambda: in_hardware)
    assert choose_dtype(torch.device(device)) == expected


def test_bfloat16_changes_the_layout_in_memory_and_no_weight(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hellomeme.releases.load.multiplies_bfloat16", lambda: True)
    pipeline = load(str(model_folder), device="cpu")[0]
    kernel = pipeline.unet.conv_in.weight
    assert kernel.dtype == torch.bfloat16 and kernel.is_contiguous(memory_format=torch.channels_last)
    pipeline.save_pretrained(tmp_path)
    stored, saved = (load_file(folder / "unet" / WEIGHTS) for folder in (model_folder, tmp_path))
    assert all(torch.equal(value.bfloat16(), saved[key]) for key, value in stored.items())


CACHED = """
from hellomeme.errors import HelloMemeError
from hellomeme.releases import hub
from hellomeme.releases.load import available
print(hub.fetch("songkey/hm_reference").name)
print([reason for _, _, reason in available()][1:])
try:
    hub.fetch("nobody/nothing")
except HelloMemeError as error:
    print(error)
"""
DOWNLOAD = """
import dataclasses
from hellomeme.errors import HelloMemeError
from hellomeme.releases.load import available, find, load
row = dataclasses.replace(find("v1"), text_width=None)
pipeline, encoders, row = load(row, device="cpu")
print(pipeline.expression_types, type(encoders.emotion).__name__, type(pipeline.scheduler).__name__)
print([reason for _, _, reason in available()][1])
try:
    load(row, base="nobody/nothing")
except HelloMemeError as error:
    print(error)
"""


def test_a_release_comes_from_the_hub(tmp_path):
    """From a stand-in for the hub, where HF_ENDPOINT points: the released repository names, and then from the
    cache."""
    from hellomeme.models.fan_encoder import FanEncoder

    FanEncoder().save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder" / "evil.bin").write_bytes(pickle.dumps(Bomb()))
    repositories = {
        "songkey/hm_reference": CASE / "hub/hm_reference",
        "songkey/hm_control2": CASE / "hub/hm_control2",
        "songkey/stable-diffusion-v1-5": CASE / "checkpoint",
        "songkey/pd_fgc_motion": tmp_path / "encoder",
    }

    def ask(script, endpoint, offline):
        paths = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        environment = {**os.environ, **paths, "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with serve(repositories) as (endpoint, asked):
        loaded, reason, refused = ask(DOWNLOAD, endpoint, "0")
        assert loaded == "{'pd_fpg'} FanEncoder EulerDiscreteScheduler" and reason == "None"
        assert refused == "There is no folder and no public hub repository nobody/nothing: check the name."
        assert not any(path.endswith(".bin") for path in asked)
    name, reasons, refused = ask(CACHED, endpoint, "1")
    assert name == COMMIT and reasons.startswith("[None, 'Needs 4.9 GB ")  # v1 is here now, v2 is not
    assert "nobody/nothing is not on this computer" in refused


def test_fetch_takes_a_folder_as_it_is(tmp_path):
    assert hub.fetch(str(tmp_path)) == tmp_path
