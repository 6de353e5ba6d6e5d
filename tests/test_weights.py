"""Base models as people have them: what a file says of itself, what is in it, what is missing."""

import json
import logging
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_file import unet_key, write_single_file
from test_releases import CASE, refusal, v1

from hellomeme.releases import tensors
from hellomeme.releases.load import load

BASE = CASE / "checkpoint"
CLIP, UNET, VAE = "cond_stage_model.", "model.diffusion_model.", "first_stage_model."
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The tensors of a base model in one file."""
    return load_file(write_single_file(BASE, tmp_path_factory.mktemp("whole") / "whole.safetensors"))


@pytest.fixture(scope="module")
def expected():
    """The weights of the same model in a folder, part by part."""
    pipeline = load(v1(), device="cpu")[0]
    return {part: getattr(pipeline, part).state_dict() for part in PARTS}


@pytest.fixture
def save(tmp_path):
    def save(found, name="model.safetensors", **metadata):
        save_file({key: value.contiguous() for key, value in found.items()}, tmp_path / name, metadata)
        return str(tmp_path / name)

    return save


def same(pipeline, expected):
    for part in PARTS:
        found = getattr(pipeline, part).state_dict()
        assert found.keys() == expected[part].keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected[part].items())


@pytest.mark.parametrize("length", [0x180, 0x4B50])
def test_the_length_of_a_header_says_nothing_of_the_kind_of_file(tmp_path, length):
    """A file begins with that length: \\x80 is how a pickle begins, and PK (0x50 0x4B) a zip archive."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header.ljust(length) + struct.pack("<2f", 1, 2))
    assert path.read_bytes().startswith((b"\x80", b"PK"))
    tensors.check_weights(path)
    assert dict(tensors.read(path, ["a"]))["a"].tolist() == [1, 2]


FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@pytest.mark.parametrize("kind", FLOATS)
def test_values_are_read_in_every_type_of_float_and_must_be_numbers(save, kind, monkeypatch):
    monkeypatch.setattr(tensors, "PORTION", 64)  # bytes: many portions, of some rows each
    numbers = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).to(kind)
    path = Path(save({"a": numbers, "b": torch.tensor(3).to(kind), "c": torch.arange(3)}))
    found = dict(tensors.read(path, "cab", torch.float32))
    assert torch.equal(found["a"], numbers.float()) and found["b"] == 3 and found["c"].tolist() == [0, 1, 2]
    tensors.check_values(path)
    for bad in (float("nan"), *((float("inf"),) if kind != torch.float8_e4m3fn else ())):  # which has none
        wrong = numbers.float()
        wrong[33, 1] = bad
        path = Path(save({"a": wrong.to(kind)}, "bad.safetensors"))
        with pytest.raises(ValueError, match="^bad.safetensors holds values that are not numbers: get it"):
            tensors.check_values(path)
        with pytest.raises(ValueError, match="^bad.safetensors holds values that are not numbers: get it"):
            dict(tensors.read(path, "a", torch.float16))


def test_values_beyond_half_precision_are_told(save):
    path = Path(save({"a": torch.tensor([1e5])}))
    assert dict(tensors.read(path, "a", torch.bfloat16))["a"] == torch.tensor(1e5, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"beyond the range of float16 \(a is one\): use --device cpu"):
        dict(tensors.read(path, "a", torch.float16))


def without(whole, start):
    return {key: value for key, value in whole.items() if not key.startswith(start)}


@pytest.mark.parametrize(
    "starts, named",
    [((VAE,), ["autoencoder"]), ((CLIP,), ["text encoder"]), ((VAE, CLIP), ["autoencoder", "text encoder"])],
)
def test_parts_that_a_file_lacks_are_those_of_the_releases_own_base(
    whole, expected, save, caplog, starts, named
):
    part = whole
    for start in starts:
        part = without(part, start)
    changed = f"{UNET}out.2.bias"
    part = {**part, changed: part[changed] + 1}
    with caplog.at_level(logging.WARNING):
        pipeline = load(v1(), base=save(part), device="cpu")[0]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"model.safetensors holds no {name}: that of {BASE} is used." for name in named]
    same(pipeline, {**expected, "unet": {**expected["unet"], "conv_out.bias": part[changed]}})


def test_a_part_that_is_nowhere_is_named(whole, save, tmp_path):
    own = Path(shutil.copytree(BASE, tmp_path / "own"))
    for name in ("diffusion_pytorch_model", "diffusion_pytorch_model.fp16"):
        (own / "vae" / f"{name}.safetensors").unlink(missing_ok=True)
    from hellomeme.releases.table import Source

    sentence = refusal(v1(base=Source.of(own)), base=save(without(whole, VAE)))
    assert sentence.startswith(f"model.safetensors holds no autoencoder, and that of {own} cannot be had: ")


