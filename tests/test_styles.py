"""Base models, autoencoders and LoRA: which weights go where, exchanged in place, and back to what it was."""

import shutil

import numpy as np
import photos
import pytest
import torch
from diffusers import UNet2DConditionModel
from hub import serve
from safetensors.torch import load_file, save_file
from styled import CASE, TEXT, UNET, use_hub, write_lora, write_release

from hellomeme.errors import HelloMemeError, NoMemoryError
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.io.metadata import Stamp
from hellomeme.models.lora_layers import adapters
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import find, load
from hellomeme.releases.loras import load_loras
from hellomeme.releases.styles import BASES, LORAS, Lora, Style
from hellomeme.settings import Settings

QUICK = Settings(steps=2, guidance=1.5, seed=3)
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("styles")


@pytest.fixture(scope="module")
def row(folder):
    return write_release(folder)


@pytest.fixture(scope="module")
def loras(folder, row):
    return [write_lora(folder / f"lora{seed}.safetensors", seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def analyzer():
    with FaceAnalyzer() as analyzer:
        yield analyzer


@pytest.fixture(scope="module")
def reference(row, analyzer):
    """The analysed picture of the reference."""
    return Reenactor.from_release(row, device="cpu", analyzer=analyzer).portrait(photos.toon(3), "reference")


def drawn(reenactor):
    return np.asarray(reenactor.expression({"jawOpen": 0.8}, settings=QUICK).picture).astype(int)


def weights(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def refusal(call, *arguments, **options):
    with pytest.raises(HelloMemeError) as error:
        call(*arguments, **options)
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence
    return sentence


def test_the_released_presets():
    assert len(BASES) == 14 and len(LORAS) == 9
    assert BASES["dreamshaper_8"] == "songkey/dreamshaper_8"
    assert LORAS["ghibli_anime_v1"] == "songkey/loras_sd_1_5/ghibli_anime_v1.safetensors"
    assert find("v1").has_styles and find("v2").has_styles and not find("demo").has_styles


def test_a_lora_has_a_source_and_a_strength(loras):
    assert Lora.of("ghibli_anime_v1:0.6") == ("ghibli_anime_v1", 0.6)
    assert Lora.of("ghibli_anime_v1") == Lora.of(("ghibli_anime_v1", 1)) == ("ghibli_anime_v1", 1)
    assert Lora.of(f"{loras[0]}:-1") == (str(loras[0]), -1) and Lora.of(loras[0]) == (str(loras[0]), 1)
    assert Lora.of("C:\\style.safetensors").source == "C:\\style.safetensors"
    assert [Lora.of(text).text for text in ("a/b:0.5", "a/b:1")] == ["a/b:0.5", "a/b"]
    assert "must be a number from -10 to 10" in refusal(Lora.of, "a/b:11")
    assert "choose 20 at most" in refusal(Style, loras=["a/b"] * 21)


def test_loras_are_exchanged_in_place_and_leave_nothing_behind(row, loras, reference, analyzer):
    reenactor = Reenactor.from_release(row, device="cpu", analyzer=analyzer)
    reenactor.set_reference(reference)
    pipeline, unet = reenactor.pipeline, reenactor.pipeline.unet
    before, text = weights(unet), weights(pipeline.text_encoder)
    plain = drawn(reenactor)
    pictures = {}
    for name, chosen in {
        "first": [loras[0]],
        "half": [(loras[0], 0.5)],
        "zero": [(loras[0], 0)],
        "both": loras,
    }.items():
        reenactor.set_style(Style(loras=tuple(chosen)))
        assert pipeline.unet is unet and len(adapters(unet)) == len(adapters(pipeline.text_encoder)) == len(
            chosen
        )
        pictures[name] = drawn(reenactor)
    assert (pictures["zero"] == plain).all()  # the reference, too, is prepared anew each time
    for name in ("first", "half", "both"):
        assert (pictures[name] != plain).any()
        assert not any((pictures[name] == other).all() for key, other in pictures.items() if key != name)
    reenactor.set_style(Style())
    assert equal(weights(unet), before) and equal(weights(pipeline.text_encoder), text)
    assert (drawn(reenactor) == plain).all()
    anew = Reenactor.from_release(row, device="cpu", loras=loras, analyzer=analyzer)
    anew.set_reference(reference)
    assert (drawn(anew) == pictures["both"]).all() and anew.style.loras[1].source == str(loras[1])


def test_a_lora_that_does_not_fit_leaves_those_that_are_loaded(row, loras, tmp_path):
    chosen = [(loras[0], 0.5), loras[1]]
    pipeline = load(row, device="cpu", loras=chosen)[0]
    before, text = weights(pipeline.unet), weights(pipeline.text_encoder)
    noise, words = torch.ones(1, 4, 16, 16), torch.ones(1, 77, 32)
    expected = pipeline.unet(noise, 1, words).sample
    good = load_file(loras[1])
    for name, change, sentence in (
        ("xl", lambda key, x: torch.zeros(2, 2048) if "attn2.to_k.lora_A" in key else x, "Diffusion XL"),
        ("deep", lambda key, x: torch.zeros(2, 7) if "attn1.to_k.lora_A" in key else x, "is not a LoRA for"),
    ):
        save_file(
            {key: change(key, x).contiguous() for key, x in good.items()}, tmp_path / f"{name}.safetensors"
        )
        assert sentence in refusal(load_loras, pipeline, [*chosen, tmp_path / f"{name}.safetensors"])
        assert torch.equal(pipeline.unet(noise, 1, words).sample, expected)
        assert equal(weights(pipeline.unet), before) and equal(weights(pipeline.text_encoder), text)


def test_which_weights_go_where(row, folder):
    def parts(**style):
        return load(row, device="cpu", **style)[0]

    def is_of(net, base, file):
        return equal(weights(net), load_file(folder / base / file))

    base = str(folder / "base")
    both = parts(base=base)  # x2
    assert is_of(both.unet, "base", UNET) and is_of(both.text_encoder, "base", TEXT)
    assert both.reference_unet is None and both.reference_vae is None
    assert is_of(both.reference_text_encoder, "official", TEXT)
    one = parts(base=base, reference_base="official")  # x1
    assert is_of(one.unet, "base", UNET) and is_of(one.reference_unet, "official", UNET)
    assert is_of(one.text_encoder, "official", TEXT) and one.reference_text_encoder is None
    assert is_of(one.vae, "base", VAE) and is_of(one.reference_vae, "official", VAE)
    own = parts()
    assert own.reference_text_encoder is None and is_of(own.text_encoder, "official", TEXT)


def test_in_x1_the_reference_is_seen_without_the_lora(row, loras, folder):
    options = {"base": str(folder / "base"), "device": "cpu"}
    for chosen, seen in (("official", True), (None, False)):
        found, pads, texts = [], [], []
        for more in ({}, {"loras": loras}):
            pipeline = load(row, reference_base=chosen, **options, **more)[0]
            reference = pipeline.prepare_reference(torch.ones(1, 4, 16, 16), "a face")
            found.append(reference.prepared["up_3"].row_keys)
            pads.append(pipeline.pad_features(torch.ones(1, 4, 16, 16), torch.ones(2, 77, 32))["up_3"])
            texts.append(pipeline.encode_prompt("a face"))
        assert torch.equal(*found) == torch.equal(*pads) == seen  # as if there were none
        assert len(adapters(pipeline.reference_unet or pipeline.unet)) == 2  # a clip's first pass has them
        assert not torch.equal(*texts)


def test_a_base_model_that_sees_the_reference_itself_is_loaded_once(row, loras, folder):
    """It draws with the LoRA and sees the reference without, as a second copy would."""
    (folder / "link").symlink_to(folder / "base")
    results = []
    for name in ("link", "copy"):
        if name == "copy":
            shutil.copytree(folder / "base", folder / "copy")
        pipeline = load(
            row, str(folder / "base"), "cpu", loras=loras, reference_base=str(folder / name), vae="official"
        )[0]
        reference = pipeline.prepare_reference(torch.ones(1, 4, 16, 16), "a face")
        keys, noise = reference.prepared["up_3"].row_keys, torch.ones(1, 4, 16, 16)
        drawn = pipeline.unet(noise, 1, torch.ones(1, 77, 32)).sample
        results.append((keys, drawn, pipeline.encode(torch.ones(1, 3, 128, 128))))
        assert (pipeline.reference_unet is pipeline.unet) == (name == "link")
        load_loras(pipeline, [])
        assert adapters(pipeline.unet) == [] and equal(
            weights(pipeline.unet), load_file(folder / "base" / UNET)
        )
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_an_autoencoder_of_its_own(row, folder, tmp_path):
    from single_file import vae_key

    tensors = load_file(folder / "official" / VAE)
    save_file(tensors, tmp_path / "plain.safetensors")
    squared = {
        vae_key(key): value[:, :, None, None]
        if key.endswith("weight") and "attentions.0.to_" in key
        else value
        for key, value in tensors.items()
    }
    save_file({key: x.contiguous() for key, x in squared.items()}, tmp_path / "original.safetensors")
    base = {"base": str(folder / "base"), "device": "cpu"}
    sources = (folder / "official", "official")
    for vae in (*sources, *(tmp_path / f"{name}.safetensors" for name in ("plain", "original"))):
        pipeline = load(row, vae=vae, **base)[0]
        assert equal(weights(pipeline.vae), tensors), vae
        assert equal(weights(pipeline.reference_vae), load_file(folder / "base" / VAE))
    assert load(row, vae="base", **base)[0].reference_vae is None
    first = next(iter(tensors))
    save_file({key: x for key, x in tensors.items() if key != first}, tmp_path / "part.safetensors")
    for vae, sentence in {
        tmp_path / "part.safetensors": "part.safetensors lacks 1 of the 180 tensors of its autoencoder",
        tmp_path / "none.safetensors": "There is no file",
        folder / "base" / "unet": "is not an autoencoder of Stable Diffusion but UNet2DConditionModel",
        "no/such": "no/such is not on this computer",
        5: "A model is named by a text, not int",
    }.items():
        assert sentence in refusal(load, row, vae=vae, **base)
    assert "cannot be exchanged" in refusal(load, "demo", device="cpu", vae=tmp_path / "plain.safetensors")


def test_an_autoencoder_of_another_kind_is_refused(row, folder, tmp_path):
    import json

    shutil.copytree(folder / "official" / "vae", tmp_path / "xl")
    config = tmp_path / "xl" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.13025}))
    assert "its scaling_factor is 0.13025" in refusal(load, row, vae=tmp_path / "xl", device="cpu")


