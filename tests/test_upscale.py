"""Upscaling: tiles that join as if there were none, the networks spandrel reads, pictures and clips."""

import sys
import types

import numpy as np
import photos
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from hellomeme.cli import main
from hellomeme.errors import HelloMemeError
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import read_frames
from hellomeme.reenactor import Reenactor
from hellomeme.settings import NO_UPSCALER, ClipSettings, Settings
from hellomeme.upscale import TILE, Upscaler
from page import components, image_tab, state as states

QUICK = {"steps": 1, "guidance": 1}


class Network(torch.nn.Module):
    """Enlarges twice, by what is around each pixel, and remembers the largest tile it was given."""

    def __init__(self, scale=2, layers=3):
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(
            *(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)),
            torch.nn.Conv2d(3, 3 * scale * scale, 3, padding=1),
            torch.nn.PixelShuffle(scale),
        )
        self.largest = 0

    def forward(self, picture):
        self.largest = max(self.largest, *picture.shape[2:])
        return self.layers(picture).sigmoid()


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Compact(torch.nn.Module):
    """The layout of Real-ESRGAN's compact networks, by which spandrel recognises them, at a small width."""

    def __init__(self, width=8, layers=2):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.ModuleList()
        for inputs in (3, *[width] * layers):
            self.body += [torch.nn.Conv2d(inputs, width, 3, padding=1), torch.nn.PReLU(width)]
        self.body.append(torch.nn.Conv2d(width, 12, 3, padding=1))

    def forward(self, picture):
        drawn = picture
        for layer in self.body:
            drawn = layer(drawn)
        shuffle, enlarge = torch.nn.functional.pixel_shuffle, torch.nn.functional.interpolate
        return shuffle(drawn, 2) + enlarge(picture, scale_factor=2, mode="nearest")


@pytest.mark.parametrize("size", [(40, 60), (256, 256), (300, 520), (257, 100), (485, 711)])
def test_tiles_join_as_if_there_were_none(size):
    network, original = Network(), picture(*size)
    tiled = Upscaler(network, 2)(original, 2)
    assert tiled.shape == (2 * size[0], 2 * size[1], 3) and network.largest <= TILE
    with torch.no_grad():
        whole = network(torch.from_numpy(original).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0)
    assert np.abs(tiled.astype(int) - (whole * 255).round().numpy()).max() <= 1  # levels


def test_the_factor_is_reached_with_any_network():
    for scale, factor in ((2, 4), (4, 4), (4, 2), (3, 2), (3, 4)):
        assert Upscaler(Network(scale, 1), scale)(picture(20, 30), factor).shape == (
            20 * factor,
            30 * factor,
            3,
        )


@pytest.fixture
def spandrel(monkeypatch):
    """spandrel. It imports torchvision for two architectures that this test does not use: a stand-in does
    where there is none for this torch."""
    pytest.importorskip("einops")
    try:
        import torchvision  # noqa: F401
    except ImportError:
        functional = types.ModuleType("torchvision.transforms.functional")
        functional.InterpolationMode = functional.rotate = functional.normalize = None
        for name in ("torchvision", "torchvision.transforms"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, functional.__name__, functional)
    return pytest.importorskip("spandrel")


@pytest.fixture
def network_file(spandrel, tmp_path):
    net = Compact()
    save_file(net.state_dict(), tmp_path / "compact.safetensors")
    return tmp_path / "compact.safetensors", net


def test_a_network_that_spandrel_reads(network_file):
    path, net = network_file
    for source in (path, path.parent):
        upscaler = Upscaler.load(str(source))
        assert upscaler.scale == 2
    original = picture(30, 300)
    with torch.no_grad():
        whole = net(torch.from_numpy(original).permute(2, 0, 1)[None] / 255)[0].clamp(0, 1).permute(1, 2, 0)
    assert np.abs(upscaler(original, 2).astype(int) - (whole * 255).round().numpy()).max() <= 1


def refusal(source):
    with pytest.raises(HelloMemeError) as error:
        Upscaler.load(str(source))
    return str(error.value)