def test_older_names_are_recognised(whole, expected, save, tmp_path):
    """Of the text encoder in one file, and of an autoencoder's attentions in a folder."""
    old = {
        key.replace(f"{CLIP}transformer.text_model.", f"{CLIP}transformer."): x for key, x in whole.items()
    }
    more = {
        f"{CLIP}transformer.text_model.embeddings.position_ids": torch.arange(77.0)[None],
        "betas": torch.ones(3),
    }
    same(load(v1(), base=save({**old, **more}), device="cpu")[0], expected)

    folder = Path(shutil.copytree(BASE, tmp_path / "folder"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    found = {}
    for name, tensor in load_file(weights).items():
        for now, then in renamed.items():
            name = name.replace(f"attentions.0.{now}.", f"attentions.0.{then}.")
        found[name] = tensor
    assert found.keys() != expected["vae"].keys()
    save_file(found, weights)
    text = folder / "text_encoder" / "model.safetensors"
    names = {f"text_model.{name}": tensor for name, tensor in load_file(text).items()}
    save_file(names | {"text_projection.weight": torch.ones(2, 2)}, text)
    same(load(v1(), base=str(folder), device="cpu")[0], expected)


def test_a_unet_alone_may_have_any_names(expected, save):
    unet = expected["unet"]
    for names in (lambda name: name, unet_key, lambda name: f"diffusion_model.{unet_key(name)}"):
        path = save({names(name): tensor for name, tensor in unet.items()})
        same(load(v1(), base=path, device="cpu")[0], expected)


@pytest.mark.parametrize(
    "lacks, sentence",
    [
        (
            lambda i, key: "layers.0.mlp" in key,
            "lacks 4 of the 36 tensors of its text encoder, encoder.layers.0.mlp.fc1.weight is one: get it",
        ),
        (
            lambda i, key: key.startswith(UNET) and i % 40 == 3,
            "lacks 17 of the 684 tensors of its UNet, down_blocks.0.attentions.0.transformer_blocks.0.attn2",
        ),
        (
            lambda i, key: key == f"{VAE}decoder.up.1.upsample.conv.bias",
            "lacks decoder.up.1.upsample.conv.bias of",
        ),
        (
            lambda i, key: key.endswith("attn2.to_k.weight"),
            "is not a Stable Diffusion model: it holds no UNet.",
        ),
    ],
)
def test_tensors_that_are_missing_are_named(whole, save, lacks, sentence):
    path = save({key: value for i, (key, value) in enumerate(whole.items()) if not lacks(i, key)})
    assert refusal(v1(), base=path).startswith(f"model.safetensors {sentence}")


def test_values_and_shapes_of_every_part_are_looked_at(whole, save, tmp_path):
    for name in ("text_model.final_layer_norm.weight", f"{VAE}quant_conv.bias", f"{UNET}out.2.weight"):
        key = next(key for key in whole if key.endswith(name))
        path = save({**whole, key: whole[key] * float("nan")})
        assert "model.safetensors holds values that are not numbers" in refusal(v1(), base=path)
    key = f"{UNET}out.2.weight"
    path = save({**whole, key: whole[key].int()})
    assert "has another UNet than this release's base model: conv_out.weight holds whole numbers;" in refusal(
        v1(), base=path
    )
    path = save({**whole, key: whole[key][:, :8]})
    assert "conv_out.weight is 4 x 8 x 3 x 3 instead of 4 x 16 x 3 x 3;" in refusal(v1(), base=path)
    folder = Path(shutil.copytree(CASE / "hub", tmp_path / "hub"))
    weights = folder / "hm_reference" / "diffusion_pytorch_model.safetensors"
    found = load_file(weights)
    save_file({key: value / 0 for key, value in found.items()}, weights)
    assert "holds values that are not numbers" in refusal(v1(root=folder))


def test_tensors_that_are_left_over_are_named(whole, expected, save, caplog):
    more = {f"{UNET}label_emb.weight": torch.ones(2), f"{UNET}scaled_fp8": torch.ones(1)}
    path = save({**whole, **more})
    with caplog.at_level(logging.WARNING):
        same(load(v1(), base=path, device="cpu")[0], expected)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 2 tensors are not of UNet2DConditionModel and were left out, {UNET}label_emb.weight is one."
    ]