def test_another_style_draws_as_if_it_had_been_loaded(row, folder, loras, reference, analyzer):
    reenactor = Reenactor.from_release(row, device="cpu", analyzer=analyzer)
    kept = reenactor.set_reference(reference)
    plain = drawn(reenactor)
    for style in (
        Style(base=str(folder / "base"), loras=(loras[0],)),
        Style(base=str(folder / "base"), reference_base="official"),
    ):
        reenactor.set_style(style)
        anew = Reenactor.from_release(
            row, style.base, "cpu", None, style.loras, reference_base=style.reference_base, analyzer=analyzer
        )
        anew.set_reference(reference)
        expected = drawn(anew)
        assert (drawn(reenactor) == expected).all() and (expected != plain).any()
    reenactor.set_style(Style())
    assert (drawn(reenactor) == plain).all() and reenactor.reference is kept


def test_without_memory_for_other_weights_all_stays_as_it_was(
    row, folder, loras, reference, analyzer, monkeypatch
):
    """A stand-in for a GPU on which there is no room for another UNet, or for the layers of a LoRA."""
    reenactor = Reenactor.from_release(row, device="cpu", analyzer=analyzer)
    reenactor.set_reference(reference)
    pipeline, plain = reenactor.pipeline, drawn(reenactor)
    own = {name: id(part) for name, part in pipeline.components.items()}
    move = UNet2DConditionModel.to

    def full(self, *place):
        if id(self) != own["unet"] and isinstance(place[0], torch.device):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return move(self, *place)

    with monkeypatch.context() as patch:
        patch.setattr(UNet2DConditionModel, "to", full)
        with pytest.raises(NoMemoryError):
            reenactor.set_style(Style(base=str(folder / "base")))
    assert {name: id(part) for name, part in pipeline.components.items()} == own

    def no_room(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "load_lora_into_text_encoder", no_room)  # the UNet has its layers by then
        with pytest.raises(NoMemoryError):
            reenactor.set_style(Style(loras=(loras[0],)))
    assert adapters(pipeline.unet) == [] and reenactor.style == Style()
    assert (drawn(reenactor) == plain).all()
    reenactor.set_style(Style(base=str(folder / "base"), loras=(loras[0],)))
    assert (drawn(reenactor) != plain).any()


