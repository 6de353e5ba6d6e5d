"""A pipeline with its release: saved, loaded, uploaded to a stand-in for the hub and loaded from there."""

import dataclasses
import json
import shutil
from pathlib import Path

import hub as stand_in
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants
from photos import toon
from styled import write_release
from test_releases import v1

from hellomeme import HelloMemePipeline, Reenactor, Settings
from hellomeme.errors import HelloMemeError
from hellomeme.expression import ExpressionEncoders
from hellomeme.face.drawing import POINTS, FaceBasis
from hellomeme.inputs import Conditions
from hellomeme.models.control_base import HM5ControlNetBase, HM5SD15ControlProj
from hellomeme.models.fan_encoder import FanEncoder
from hellomeme.releases.expressions import FILE as MEASURED
from hellomeme.releases.load import find, load
from hellomeme.releases.row_file import FILE
from hellomeme.releases.table import FACE_BASIS, Source

FIXTURES = Path(__file__).parent / "fixtures"
QUICK = Settings(steps=1, guidance=1.0)


@pytest.fixture(scope="module")
def drawn_folder(model_folder, tmp_path_factory):
    """A tiny model whose condition pictures show the face."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("models") / "drawn")
    rng, points = np.random.default_rng(0), len(POINTS)
    FaceBasis(rng.normal(0, 1, (points, 3)), rng.normal(0, 0.2, (51, points, 3))).save(folder / FACE_BASIS)
    (folder / MEASURED).write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pipeline(drawn_folder):
    return load(str(drawn_folder), device="cpu")[0]


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "mine"
    pipeline.save_pretrained(folder)
    return folder


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}


def picture(reenactor):
    reenactor.set_reference(toon(3))
    return np.asarray(reenactor.image(toon(5, yaw=10), QUICK).picture)


def test_a_saved_pipeline_draws_as_before(pipeline, drawn_folder, saved):
    row = find(str(drawn_folder))
    again = HelloMemePipeline.from_pretrained(saved)
    assert again.release == dataclasses.replace(
        row,
        root=saved,
        reference=again.release.reference,
        controls=again.release.controls,
        motion=again.release.motion,
    )
    assert [net.source for net in again.release.controls] == [Source("hm_control"), Source("hm_control_up")]
    expected = picture(Reenactor.from_release(str(drawn_folder), device="cpu"))
    assert expected.std() > 5
    for reenactor in (
        Reenactor(again),
        Reenactor(pipeline),
        Reenactor.from_release(str(saved), device="cpu"),
    ):
        assert reenactor.basis is not None and np.array_equal(picture(reenactor), expected)
    assert find(str(saved)).name == "mine" and again.release.name == "drawn"


def test_the_encoders_and_the_row_of_a_release_come_back(tmp_path):
    row = v1(emotion_encoder=find("v1").emotion_encoder, size=64, prompt="a drawing", steps=7)
    pipeline = load(dataclasses.replace(row, emotion_encoder=None), device="cpu")[0]
    torch.manual_seed(1)
    pipeline.release, pipeline.encoders = row, ExpressionEncoders(FanEncoder().eval(), row.negative_emotion)
    pipeline.save_pretrained(tmp_path / "v1")
    facts = json.loads((tmp_path / "v1" / FILE).read_text())
    assert facts["release"] == "v1" and facts["emotion_encoder"] and not facts["face_parts_encoder"]

    again = HelloMemePipeline.from_pretrained(tmp_path / "v1", torch_dtype=torch.float16)
    assert again.unet.dtype == again.encoders.emotion.dtype == torch.float16
    stored = pipeline.encoders.emotion.state_dict()
    for name, tensor in again.encoders.emotion.state_dict().items():
        assert torch.equal(tensor.float(), stored[name].half().float())
    kept = again.release
    assert (kept.name, kept.size, kept.prompt, kept.steps, kept.face_parts_encoder) == (
        "v1",
        64,
        "a drawing",
        7,
        None,
    )
    assert kept.clip_sampler == row.clip_sampler and kept.image_sampler == row.image_sampler
    assert kept.license == "creativeml-openrail-m" and kept.expression_type == "pd_fpg"
    # What was not saved is still known by its place on the hub
    assert kept.motion == row.motion and kept.controls[1].source.elsewhere == "songkey/hm_control"
    assert type(again.scheduler).__name__ == "EulerDiscreteScheduler"


def test_a_release_whose_nets_take_either_expression_comes_back(tmp_path):
    """v5c at small widths: a projection follows the control net, and the reference has control maps."""
    folder, widths = tmp_path / "hub", (16, 32, 32)
    shutil.copytree(FIXTURES / "e2e_v5c_image" / "hm5c_reference", folder / "hm5c_reference")
    torch.manual_seed(2)
    HM5ControlNetBase(3, 32, widths).save_pretrained(folder / "hm5_control_base")
    HM5SD15ControlProj(widths, (32,) * 4).save_pretrained(folder / "hm5c_control_proj")
    base = Source.of(FIXTURES / "e2e_v1_image" / "checkpoint")
    row = dataclasses.replace(find("v5c"), root=folder, base=base, text_width=None, emotion_encoder=None)
    row = dataclasses.replace(row, face_parts_encoder=None)
    pipeline = load(row, expression_type="drive_coeff", device="cpu")[0]
    pipeline.save_pretrained(tmp_path / "saved")

    again = HelloMemePipeline.from_pretrained(tmp_path / "saved")
    assert again.config.reference_control and again.release.reference_control
    assert again.expression_types == {"drive_coeff"} == {again.release.expression_type}
    generator = torch.Generator().manual_seed(3)
    condition = torch.rand((1, 3, 1, 256, 256), generator=generator)
    given = Conditions(condition, drive_coeff=torch.rand((1, 1, 51), generator=generator))
    maps, expected = (each.control_maps(given, 2.0).batch() for each in (again, pipeline))
    assert set(expected) > {"up3_0"} and maps.keys() == expected.keys()
    assert all(torch.equal(maps[key], expected[key]) and expected[key].any() for key in maps)
    by_folder = load(str(tmp_path / "saved"), device="cpu")[0]
    assert by_folder.expression_types == {"drive_coeff"} and by_folder.config.reference_control


def test_a_release_goes_to_the_hub_and_comes_back(pipeline, saved, online, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    repositories = {}
    with stand_in.serve(repositories, uploads=tmp_path / "hub") as (endpoint, asked):
        online(endpoint)
        with pytest.raises(
            HelloMemeError, match=r"^me/toons could not be uploaded; .* `hf auth login` .*\.$"
        ):
            pipeline.push_to_hub("me/toons")
        address = pipeline.push_to_hub("me/toons", token="hf_secret")
        assert address == f"{endpoint}/me/toons/commit/{stand_in.COMMIT}"
        uploaded = {
            p.relative_to(tmp_path / "hub/me/toons").as_posix() for p in repositories["me/toons"].rglob("*.*")
        }
        assert uploaded == {p.relative_to(saved).as_posix() for p in saved.rglob("*.*")}
        assert {FILE, FACE_BASIS, MEASURED, "README.md", "model_index.json"} < uploaded

        again = HelloMemePipeline.from_pretrained("me/toons")
        assert np.array_equal(picture(Reenactor(again)), picture(Reenactor(pipeline)))
        downloaded = [path for path in asked if "/resolve/" in path]
        assert not any(path.endswith("README.md") for path in downloaded[1:])  # it is looked for once

        card = repositories["me/toons"] / "README.md"
        card.write_text(card.read_text() + "\nTrained by me.\n")
        pipeline.push_to_hub("me/toons", token="hf_secret", commit_message="Again")
        assert card.read_text().endswith("Trained by me.\n")
        for name in ("no/such/name", "a name"):
            with pytest.raises(HelloMemeError, match="is no name of a hub repository"):
                pipeline.push_to_hub(name)
    online(None)
    asked.clear()
    assert HelloMemePipeline.from_pretrained("me/toons").release.size == 128 and asked == []
    with pytest.raises(HelloMemeError, match="me/others is not on this computer"):
        HelloMemePipeline.from_pretrained("me/others")


def test_the_card_says_what_the_hub_wants_to_know(saved, pipeline, tmp_path, monkeypatch):
    card = ModelCard.load(saved / "README.md")
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "image-to-image")
    assert card.data.library_name == "diffusers" and "hellomeme" in card.data.tags
    assert 'HelloMemePipeline.from_pretrained("mine")' in card.text and "128 x 128 px" in card.text
    monkeypatch.setattr(pipeline, "release", find("v1"))
    monkeypatch.setattr(pipeline, "base", "songkey/stable-diffusion-v1-5")
    pipeline._save_card(tmp_path, "me/v1")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "creativeml-openrail-m"
    assert card.data.base_model == "songkey/stable-diffusion-v1-5"
    monkeypatch.setattr(pipeline, "base", "some/style")
    pipeline._save_card(tmp_path, "me/v1")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "other" and "The base model is some/style" in card.text


DAMAGES = {
    "release": ("v99", "is of the release v99, which this version of HelloMeme does not know"),
    "size": (10**9, "is damaged"),
    "steps": ("many", "is damaged"),
    "name": ("../up", "is damaged"),
    "prompt": (3, "is damaged"),
    "turns": ({"yaw": 3}, "is damaged"),
    "turns of one angle": ({"yaw": [-3, 3]}, "is damaged"),
    "turns, none": ([], "is damaged"),
    "image_sampler": ({"scheduler": "DiffusionPipeline", "settings": {}}, "is damaged"),
    "clip_sampler": ({"scheduler": None, "settings": {}, "more": 1}, "is damaged"),
    "clip_sampler, switched": (
        {"scheduler": None, "settings": {}, "first_pass": "no", "key_frames": False},
        "is damaged",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_row_from_anybody_is_checked(saved, tmp_path, case):
    value, sentence = DAMAGES[case]
    name = case.partition(" ")[0].strip(",")
    facts = json.loads((saved / FILE).read_text())
    for part in ("hm_reference", "hm_control"):
        (tmp_path / part).mkdir()
    (tmp_path / FILE).write_text(json.dumps(facts | {name: value}))
    with pytest.raises(HelloMemeError, match=sentence):
        find(str(tmp_path))


def test_a_scheduler_of_anybody_is_made_or_refused(saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path / "other"))
    facts = json.loads((saved / FILE).read_text())
    for name, settings in (("NoSuchScheduler", {}), ("DDIMScheduler", {"beta_schedule": "steep"})):
        sampler = {"scheduler": name, "settings": settings}
        (folder / FILE).write_text(json.dumps(facts | {"image_sampler": sampler}))
        with pytest.raises(HelloMemeError, match=f"The scheduler {name} of this release cannot be made: "):
            load(str(folder), device="cpu")


def test_what_sees_the_reference_is_saved_too(tmp_path):
    """By both ways to load it: a pipeline that draws with another model than the one that sees."""
    case, own = FIXTURES / "e2e_v1_image", find("v1")
    write_release(tmp_path)
    row = dataclasses.replace(
        own,
        root=tmp_path / "nets",
        base=Source.of(tmp_path / "official"),
        emotion_encoder=None,
        face_parts_encoder=None,
        text_width=None,
    )
    names = ("reference_unet", "reference_vae", "reference_text_encoder")
    for style in ({"reference_base": "official"}, {"vae": str(tmp_path / "official")}, {}):
        options = {"base": str(case / "checkpoint"), "expression_type": "drive_coeff", "device": "cpu"}
        pipeline = load(row, **options, **style)[0]
        folder = tmp_path / f"saved{len(style)}{next(iter(style), '')}"
        pipeline.save_pretrained(folder)
        by_folder = load(str(folder), device="cpu")[0]
        for again in (HelloMemePipeline.from_pretrained(folder), by_folder):
            for name in ("unet", "vae", "text_encoder", *names):
                net, expected = getattr(again, name), getattr(pipeline, name)
                assert (net is None) == (expected is None), name
                if net is not None:
                    tensors = expected.state_dict()
                    assert all(torch.equal(x, tensors[key]) for key, x in net.state_dict().items()), name


def test_what_cannot_be_saved_or_loaded(pipeline, saved, model_folder, tmp_path, monkeypatch):
    with pytest.raises(HelloMemeError, match="safetensors only"):
        pipeline.save_pretrained(tmp_path / "x", safe_serialization=False)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "get_list_adapters", lambda: {"unet": ["lora_0"]})
        with pytest.raises(HelloMemeError, match="LoRA are loaded and would be lost"):
            pipeline.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(HelloMemeError, match="empty cannot be loaded: "):
        HelloMemePipeline.from_pretrained(tmp_path / "empty")
    damaged = Path(shutil.copytree(saved, tmp_path / "damaged"))
    (damaged / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x80pickle")
    with pytest.raises(HelloMemeError, match="is a pickle under a safetensors name"):
        HelloMemePipeline.from_pretrained(damaged)
    pickled = Path(shutil.copytree(saved, tmp_path / "pickled"))
    for weights in pickled.glob("*/*.safetensors"):
        name = {"model": "pytorch_model"}.get(weights.stem, weights.stem)
        weights.rename(weights.with_name(f"{name}.bin"))
    opened = []
    with monkeypatch.context() as patch, pytest.raises(HelloMemeError, match="pickled cannot be loaded: "):
        patch.setattr(torch, "load", lambda *args, **_: opened.append(args) or {})
        HelloMemePipeline.from_pretrained(pickled, use_safetensors=False)
    assert opened == []
    # Without a row, as saved before there were any
    old = Path(shutil.copytree(saved, tmp_path / "old"))
    (old / FILE).unlink()
    again = HelloMemePipeline.from_pretrained(old)
    assert again.release is None and find(str(old)).size == 128
    with pytest.raises(HelloMemeError, match="The pipeline knows no release"):
        Reenactor(again)
