"""Bad input of every kind: each gets one sentence, and nothing changes on disk.

What other tests have tables of (pictures, motion files) is taken from there; this file adds hostile files, paths,
weights, model folders and settings, and looks at the disk after each.
"""

import functools
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import test_motion as motion_tests
import test_pictures as picture_tests
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save, save_file
from test_releases import Bomb

from hellomeme import loading, motion, releases
from hellomeme.errors import HelloMemeError
from hellomeme.motion import Motion
from hellomeme.pictures import read_picture
from hellomeme.settings import ClipSettings, Settings

WEIGHTS = "diffusion_pytorch_model.safetensors"


def disk(folder):
    """Every path under the folder with its kind, size, time and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        facts = path.lstat()
        found[path] = (facts.st_mode, facts.st_size, facts.st_mtime_ns,
                       zlib.crc32(path.read_bytes()) if path.is_file() and not path.is_symlink() else None)
    return found


def refused(folder, case, call, sentence):
    """The call must raise the sentence (which may end in "..." where a library's words follow) and change nothing."""
    before = disk(folder)
    with pytest.raises(HelloMemeError) as caught:
        call()
    told = str(caught.value)
    beginning = sentence.endswith("...")
    assert told.startswith(sentence[:-3]) if beginning else told == sentence, f"{case}: {told}"
    assert told.endswith((".", ").")) and "\n" not in told and len(told) < 1000, f"{case}: {told}"
    assert disk(folder) == before, case


# Pictures


def bad_pictures(folder):
    """case -> (source, sentence)"""

    def file(name, content):
        (folder / name).write_bytes(content)
        return folder / name

    def unreadable(name, content):
        return file(name, content), f"The driver picture {name} {picture_tests.NOT_A_PICTURE}"

    def missing(path):
        return path, f"The driver picture {path} does not exist: check the path."

    too_large = "The driver picture has more than 150 million pixels: reduce it first."
    Image.new("RGB", (64, 64), "teal").save(folder / "plain.png")
    plain = (folder / "plain.png").read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("picture.png", bytes(10_000_000))
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * 70_000_000, zip=True)
    Image.new("RGB", (64, 64)).save(folder / "talkative.png", pnginfo=info)
    tiff = b"II*\0\x08\0\0\0\x04\0" + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 60_000), (257, 60_000), (262, 1), (273, 8))) + bytes(4)
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return {
        "a zip bomb under a picture's name": unreadable("zip.png", archive.getvalue()),
        "a pickle under a picture's name": unreadable("pickle.jpg", pickle.dumps(Bomb())),
        "weights under a picture's name": unreadable("weights.png", save({"a": torch.zeros(4)})),
        "a clip under a picture's name": unreadable("clip.png", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200)),
        "a program": unreadable("run.png", b"\x7fELF\2\1\1" + bytes(200)),
        "polyglot: a PDF that ends in a picture": unreadable("pdf.png", b"%PDF-1.4\n" + plain),
        "polyglot: a page that ends in a picture": unreadable("html.png", b"<script>alert(1)</script>" + plain),
        "polyglot: a zip with a picture behind it": unreadable("both.png", archive.getvalue() + plain),
        "polyglot: a GIF that is a script": unreadable("script.gif", b"GIF89a/*\xff\xff\xff\xff*/=1;alert(1)"),
        "a text chunk that unpacks to 70 MB": (folder / "talkative.png",
                                               f"The driver picture talkative.png {picture_tests.NOT_A_PICTURE}"),
        "a TIFF that claims 3.6 billion pixels": (file("huge.tiff", tiff), too_large),
        "a GIF that claims 4.3 billion pixels": (file("huge.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08" + bytes(9)),
                                                 too_large),
        "a pipe": missing(folder / "pipe.png"),
        "a device": missing(Path("/dev/zero")),
        "a link to nothing": missing(folder / "dangling.png"),
        "a link to itself": missing(folder / "loop.png"),
        "a name too long for a file": missing(folder / ("a" * 300 + ".png")),
        "a path too long for any file": missing(folder / ("a/" * 100 + "b.png")),
        "half a letter in the name": missing(folder / "a\ud800.png"),
        "an address": missing("https:/example.org/a.png"),
        "a path that climbs": missing(folder / "../../none/../etc/none.png"),
    }


def test_pictures(tmp_path):
    for folder, table in (("hostile", bad_pictures), ("plain", picture_tests.bad_inputs)):
        (tmp_path / folder).mkdir()
        for case, (source, sentence) in table(tmp_path / folder).items():
            refused(tmp_path, case, lambda: read_picture(source, "driver"), sentence)


