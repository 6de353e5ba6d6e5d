"""Hostile weights, LoRA files, model folders and names of releases: each gets one sentence, and nothing
changes on disk."""

import functools
import io
import json
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from refusals import refused
from safetensors.torch import load_file, save_file
from test_releases import Bomb

from hellomeme.releases import loras, tensors
from hellomeme.releases.load import LATENT, MAX_LATENT_SIDE, find, load
from hellomeme.releases.table import RELEASES

WEIGHTS = "diffusion_pytorch_model.safetensors"


def raw(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor(**facts):
    return raw({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **facts}}, bytes(8))


def bad_weights():
    """case -> (content of a .safetensors file, what the sentence says after its name)"""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
        archive.writestr("bomb", bytes(50_000_000))
    pickled, damaged = "is a pickle under a safetensors name", "are damaged or incomplete"
    span = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return {
        "a pickle": (pickle.dumps(Bomb()), pickled),
        "an old pickle": (b"\x80\x02}q\0.", pickled),
        "a zipped pickle that is a bomb too": (buffer.getvalue(), pickled),
        "nothing": (b"", damaged),
        "a text": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", damaged),
        "a header that claims an exabyte": (struct.pack("<Q", 1 << 60) + b"{}", damaged),
        "a header of brackets": (raw(b"[" * 100_000), damaged),
        "a header that is a list": (raw([]), damaged),
        "tensors that overlap": (raw({"a": span, "b": span}, bytes(8)), damaged),
        "a shape below zero": (tensor(shape=[-1]), damaged),
        "a shape of 2^64": (tensor(shape=[1 << 62, 4]), damaged),
        "a kind of number that is none": (tensor(dtype="EVIL"), damaged),
        "a place outside of the file": (tensor(data_offsets=[0, 1 << 40]), damaged),
    }


def test_weights_of_a_network(model_folder, tmp_path):
    folder = Path(shutil.copytree(model_folder / "hm_reference", tmp_path / "hm_reference"))
    for case, (content, about) in bad_weights().items():
        (folder / WEIGHTS).write_bytes(content)
        name = WEIGHTS if "pickle" in about else f"The weights {folder / WEIGHTS}"
        refused(tmp_path, case, lambda: tensors.check_weights(folder / WEIGHTS), f"{name} {about}...")


NO_LORA = "is not a LoRA for this base model"
SCALE = "The strength of a LoRA must be a number from -10 to 10."