def test_the_reference_drives_itself(row, reference, analyzer):
    reenactor = Reenactor.from_release(row, device="cpu", analyzer=analyzer)
    reenactor.set_reference(reference)
    own = reenactor.image(None, QUICK)
    assert own.driver.tobytes() == own.reference.tobytes()
    assert own.picture.tobytes() == reenactor.image(reference, QUICK).picture.tobytes()


def test_metadata_name_weights_and_no_folders(loras, folder):
    style = Style(str(folder / "base"), "official", ("ghibli_anime_v1:0.5", loras[0]), "official")
    stamp = Stamp(Settings(), "v1", style=style)
    assert str(folder) not in stamp.text
    found = Stamp.parse(stamp.text).style
    assert found == Style("base", "official", ("ghibli_anime_v1:0.5", "lora1.safetensors"), "official")
    assert found == style.shown and Style.from_facts(found.facts) == found
    for hub in (Style("me/model", loras=("you/loras/a.safetensors",)), Style("dreamshaper_8")):
        assert hub.shown == hub
    assert "style" not in Stamp(Settings(), "v1").text
    for bad in ('{"base": 5}', '{"loras": [["a/b", "x"]]}', "[1]", '{"base": "' + "x" * 300 + '"}'):
        with pytest.raises(HelloMemeError, match="The settings in this file are damaged"):
            Stamp.parse(stamp.text.replace('"style": {', f'"style": {bad}, "more": {{'))