def test_a_picture_with_something_behind_it_is_that_picture(tmp_path):
    """A polyglot that begins as a picture is read as one; what follows it is not looked at."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../evil.txt", "evil")
    picture = Image.fromarray(picture_tests.TRUTH)
    for tail in (archive.getvalue(), pickle.dumps(Bomb()), b"<script>alert(1)</script>"):
        picture.save(tmp_path / "a.png")
        with open(tmp_path / "a.png", "ab") as file:
            file.write(tail)
        before = disk(tmp_path)
        assert np.array_equal(read_picture(tmp_path / "a.png"), picture_tests.TRUTH)
        assert disk(tmp_path) == before


# Motion files


@functools.cache
def bomb():
    """An archive that unpacks to a thousand times its size: 20 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("blendshapes.npy", "w") as file:
            for _ in range(20):
                file.write(bytes(1 << 20))
    return buffer.getvalue()


def bad_motions():
    """case -> content of the file"""

    def packed(**entries):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {"format": array(np.array("hellomeme motion 1")), **entries}.items():
                archive.writestr(f"{name}.npy", content)
        return buffer.getvalue()

    def array(values):
        buffer = io.BytesIO()
        np.save(buffer, values)
        return buffer.getvalue()

    def claims(shape, kind="<f8"):  # the head of an array without its body
        head = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
        return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head

    locked = bytearray(packed())
    locked[6], locked[locked.index(b"PK\x01\x02") + 8] = 1, 1  # the flags that say: encrypted
    return {
        "a zip bomb": bomb(),
        "an array that claims 400 PB": packed(blendshapes=claims((10**15, 51))),
        "an array that claims 10^30 numbers": packed(blendshapes=claims((10**30,))),
        "an array of -1 frames": packed(blendshapes=claims((-1, 51))),
        "an array of records": packed(blendshapes=claims((3,), "|V4") + bytes(12)),
        "a head of brackets": packed(blendshapes=b"\x93NUMPY\x01\0" + struct.pack("<H", 9000) + b"(" * 9000),
        "a locked archive": bytes(locked),
        "names that climb": packed(**{"../../evil": array(np.zeros(3))}),
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }


def test_motion_files(tmp_path, monkeypatch):
    monkeypatch.setattr(motion, "LARGEST_FILE", 10 << 20)
    damaged = "driver.npz is not a motion file of HelloMeme or is damaged: make it again from the driver."
    (tmp_path / "tables").mkdir()
    for case, content in {**motion_tests.bad_files(tmp_path / "tables"), **bad_motions()}.items():
        (tmp_path / "driver.npz").write_bytes(content)
        refused(tmp_path, case, lambda: Motion.load(tmp_path / "driver.npz"), damaged)
    for path in (tmp_path / ("a" * 300), "a\0b.npz", tmp_path):
        refused(tmp_path, path, lambda: Motion.load(path), f"There is no motion file at {path}: check the path.")


# Weights and model folders


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
        refused(tmp_path, case, lambda: loading.check_weights(folder / WEIGHTS), f"{name} {about}...")


NO_LORA = "is not a LoRA for this base model"
SCALE = "The scale of a LoRA must be a number from -10 to 10."