@pytest.fixture(scope="module")
def with_lora(model_folder, tmp_path_factory):
    """A pipeline, and the tensors of a LoRA that fits it."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    folder = tmp_path_factory.mktemp("lora")
    trained = load(str(model_folder), device="cpu")[0]
    trained.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"], init_lora_weights="gaussian"))
    trained.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(trained.unet), weight_name="lora.safetensors"
    )
    return load(str(model_folder), device="cpu")[0], load_file(folder / "lora.safetensors")


def bad_loras(folder, good):
    """case -> (LoRA as given, sentence)"""

    def made(name, tensors):
        save_file(tensors, folder / name)
        return folder / name

    def each(change):
        return {key: change(key, value).contiguous() for key, value in good.items()}

    def file(name, content):
        (folder / name).write_bytes(content)
        return folder / name

    fits = made("fits.safetensors", good)
    first = next(iter(good))
    long = "a" * 300
    cases = {
        "foreign tensors": (
            made("a.safetensors", {"evil.weight": torch.zeros(2)}),
            f"a.safetensors {NO_LORA}...",
        ),
        "no tensors": (file("b.safetensors", raw({})), f"b.safetensors {NO_LORA}: none of its tensors..."),
        "another width": (
            made("c.safetensors", each(lambda key, v: torch.zeros(2, 7) if "lora_A" in key else v)),
            "c.safetensors is a LoRA for another kind of model (its text is 7 wide, not 32): choose one for "
            "this base model.",
        ),
        "half of a pair": (made("d.safetensors", {first: good[first]}), f"d.safetensors {NO_LORA}..."),
        "single numbers": (
            made("e.safetensors", each(lambda key, v: torch.zeros(()))),
            f"e.safetensors {NO_LORA}...",
        ),
        "rank 0": (
            made("f.safetensors", each(lambda key, v: v[:0] if "lora_A" in key else v[:, :0])),
            f"f.safetensors {NO_LORA}...",
        ),
        "whole numbers": (
            made("g.safetensors", each(lambda key, v: v.to(torch.int64))),
            f"g.safetensors {NO_LORA}...",
        ),
        "NaN": (
            made("h.safetensors", each(lambda key, v: v * float("nan"))),
            "h.safetensors holds values that are not numbers: get it from its author again.",
        ),
        "a pickle by name": (
            file("i.pt", pickle.dumps(Bomb())),
            "i.pt is a pickle, which can run code when opened...",
        ),
        "a picture": (file("j.safetensors", b"\x89PNG\r\n\x1a\n" + bytes(100)), "The weights ..."),
        "a system's file": (
            "/etc/passwd",
            "The weights /etc/passwd are damaged or incomplete: download them again.",
        ),
        "a path that climbs": (
            "../../../none",
            "There is no folder or file ../../../none: check the path, or give the id of...",
        ),
        "a null byte": (
            "a\0b",
            "There is no folder or file a\0b: check the path, or give the id of a repository.",
        ),
        "a long name": (
            long,
            f"There is no folder or file {long}: check the path, or give the id of a repository.",
        ),
        "nobody's home": (
            "~nobodyhere/x",
            "There is no folder or file ~nobodyhere/x: check the path, or give the id of a repository.",
        ),
        "a folder of several": (
            folder,
            f"{folder} holds 10 .safetensors files: name the one LoRA file to use.",
        ),
        "nothing": (None, "A model is named by a text, not NoneType: give a path or the id of a repository."),
        "a number": (7, "A model is named by a text, not int: give a path or the id of a repository."),
    }
    scales = (float("nan"), float("inf"), 1e30, 10**400, "1", None, [1])
    return {**cases, **{f"scale {scale!r:.20}": ((fits, scale), SCALE) for scale in scales}}


def test_loras(with_lora, tmp_path):
    pipeline, good = with_lora
    for case, (lora, sentence) in bad_loras(tmp_path, good).items():
        refused(tmp_path, case, functools.partial(loras.load_loras, pipeline, [lora]), sentence)
    pipeline.unload_lora_weights()
    loras.load_loras(pipeline, [(tmp_path / "fits.safetensors", -1)])  # the table's own LoRA is a good one


def changed(part, name="config.json", **facts):
    def damage(folder):
        path = folder / part / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))

    return damage


def replaced(part, content, name="config.json"):
    return lambda folder: (folder / part / name).write_bytes(content)


def emptied(folder):
    for path in (folder / "tokenizer").iterdir():
        path.unlink()


def garbled(folder):
    for path in (folder / "tokenizer").iterdir():
        path.write_text("{")


SCHEDULER = "scheduler_config.json"
FOLDERS = {  # case -> (damage, sentence; {} is the folder)
    "a config of brackets": (
        replaced("hm_reference", b"[" * 200_000),
        "{}/hm_reference/config.json is damaged: download it again.",
    ),
    "a config in another encoding": (
        replaced("hm_reference", b"\xff{}"),
        "{}/hm_reference/config.json is damaged: download it again.",
    ),
    "networks wider than any memory": (
        changed("hm_reference", block_out_channels=[10**9] * 4),
        "{}/hm_reference/config.json is damaged, its block_out_channels is too large: download it again.",
    ),
    "a network of a million layers": (
        changed("unet", layers_per_block=10**6),
        "{}/unet/config.json is damaged, its layers_per_block is too...",
    ),
    "widths that are a text": (
        changed("hm_reference", block_out_channels="wide"),
        "The weights in {}/hm_reference do not fit...",
    ),
    "no widths": (
        changed("hm_reference", block_out_channels=[]),
        "The weights in {}/hm_reference do not fit...",
    ),
    "no heads": (
        changed("hm_reference", num_attention_heads=0),
        "{}/hm_reference/config.json is damaged, it asks for num_attention_heads 0: download it again.",
    ),
    "heads that are a text": (
        changed("hm_reference", num_attention_heads="x"),
        "{}/hm_reference/config.json is damaged, it asks for num_attention_heads x: download it again.",
    ),
    "a class named as a path": (
        changed("hm_control", _class_name="../../os"),
        "{}/hm_control holds a network of class ../../os, not HMControlNet: get it again.",
    ),
    "a class named as a number": (
        changed("hm_control", _class_name=7),
        "{}/hm_control holds a network of class 7, not HMControlNet: get it again.",
    ),
    "a scale of 0": (
        changed("hm_control", scale_factor=0),
        "{}/hm_control/config.json is damaged, it asks for scale_factor 0...",
    ),
    "latents larger than the reference attentions take": (
        changed("unet", sample_size=65),
        "{}/unet/config.json is damaged, its sample_size is 65: get the model again.",
    ),
    "latents of no size": (
        changed("unet", sample_size=0),
        "{}/unet/config.json is damaged, its sample_size is 0: get the model again.",
    ),
    "a block of another library": (
        changed("unet", down_block_types=["Evil"] * 4),
        "The weights in {}/unet do not fit its config.json...",
    ),
    "division by zero": (
        changed("unet", norm_num_groups=0),
        "The weights in {}/unet do not fit its config.json...",
    ),
    "an activation named as a function": (
        changed("unet", act_fn="os.system"),
        "The weights in {}/unet do not fit its config.json...",
    ),
    "an autoencoder of another kind": (
        changed("vae", _class_name="Evil"),
        "{} has an autoencoder of an unknown kind: Evil.",
    ),
    "a text encoder without heads": (
        changed("text_encoder", num_attention_heads=0),
        "The weights in {}/text_encoder do not fit...",
    ),
    "a vocabulary below zero": (
        changed("text_encoder", vocab_size=-1),
        "The weights in {}/text_encoder do not fit...",
    ),
    "a scheduler that is none": (
        changed("scheduler", SCHEDULER, _class_name="DiffusionPipeline"),
        "{}/scheduler names no scheduler of diffusers: DiffusionPipeline.",
    ),
    "a scheduler with an unknown schedule": (
        changed("scheduler", SCHEDULER, beta_schedule="x"),
        "The scheduler_config.json in {}/scheduler...",
    ),
    "a scheduler of no steps": (
        changed("scheduler", SCHEDULER, num_train_timesteps=0),
        "The scheduler_config.json in {}/scheduler...",
    ),
    "a tokenizer without files": (emptied, "The tokenizer of {} cannot be read: download the model again."),
    "a damaged tokenizer": (garbled, "The tokenizer of {} cannot be read: download the model again."),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_model_folders(model_folder, tmp_path, case):
    damage, sentence = FOLDERS[case]
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    damage(folder)
    refused(tmp_path, case, lambda: load(str(folder), device="cpu"), sentence.format(folder))


def test_the_largest_latents(model_folder, tmp_path):
    """A folder of the largest size loads, and its reference attentions take maps of that size."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    changed("unet", sample_size=MAX_LATENT_SIDE)(folder)
    pipeline, _, row = load(str(folder), device="cpu")
    assert row.size == LATENT * MAX_LATENT_SIDE
    place, width = "up_3", pipeline.hm_reference.unet_widths[1]
    features = {place: torch.zeros(1, width, MAX_LATENT_SIDE, MAX_LATENT_SIDE)}
    assert place in pipeline.hm_reference.prepare(features)


KNOWN = ", ".join(row.name for row in RELEASES)
NAMES = {  # name of a release -> sentence
    "../../etc": "../../etc is not a model folder: it lacks hm_reference or a control net.",
    **{
        name: f"There is no release or folder called {name}: choose from {KNOWN}, or a model folder."
        for name in ("a\0b", "a" * 300, "~nobodyhere")
    },
    7: "A model is named by a text, not int: give a path or the id of a repository.",
    None: "A model is named by a text, not NoneType: give a path or the id of a repository.",
}


def test_names_of_releases(tmp_path, monkeypatch):
    (tmp_path / "a/b/etc").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path / "a/b")
    for name, sentence in NAMES.items():
        refused(tmp_path, name, functools.partial(find, name), sentence)
