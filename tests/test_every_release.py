"""Every released row draws a picture, on the command line and on the page, with tiny random networks in the
released layout on a stand-in for the hub. The rows are the real ones but for the size of the picture."""

import dataclasses
import pkgutil

import hub
import numpy as np
import photos
import pytest
import torch
from conftest import write_tokenizer
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from tiny_releases import SMALL as LATER, WIDTHS
from transformers import CLIPTextConfig, CLIPTextModel

from hellomeme.cli import main
from hellomeme.inputs import Conditions
from hellomeme.models.fan_encoder import FanEncoder
from hellomeme.releases import load
from hellomeme.releases.load import find
from hellomeme.releases.table import RELEASES, SD15
from page import image_tab, shared_settings, state as states

SIZE = 128  # px, where they draw 512
TEXT_WIDTH = 768  # the rows take no other
UP = {"cross_attention_dim": 32, "block_out_channels": (8, *WIDTHS)}
DOWN = {"cross_attention_dim": 32, "block_out_channels": (8, *WIDTHS[:3])}
SMALL = LATER | {
    "HMReferenceAdapter": {"block_out_channels": WIDTHS, "num_attention_heads": 4},
    "HMControlNet": DOWN,
    "HMControlNet2": DOWN,
    "HMV2ControlNet": UP,
    "HMV2ControlNet2": UP,
}
NAMES = [row.name for row in RELEASES if row.root is None]


def write(folder, **networks):
    """Saves networks, the zero weights they start with replaced by random ones, so that everything shows."""
    for name, network in networks.items():
        for parameter in network.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        network.save_pretrained(folder / name)


def write_base(folder):
    """A Stable Diffusion 1.5 in all but size."""
    words = write_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=TEXT_WIDTH,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )
    write(folder, unet=unet, vae=vae, text_encoder=CLIPTextModel(text))
    PNDMScheduler().save_pretrained(folder / "scheduler")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """Hub id -> folder, of all that the rows need for a picture."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("hub")
    write_base(root / SD15.folder)
    write(root, pd_fgc_motion=FanEncoder().eval())
    made = {SD15.elsewhere: root / SD15.folder, "songkey/pd_fgc_motion": root / "pd_fgc_motion"}
    for row in map(find, NAMES):
        for net in (row.reference, *row.controls):
            if net.source.elsewhere in made:
                continue
            kind = pkgutil.resolve_name(net.class_path)
            version = {"version": row.name} if kind.__name__ == "HMReferenceAdapter" else {}
            write(root, **{net.source.folder: kind(**SMALL[kind.__name__], **version)})
            made[net.source.elsewhere] = root / net.source.folder
    return made


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def small_rows(monkeypatch):
    rows = [row if row.root else dataclasses.replace(row, size=SIZE, condition_size=SIZE) for row in RELEASES]
    monkeypatch.setattr(load, "RELEASES", tuple(rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_of_each_release(
    name, repositories, pictures, online, model_folder, tmp_path, monkeypatch, capfd
):
    files = [str(pictures / picture) for picture in ("reference.png", "face.png")]
    output = tmp_path / "new.png"
    dtype = "bfloat16" if name in ("v2", "v5c") else "float32"
    quick = ["--release", name, "--device", "cpu", "--dtype", dtype, "--steps", "1"]
    with hub.serve(repositories) as (endpoint, asked):
        online(endpoint)
        assert main.main(["image", *files, str(output), *quick]) == 0, capfd.readouterr().err
    row = find(name)
    controls = [net for net in row.controls if net.expression_type == row.expression_type]
    wanted = {net.source.elsewhere for net in (row.reference, row.emotion_encoder, *controls)}
    loaded = {"/".join(path.split("/")[:2]) for path in asked if "/resolve/" in path}
    assert loaded == wanted | {SD15.elsewhere}

    # The page, from what is now on this computer: the model is chosen, then the button is pressed
    online(None)
    state = states.State(str(model_folder), device="cpu", dtype=getattr(torch, dtype))
    monkeypatch.setattr(states, "STATE", state)
    assert states.STATE.models[name][1] is None
    guidance, *_ = shared_settings.choose_model(name)
    values = dict(expression=1, head=1, guidance=guidance, steps=1, seed=0, prompt="", negative_prompt="")
    values |= dict(reference_face=None, driver_face=None, paste=False, feather=0.5)
    picture = image_tab.make_image(name, *files, **values)[0]
    with Image.open(output) as drawn:
        assert drawn.size == (SIZE, SIZE) and np.asarray(drawn).std() > 1
        np.testing.assert_array_equal(np.asarray(drawn), np.asarray(picture))


@pytest.mark.parametrize("name", ["v3", "v4", "v5b", "v5c"])
def test_a_saved_pipeline_of_later_releases_is_the_same_again(name, repositories, tmp_path):
    """v5b and v5c differ in no class: what tells them apart is saved, too."""
    root = repositories[SD15.elsewhere].parent
    row = dataclasses.replace(find(name), root=root, face_parts_encoder=None)
    generator = torch.Generator().manual_seed(0)
    shown = Conditions(
        torch.rand(1, 3, 1, SIZE, SIZE, generator=generator) * 2 - 1,
        drive_coeff=torch.rand(1, 1, 51, generator=generator),
    )

    def drawn(pipeline):
        reference = pipeline.prepare_reference(torch.ones(1, 4, SIZE // 8, SIZE // 8), conditions=shown)
        made = pipeline(
            reference,
            **vars(shown),
            num_inference_steps=1,
            generator=torch.Generator().manual_seed(1),
            output_type="latent",
        )
        return made.latents

    pipeline = load.load(row, device="cpu", expression_type="drive_coeff")[0]
    pipeline.save_pretrained(tmp_path / "saved")
    again, _, found = load.load(str(tmp_path / "saved"), device="cpu", expression_type="drive_coeff")
    assert (found.reference.class_path, found.reference_control) == (
        row.reference.class_path,
        row.reference_control,
    )
    assert again.expression_types == {"drive_coeff"}
    torch.testing.assert_close(drawn(again), drawn(pipeline))