@pytest.fixture(scope="module")
def with_lora(model_folder, tmp_path_factory):
    """A pipeline, and the tensors of a LoRA that fits it."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    folder = tmp_path_factory.mktemp("lora")
    trained = releases.load(str(model_folder), device="cpu")[0]
    trained.unet.add_adapter(LoraConfig(r=2, target_modules=["to_k"], init_lora_weights="gaussian"))
    trained.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(trained.unet), weight_name="lora.safetensors")
    return releases.load(str(model_folder), device="cpu")[0], load_file(folder / "lora.safetensors")


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
        "foreign tensors": (made("a.safetensors", {"evil.weight": torch.zeros(2)}), f"a.safetensors {NO_LORA}..."),
        "no tensors": (file("b.safetensors", raw({})), f"b.safetensors {NO_LORA}: none of its tensors..."),
        "another width": (made("c.safetensors", each(lambda key, v: torch.zeros(2, 7) if "lora_A" in key else v)),
                          f"c.safetensors {NO_LORA}..."),
        "half of a pair": (made("d.safetensors", {first: good[first]}), f"d.safetensors {NO_LORA}..."),
        "single numbers": (made("e.safetensors", each(lambda key, v: torch.zeros(()))), f"e.safetensors {NO_LORA}..."),
        "rank 0": (made("f.safetensors", each(lambda key, v: v[:0] if "lora_A" in key else v[:, :0])), f"f.safetensors {NO_LORA}..."),
        "whole numbers": (made("g.safetensors", each(lambda key, v: v.to(torch.int64))), f"g.safetensors {NO_LORA}..."),
        "NaN": (made("h.safetensors", each(lambda key, v: v * float("nan"))),
                "h.safetensors holds values that are not numbers: get it from its author again."),
        "a pickle by name": (file("i.pt", pickle.dumps(Bomb())), "i.pt is a pickle, which can run code when opened..."),
        "a picture": (file("j.safetensors", b"\x89PNG\r\n\x1a\n" + bytes(100)), "The weights ..."),
        "a system's file": ("/etc/passwd", "The weights /etc/passwd are damaged or incomplete: download them again."),
        "a path that climbs": ("../../../none", "There is no folder or file ../../../none: check the path, or give the id of..."),
        "a null byte": ("a\0b", "There is no folder or file a\0b: check the path, or give the id of a repository."),
        "a long name": (long, f"There is no folder or file {long}: check the path, or give the id of a repository."),
        "nobody's home": ("~nobodyhere/x", "There is no folder or file ~nobodyhere/x: check the path, or give the id of a repository."),
        "a folder of several": (folder, f"{folder} holds 10 .safetensors files: name the one LoRA file to use."),
        "nothing": (None, "A model is named by a text, not NoneType: give a path or the id of a repository."),
        "a number": (7, "A model is named by a text, not int: give a path or the id of a repository."),
    }
    scales = (float("nan"), float("inf"), 1e30, 10**400, "1", None, [1])
    return {**cases, **{f"scale {scale!r:.20}": ((fits, scale), SCALE) for scale in scales}}


def test_loras(with_lora, tmp_path):
    pipeline, good = with_lora
    for case, (lora, sentence) in bad_loras(tmp_path, good).items():
        refused(tmp_path, case, lambda: loading.load_loras(pipeline, [lora]), sentence)
    pipeline.unload_lora_weights()
    loading.load_loras(pipeline, [(tmp_path / "fits.safetensors", -1)])  # the table's own LoRA is a good one


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
    "a config of brackets": (replaced("hm_reference", b"[" * 200_000), "{}/hm_reference/config.json is damaged: download it again."),
    "a config in another encoding": (replaced("hm_reference", b"\xff{}"), "{}/hm_reference/config.json is damaged: download it again."),
    "networks wider than any memory": (changed("hm_reference", block_out_channels=[10**9] * 4), "{}/hm_reference/config.json is damaged, its block_out_channels is too large: download it again."),
    "a network of a million layers": (changed("unet", layers_per_block=10**6), "{}/unet/config.json is damaged, its layers_per_block is too..."),
    "widths that are a text": (changed("hm_reference", block_out_channels="wide"), "The weights in {}/hm_reference do not fit..."),
    "no widths": (changed("hm_reference", block_out_channels=[]), "The weights in {}/hm_reference do not fit..."),
    "no heads": (changed("hm_reference", num_attention_heads=0),
                 "{}/hm_reference/config.json is damaged, it asks for num_attention_heads 0: download it again."),
    "heads that are a text": (changed("hm_reference", num_attention_heads="x"),
                              "{}/hm_reference/config.json is damaged, it asks for num_attention_heads x: download it again."),
    "a class named as a path": (changed("hm_control", _class_name="../../os"), "{}/hm_control holds no control net for drive_coeff: get it again."),
    "a class named as a number": (changed("hm_control", _class_name=7), "{}/hm_control holds no control net for drive_coeff: get it again."),
    "a scale of 0": (changed("hm_control", scale_factor=0), "{}/hm_control/config.json is damaged, it asks for scale_factor 0..."),
    "a block of another library": (changed("unet", down_block_types=["Evil"] * 4), "The weights in {}/unet do not fit its config.json..."),
    "division by zero": (changed("unet", norm_num_groups=0), "The weights in {}/unet do not fit its config.json..."),
    "an activation named as a function": (changed("unet", act_fn="os.system"), "The weights in {}/unet do not fit its config.json..."),
    "an autoencoder of another kind": (changed("vae", _class_name="Evil"), "{} has an autoencoder of an unknown kind: Evil."),
    "a text encoder without heads": (changed("text_encoder", num_attention_heads=0), "The weights in {}/text_encoder do not fit..."),
    "a vocabulary below zero": (changed("text_encoder", vocab_size=-1), "The weights in {}/text_encoder do not fit..."),
    "a scheduler that is none": (changed("scheduler", SCHEDULER, _class_name="DiffusionPipeline"),
                                 "{}/scheduler names no scheduler of diffusers: DiffusionPipeline."),
    "a scheduler with an unknown schedule": (changed("scheduler", SCHEDULER, beta_schedule="x"), "The scheduler_config.json in {}/scheduler..."),
    "a scheduler of no steps": (changed("scheduler", SCHEDULER, num_train_timesteps=0), "The scheduler_config.json in {}/scheduler..."),
    "a tokenizer without files": (emptied, "The tokenizer of {} cannot be read: download the model again."),
    "a damaged tokenizer": (garbled, "The tokenizer of {} cannot be read: download the model again."),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_model_folders(model_folder, tmp_path, case):
    damage, sentence = FOLDERS[case]
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    damage(folder)
    refused(tmp_path, case, lambda: releases.load(str(folder), device="cpu"), sentence.format(folder))


NAMES = {  # name of a release -> sentence
    "../../etc": "../../etc is not a model folder: it lacks hm_reference or a control net.",
    "a\0b": "There is no release or folder called a\0b: choose from demo, v1, v2, or a model folder.",
    "a" * 300: f"There is no release or folder called {'a' * 300}: choose from demo, v1, v2, or a model folder.",
    "~nobodyhere": "There is no release or folder called ~nobodyhere: choose from demo, v1, v2, or a model folder.",
    7: "A model is named by a text, not int: give a path or the id of a repository.",
    None: "A model is named by a text, not NoneType: give a path or the id of a repository.",
}


def test_names_of_releases(tmp_path, monkeypatch):
    (tmp_path / "a/b/etc").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    monkeypatch.chdir(tmp_path / "a/b")
    for name, sentence in NAMES.items():
        refused(tmp_path, name, lambda: releases.find(name), sentence)


# Settings


class Lying:
    def __float__(self):
        raise OverflowError


NUMBER, FRAMES = "Expression must be a number from 0 to 2, not {}.", "Frames must be a whole number from 0 to 100000, not {}."
SETTINGS = {  # case -> (class, values, sentence)
    "NaN": (Settings, {"expression": float("nan")}, NUMBER.format("nan")),
    "infinite": (Settings, {"expression": float("-inf")}, NUMBER.format("-inf")),
    "above the range": (Settings, {"expression": 2.0001}, NUMBER.format("2.0001")),
    "a text": (Settings, {"expression": "1"}, NUMBER.format("'1'")),
    "a switch": (Settings, {"expression": True}, NUMBER.format("True")),
    "nothing": (Settings, {"expression": None}, NUMBER.format("None")),
    "bytes": (Settings, {"expression": b"1"}, NUMBER.format("b'1'")),
    "a complex number": (Settings, {"expression": 1j}, NUMBER.format("1j")),
    "a dictionary": (Settings, {"expression": {"value": 1}}, NUMBER.format("{'value': 1}")),
    "an object that lies": (Settings, {"expression": Lying()}, "Expression must be a number from 0 to 2, not <test_bad_input.Lying..."),
    "a number of 400 digits": (Settings, {"expression": 10**400}, NUMBER.format("1" + "0" * 59 + "...")),
    "a list of a million": (Settings, {"steps": list(range(10**6))}, "Steps must be a whole number from 1 to 50, not [0, 1, 2, 3, ..."),
    "an array": (Settings, {"steps": np.zeros((2, 2))}, "Steps must be a whole number from 1 to 50, not array([[0., 0.], [0., 0.]])."),
    "half a step": (Settings, {"steps": 4.5}, "Steps must be a whole number from 1 to 50, not 4.5."),
    "a seed below zero": (Settings, {"seed": -1}, "Seed must be a whole number from 0 to 2147483647, not -1."),
    "a prompt that is a number": (Settings, {"prompt": 5}, "Prompt must be text, not 5."),
    "a prompt of a million letters": (Settings, {"prompt": "a" * 10**6}, "Prompt is 1000000 letters long: shorten it to 2000."),
    "half a letter": (Settings, {"negative_prompt": "a\ud800"}, "Negative prompt holds a broken letter: type it again."),
    "no such choice": (ClipSettings, {"rate": "../30"}, "Frames a second must be one of source, 8, 12, 15, 24, 25, 30, not '../30'."),
    "a switch that is a text": (ClipSettings, {"relative": "no"}, "Relative motion must be on or off, not 'no'."),
    "too many frames": (ClipSettings, {"frames": 10**9}, FRAMES.format(10**9)),
    "frames below zero": (ClipSettings, {"frames": -1}, FRAMES.format(-1)),
}  # fmt: skip


def test_settings(tmp_path):
    for case, (kind, values, sentence) in SETTINGS.items():
        refused(tmp_path, case, lambda: kind(**values), sentence)


def test_there_are_at_least_60_kinds(with_lora, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir(), (tmp_path / "c").mkdir()
    tables = [bad_pictures(tmp_path / "a"), picture_tests.bad_inputs(tmp_path / "b"), motion_tests.bad_files(tmp_path / "b"),
              bad_motions(), bad_weights(), bad_loras(tmp_path / "c", with_lora[1]), FOLDERS, NAMES, SETTINGS]
    count = sum(map(len, tables))
    print(f"{count} kinds of bad input")
    assert count >= 60