def test_other_files_get_one_sentence(network_file, tmp_path):
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    assert refusal(tmp_path / "other.safetensors") == (
        "other.safetensors is no network that spandrel knows: give one that enlarges pictures."
    )
    tensors = network_file[1].state_dict()
    save_file({key: x * float("nan") for key, x in tensors.items()}, tmp_path / "nan.safetensors")
    assert "holds values that are not numbers" in refusal(tmp_path / "nan.safetensors")
    (tmp_path / "net.pth").write_bytes(b"\x80\x02")
    assert "is a pickle" in refusal(tmp_path / "net.pth")
    assert "holds 3 .safetensors files: name the one file to use" in refusal(tmp_path)
    assert "There is no folder or file" in refusal("./none")


def test_without_spandrel_there_is_advice(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert refusal(tmp_path).endswith("pip install 'hellomeme[upscale]'.")


@pytest.fixture(scope="module")
def reenactor(model_folder):
    reenactor = Reenactor.from_release(str(model_folder), device="cpu")
    reenactor.set_reference(photos.toon(3))
    return reenactor


def test_pictures_and_what_they_are_pasted_into(reenactor):
    plain = reenactor.image(photos.toon(5), Settings(**QUICK))
    with pytest.raises(HelloMemeError) as error:
        reenactor.image(photos.toon(5), Settings(upscale="2", **QUICK))
    assert str(error.value) == NO_UPSCALER
    reenactor.upscaler = upscaler = Upscaler(Network(), 2)
    result = reenactor.image(photos.toon(5), Settings(upscale="2", **QUICK))
    assert np.array_equal(result.picture, upscaler(np.asarray(plain.picture), 2))
    assert (
        result.original_size().size == plain.original_size().size
    )  # the face is sharper, not the rest larger
    assert result.stamp.settings.upscale == "2" and '"upscale"' not in plain.stamp.text
    assert reenactor.image(photos.toon(5), Settings(**QUICK)).picture.size == (128, 128)


def test_clips(reenactor, tmp_path):
    reenactor.upscaler = Upscaler(Network(4, 1), 4)
    motion = reenactor.reference.motion.at([0, 0])
    for name, side_by_side, width in (("a.mp4", False, 512), ("b.mp4", True, 1024)):
        clip, settings = ClipSettings(side_by_side=side_by_side), Settings(upscale="4", **QUICK)
        reenactor.video(motion, tmp_path / name, settings, clip)
        frames = list(read_frames(tmp_path / name, 25, 0, 2))
        assert frames[0].shape == (512, width, 3)
        assert metadata.read(tmp_path / name).settings.upscale == "4"


def test_on_the_command_line(network_file, model_folder, tmp_path, capsys):
    for name, seed in (("reference", 3), ("face", 5)):
        Image.fromarray(photos.toon(seed)).save(tmp_path / f"{name}.png")

    def run(output, *options):
        paths = [str(tmp_path / f"{name}.png") for name in ("reference", "face", output)]
        quick = ["--release", str(model_folder), "--device", "cpu", "--steps", "1", "--guidance", "1"]
        return main.main(["image", *paths, *quick, *options])

    assert run("large", "--upscale", "2", "--upscaler", str(network_file[0])) == 0
    with Image.open(tmp_path / "large.png") as large:
        assert large.size == (256, 256)
    assert run("small", "--upscaler", str(network_file[0])) == 0
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (128, 128)
    assert run("none", "--upscale", "2") == 2 and not (tmp_path / "none.png").exists()


def test_on_the_page(network_file, model_folder, tmp_path, monkeypatch):
    import app

    monkeypatch.setattr(components, "EXAMPLES", tmp_path / "none")
    Image.fromarray(photos.toon(3)).save(tmp_path / "face.png")

    def offered():
        return next(one for one in app.build().blocks.values() if one.elem_id == "upscale").visible

    for source in (None, str(network_file[0])):
        state = states.State(str(model_folder), device="cpu", upscaler=source)
        monkeypatch.setattr(states, "STATE", state)
        assert offered() == (source is not None)
    face, style = str(tmp_path / "face.png"), [None] * 6
    given = (states.STATE.release, face, face, 1, 1, 1, 1, 0, 1, 1, "", "", False, 0.5)
    drawn, *_, (before, after), _, _, _ = image_tab.make_image(*given, *style, "2")
    assert drawn.size == before.size == after.size == (256, 256)