def test_presets_come_from_the_hub(row, folder, monkeypatch, tmp_path):
    """The base model, and of the LoRA one file of many."""
    repository = tmp_path / "loras"
    for seed, name in enumerate(("ghibli_anime_v1", "Drawing")):
        write_lora(repository / f"{name}.safetensors", seed)
    repositories = {"songkey/dreamshaper_8": CASE / "checkpoint", "songkey/loras_sd_1_5": repository}
    with serve(repositories) as (endpoint, asked):
        use_hub(monkeypatch, endpoint, tmp_path / "cache")
        pipeline = load(row, "dreamshaper_8", "cpu", loras=["ghibli_anime_v1:0.7"], vae="dreamshaper_8")[0]
    assert equal(weights(pipeline.vae), load_file(CASE / "checkpoint" / VAE))
    assert len(adapters(pipeline.unet)) == 1 and not any("Drawing" in path for path in asked)


@pytest.mark.parametrize("wrong", [{"loras": ["none.safetensors"]}, {"base": "none"}, {"vae": "./none"}])
def test_a_wrong_path_is_noticed_before_the_hub_is_asked(wrong):
    with pytest.raises(HelloMemeError, match="^There is no (folder or )?file [./]*none"):
        load("v2", **wrong)  # of which nothing is on this computer
