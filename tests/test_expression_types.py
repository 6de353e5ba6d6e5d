"""Which control nets of a release are loaded, with the encoders that they need, and both at once."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from clips import H264, ffmpeg
from hub import serve
from photos import toon
from PIL import Image
from test_face_parts import image_encoder
from test_releases import CASE, v1

from hellomeme.cli import main
from hellomeme.errors import HelloMemeError
from hellomeme.face.motion import Motion
from hellomeme.models.control import HMControlNet, HMControlNet2
from hellomeme.models.fan_encoder import FanEncoder
from hellomeme.releases import load as loading
from hellomeme.releases.load import find, load
from hellomeme.releases.networks import expression_types, load_encoders
from page.state import State


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder like v1 at tiny widths, with both control nets and their encoders."""
    folder = tmp_path_factory.mktemp("models") / "both"
    shutil.copytree(CASE / "hub", folder)
    shutil.copytree(CASE / "checkpoint", folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    config = {"block_out_channels": (8, 16, 32, 32), "cross_attention_dim": 32, "scale_factor": 8}
    networks = {
        "hm_control": HMControlNet(**config),
        "hm_control2": HMControlNet2(**config),
        "pd_fgc_motion": FanEncoder(),
        "image_encoder": image_encoder(),
    }
    for name, network in networks.items():
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        network.save_pretrained(folder / name)
    return folder


@pytest.fixture
def row(folder, monkeypatch):
    """Its row, which the command line and the page find by the name v1."""
    sizes = {"size": 128, "condition_size": 128}
    row = dataclasses.replace(find("v1"), root=folder, base=v1().base, text_width=None, **sizes)
    monkeypatch.setattr(loading, "RELEASES", (row,))
    return row


def loaded(row, **options):
    pipeline, encoders, _ = load(row, device="cpu", **options)
    return sorted(pipeline.expression_types), encoders.emotion is not None, encoders.face_parts is not None


def test_the_encoders_of_a_control_net_come_with_it(row):
    assert loaded(row) == (["pd_fpg"], True, False)
    assert loaded(row, expression_type="drive_coeff") == (["drive_coeff"], False, True)
    assert loaded(row, expression_type="both") == (["drive_coeff", "pd_fpg"], True, True)
    assert expression_types(row, None) == ["pd_fpg"]
    assert expression_types(row, ["pd_fpg", "drive_coeff"]) == ["pd_fpg", "drive_coeff"]


def test_a_model_folder_says_itself_whether_it_takes_face_parts(folder, tmp_path):
    """Networks that were trained with coefficients alone lie beside no image encoder."""
    assert find(str(folder)).face_parts_encoder.source.folder == "image_encoder"
    own = shutil.copytree(folder, tmp_path / "own", ignore=shutil.ignore_patterns("image_encoder"))
    assert find(str(own)).face_parts_encoder is None


def test_an_encoder_of_another_width_is_refused(folder, row, tmp_path):
    root = shutil.copytree(folder, tmp_path / "other")
    narrow = image_encoder().config
    narrow.projection_dim = 512
    type(image_encoder())(narrow).save_pretrained(root / "image_encoder")
    with pytest.raises(HelloMemeError, match="gives 512 numbers .* take 1024"):
        load_encoders(
            dataclasses.replace(row, root=root), ["drive_coeff"], torch.device("cpu"), torch.float32
        )


def test_the_image_encoder_comes_from_a_subfolder_on_the_hub(folder, tmp_path, online):
    """And nothing else of that repository is downloaded."""
    repository = tmp_path / "repository"
    shutil.copytree(folder / "image_encoder", repository / "models" / "image_encoder")
    (repository / "models" / "image_encoder" / "pytorch_model.bin").write_bytes(b"a pickle")
    (repository / "models" / "ip-adapter.safetensors").write_bytes(b"not asked for")
    row = dataclasses.replace(find("v1"), emotion_encoder=None)
    arguments = row, ["drive_coeff"], torch.device("cpu"), torch.float32
    with serve({"songkey/IP-Adapter": repository}) as (endpoint, asked):
        online(endpoint)
        encoders = load_encoders(*arguments)
        files = {path.split(" ")[0].split("/", 4)[4] for path in asked if "/resolve/" in path}
    assert files == {f"models/image_encoder/{name}" for name in ("config.json", "model.safetensors")}
    online(None)
    again = load_encoders(*arguments)  # from the cache
    for one, other in zip(encoders.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    online(None)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(HelloMemeError, match="songkey/IP-Adapter is not on this computer"):
        load_encoders(*arguments)


def test_both_control_nets_draw_from_the_command_line(row, tmp_path, capfd):
    for name, seed in (("reference", 3), ("driver", 5)):
        Image.fromarray(toon(seed, yaw=10 * (seed - 3))).save(tmp_path / f"{name}.png")
    command = ["image", str(tmp_path / "reference.png"), str(tmp_path / "driver.png")]
    options = ["--release", "v1", "--device", "cpu", "--steps", "1", "--guidance", "2"]
    drawn = {}
    for kind in ("pd_fpg", "both"):
        output = tmp_path / f"{kind}.png"
        status = main.main([*command, str(output), *options, "--expression-type", kind])
        assert status == 0, capfd.readouterr().err
        drawn[kind] = np.asarray(Image.open(output)).astype(int)
    assert np.abs(drawn["both"] - drawn["pd_fpg"]).max() > 0


def test_a_motion_file_holds_what_the_control_nets_need(row, tmp_path, capfd):
    for k in range(2):
        Image.fromarray(toon(5, yaw=8 * k)).save(tmp_path / f"{k}.png")
    ffmpeg("-framerate", "2", "-i", tmp_path / "%d.png", *H264, tmp_path / "driver.mp4")
    for kind, names in (("pd_fpg", {"emotion"}), ("both", {"emotion", "face_parts"})):
        output = tmp_path / f"{kind}.npz"
        command = ["motion", str(tmp_path / "driver.mp4"), str(output), "--release", "v1", "--device", "cpu"]
        assert main.main([*command, "--expression-type", kind]) == 0, capfd.readouterr().err
        assert Motion.load(output).codes.keys() == names


def test_the_page_is_started_with_a_type(row):
    state = State("v1", device="cpu", expression_type="both")
    assert state.reenactor("v1").pipeline.expression_types == {"drive_coeff", "pd_fpg"}
    assert list(state.reenactors) == [("v1", "both")] and State("v1").default_type("v1") == "pd_fpg"


def test_a_release_without_such_a_net_is_refused(model_folder, capfd, tmp_path):
    Image.fromarray(toon(3)).save(tmp_path / "a.png")
    paths = [str(tmp_path / name) for name in ("a.png", "a.png", "out.png")]
    assert main.main(["image", *paths, "--release", str(model_folder), "--expression-type", "both"]) == 2
    assert "has no control net for pd_fpg: choose from drive_coeff." in capfd.readouterr().err
