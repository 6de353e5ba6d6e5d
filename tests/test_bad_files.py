"""Hostile pictures and motion files: each gets one sentence, and nothing changes on disk.

Those that are merely unusable have their tables in test_pictures.py and test_motion.py; they are tried here
too.
"""

import functools
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import test_motion as motion_tests
import test_pictures as picture_tests
import torch
from PIL import Image, PngImagePlugin
from refusals import disk, refused
from safetensors.torch import save
from test_releases import Bomb

from hellomeme.face import motion
from hellomeme.face.motion import Motion
from hellomeme.io.image import read_picture


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
    tiff = (
        b"II*\0\x08\0\0\0\x04\0"
        + b"".join(
            struct.pack("<HHII", tag, 4, 1, value)
            for tag, value in ((256, 60_000), (257, 60_000), (262, 1), (273, 8))
        )
        + bytes(4)
    )
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return {
        "a zip bomb under a picture's name": unreadable("zip.png", archive.getvalue()),
        "a pickle under a picture's name": unreadable("pickle.jpg", pickle.dumps(Bomb())),
        "weights under a picture's name": unreadable("weights.png", save({"a": torch.zeros(4)})),
        "a clip under a picture's name": unreadable(
            "clip.png", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(200)
        ),
        "a program": unreadable("run.png", b"\x7fELF\2\1\1" + bytes(200)),
        "polyglot: a PDF that ends in a picture": unreadable("pdf.png", b"%PDF-1.4\n" + plain),
        "polyglot: a page that ends in a picture": unreadable(
            "html.png", b"<script>alert(1)</script>" + plain
        ),
        "polyglot: a zip with a picture behind it": unreadable("both.png", archive.getvalue() + plain),
        "polyglot: a GIF that is a script": unreadable(
            "script.gif", b"GIF89a/*\xff\xff\xff\xff*/=1;alert(1)"
        ),
        "a text chunk that unpacks to 70 MB": (
            folder / "talkative.png",
            f"The driver picture talkative.png {picture_tests.NOT_A_PICTURE}",
        ),
        "a TIFF that claims 3.6 billion pixels": (file("huge.tiff", tiff), too_large),
        "a GIF that claims 4.3 billion pixels": (
            file("huge.gif", b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x08" + bytes(9)),
            too_large,
        ),
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
            refused(tmp_path, case, functools.partial(read_picture, source, "driver"), sentence)


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
    monkeypatch.setattr(motion, "MAX_FILE_SIZE", 10 << 20)
    damaged = "driver.npz is not a motion file of HelloMeme or is damaged: make it again from the driver."
    (tmp_path / "tables").mkdir()
    for case, content in {**motion_tests.bad_files(tmp_path / "tables"), **bad_motions()}.items():
        (tmp_path / "driver.npz").write_bytes(content)
        refused(tmp_path, case, lambda: Motion.load(tmp_path / "driver.npz"), damaged)
    for path in (tmp_path / ("a" * 300), "a\0b.npz", tmp_path):
        refused(
            tmp_path,
            path,
            functools.partial(Motion.load, path),
            f"There is no motion file at {path}: check the path.",
        )
