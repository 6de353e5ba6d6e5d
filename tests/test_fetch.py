"""`hellomeme fetch` and `--offline`: from a stand-in for the hub, what a release needs and nothing else."""

import json

import hub as stand_in
import pytest

from hellomeme.cli.main import main
from hellomeme.face.onnx_models import FILES
from hellomeme.releases import files
from hellomeme.releases.base_model import TEXT_ENCODER_FILES
from hellomeme.releases.hub import BASE_FILES, NETWORK_FILES
from hellomeme.releases.load import available, find
from hellomeme.releases.styles import Style
from hellomeme.releases.table import RELEASES, SD15

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def repositories(tmp_path):
    """Every repository that v1 and v2 name, with files that nobody needs among the others."""
    made = {}

    def write(name, *paths):
        made[name] = tmp_path / "hub" / name
        for path in paths:
            file = made[name] / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(json.dumps({"file": f"{name}/{path}"}).encode().ljust(4000))

    for row in (find("v1"), find("v2")):
        for net in (row.reference, *row.controls, *row.motion, row.emotion_encoder):
            write(net.source.elsewhere, "config.json", WEIGHTS, "README.md", "diffusion_pytorch_model.bin")
    clip = "models/image_encoder"
    write(
        "songkey/IP-Adapter", f"{clip}/config.json", f"{clip}/model.safetensors", "models/other.safetensors"
    )
    parts = [f"{part}/{name}" for part in ("unet", "vae") for name in ("config.json", WEIGHTS)]
    parts += [
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "text_encoder/model.fp16.safetensors",
    ]
    extra = ["v1-5.ckpt", "v1-5.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors", "README.md"]
    more = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
    ]
    write("songkey/stable-diffusion-v1-5", *parts, *extra, *more)
    write("songkey/hello_group_facemodel", *FILES, "other.onnx")
    return made


@pytest.fixture
def run(capfd):
    def run(*arguments):
        return main(["fetch", *arguments]), *capfd.readouterr()

    return run


def repositories_asked(asked):
    return {"/".join(path.removeprefix("api/models/").split("/")[:2]) for path in asked}


def test_the_files_of_a_release_are_listed_and_fetched(repositories, online, run):
    with stand_in.serve(repositories) as (endpoint, asked):
        online(endpoint)
        status, listing, _ = run("v1", "--list")
        lines = listing.splitlines()
        assert (
            status == 0
            and lines[-1].startswith("v1: 18 files, 72.0 kB, of which 72.0 kB to download")
            and not any("/resolve/" in p for p in asked)
        )
        # Networks by default for emotion codes, with those for clips; the base model last
        assert [line for line in lines[:-1] if not line.startswith(" ")] == [
            "songkey/hm_reference",
            "songkey/hm_control2",
            "songkey/pd_fgc_motion",
            "songkey/hm_animatediff_frame12",
            "songkey/stable-diffusion-v1-5",
        ]
        named = [line.split()[0] for line in lines if line.startswith(" ")]
        assert named[:2] == ["config.json", WEIGHTS] and f"unet/{WEIGHTS}" in named
        assert not any(
            name.endswith((".bin", ".ckpt", ".md")) or "fp16" in name or "non_ema" in name for name in named
        )
        sizes = [line.split()[1:] for line in lines if line.startswith("  config.json")]
        assert sizes == [["4.0", "kB"]] * 4

        status, told, _ = run("v1")
        assert status == 0 and told.splitlines()[-1] == "v1 is complete on this computer."
        fetched = {path for path in asked if "/resolve/" in path}
        assert {path.split("/resolve/")[1].partition("/")[2] for path in fetched} == set(named)
        assert (
            run("v1")[1].count("  here\n") == 18 and "of which 0.0 kB to download" in run("v1", "--list")[1]
        )

        # What the next release shares with it is there already
        asked.clear()
        listing = run("v2", "--no-clips")[1]
        assert repositories_asked(path for path in asked if "/resolve/" in path) == {
            "songkey/hm2_reference",
            "songkey/hm2_control2",
        }
        assert "hm2_animatediff_frame12" not in listing

        # ARKit coefficients ask for other networks, one of them in a folder of a repository
        listing = run("v1", "--expression-type", "drive_coeff", "--list")[1]
        assert "songkey/IP-Adapter\n  models/image_encoder/config.json" in listing
        assert (
            "facemodel" not in listing and "facemodel" in run("v1", "--face-models", "release", "--list")[1]
        )
        assert "pd_fgc" not in listing and "hm_control\n" in listing and "other" not in listing

    online(None)
    assert run("v1") == (0, "v1 is complete on this computer.\n", "")
    assert [reason for *_, reason in available()][:3] == [None, None, None]
    status, _, sentence = run("v2")
    assert (
        status == 2 and "missing are songkey/hm2_animatediff_frame12 (config.json, weights); run" in sentence
    )


def test_offline_says_all_that_is_missing(repositories, online, run, capfd, tmp_path):
    base = repositories["songkey/stable-diffusion-v1-5"]
    (base / "vae" / WEIGHTS).unlink()
    with stand_in.serve(repositories) as (endpoint, asked):
        online(endpoint)
        assert run("v1", "--no-clips")[0] == 0  # the hub has no more of it
        asked.clear()
        pictures = [
            str(stand_in.Path(__file__).parent.parent / "examples" / name)
            for name in ("references/mila.png", "drivers/laugh.png")
        ]
        command = [
            "image",
            *pictures,
            str(tmp_path / "out.png"),
            "--release",
            "v1",
            "--device",
            "cpu",
            "--offline",
        ]
        assert main(command) == 2 and asked == []
        assert capfd.readouterr().err == (
            "hellomeme: The release v1 is not complete on this computer, and downloads are off: missing are "
            "songkey/stable-diffusion-v1-5 (vae/weights); run `hellomeme fetch v1` where there is a network, "
            "or choose another model (the bundled demo model needs no network).\n"
        )
        assert run("v1", "--offline")[0] == 2 and asked == []
        assert run("v1", "--list")[0] == 0 and asked  # only while the option is given
    assert run("demo", "--offline") == (0, "demo is complete on this computer.\n", "")
    assert run("v9")[2].startswith("hellomeme: There is no release or folder called v9")


def test_half_a_base_model_is_taken_where_there_is_no_whole_one(repositories, online):
    base = repositories["songkey/stable-diffusion-v1-5"]
    for part in ("unet", "vae"):
        (base / part / WEIGHTS).rename(base / part / WEIGHTS.replace(".safetensors", ".fp16.safetensors"))
    (base / "unet" / "diffusion_pytorch_model.non_ema.safetensors").unlink()
    part = files.Needed("songkey/stable-diffusion-v1-5", BASE_FILES)
    with stand_in.serve(repositories) as (endpoint, _):
        online(endpoint)
        names = [file.name for file in files.listed(part)]
        assert "unet/diffusion_pytorch_model.fp16.safetensors" in names
        files.download(part)
        assert all(file.is_here for file in files.listed(part))
        assert files.lacking([part]) == {}


def test_every_row_names_what_it_needs():
    for row in RELEASES:
        parts = files.needed(row, clips=True)
        if row.root is not None:
            assert parts == []
            continue
        assert parts[-1] == files.Needed(row.base.elsewhere, BASE_FILES)
        sources = [part.source for part in parts]
        assert len(set(sources)) == len(sources) and row.reference.source.elsewhere == sources[0]
        assert files.Needed(row.reference.source.elsewhere, NETWORK_FILES) in parts
        kinds = {net.expression_type for net in row.controls}
        every = {part.source for part in files.needed(row, sorted(kinds), clips=True)}
        assert every >= {*sources, *(net.source.elsewhere for net in (*row.controls, *row.motion))}


def test_a_second_base_model_is_listed_in_place_of_the_text_encoder_of_the_first():
    def bases(**more):
        return {part.source: part.files for part in files.needed(find("v1"), base="a/b", **more)}

    official = SD15.elsewhere
    assert bases()[official] == TEXT_ENCODER_FILES
    assert bases(reference_base="official")[official] == BASE_FILES
    second = bases(reference_base="c/d")
    assert second["a/b"] == second["c/d"] == BASE_FILES and official not in second
    # Its autoencoder comes with it, or alone
    vae = files.Needed(official, tuple(f"vae/{name}" for name in NETWORK_FILES))
    assert files.needed_by(find("v1"), Style("a/b", "official")) == [vae]
    assert files.needed_by(find("v1"), Style(vae="official")) == []


def test_a_style_is_fetched_with_its_release(repositories, online, run, tmp_path):
    """An autoencoder, LoRA of one file and of a repository, and that of a few-step preset; a repository that
    is gone does not hide the others."""
    lcm = "latent-consistency/lcm-lora-sdv1-5"
    names = {"me/vae": ["config.json", WEIGHTS], "me/many": ["a.safetensors", "b.safetensors"]}
    for name in ("me/vae", "me/lora", "me/many", lcm):
        repositories[name] = tmp_path / name
        repositories[name].mkdir(parents=True)
        for file in names.get(name, ["lora.safetensors"]):
            (tmp_path / name / file).write_bytes(b"{}" * 500)
    loras = "--lora", "me/lora:0.5", "--lora", "me/many/b.safetensors"
    style = "--vae", "me/vae", *loras, "--few-steps", "lcm"
    with stand_in.serve(repositories) as (endpoint, asked):
        online(endpoint)
        status, told, _ = run("v1", "--no-clips", *style)
        assert status == 0 and told.splitlines()[-1] == "v1 is complete on this computer."
        fetched = {path.partition("/resolve/")[::2] for path in asked if "/resolve/" in path}
        own = {(name, file.partition("/")[2]) for name, file in fetched if not name.startswith("songkey")}
        assert own == {
            ("me/vae", "config.json"),
            ("me/vae", WEIGHTS),
            ("me/lora", "lora.safetensors"),
            ("me/many", "b.safetensors"),
            (lcm, "lora.safetensors"),
        }
        several = "me/many holds 2 .safetensors files: name the one to use."
        assert run("v1", "--lora", "me/many")[2] == f"hellomeme: {several}\n"
        status, told, sentence = run("v1", "--lora", "me/many", "--list")
        assert f"me/many\n  complete on this computer\n  {several}\n" in told
        assert (status, sentence) == (2, "hellomeme: 1 of 6 repositories could not be listed, see there.\n")
        assert run("demo", "--few-steps", "lcm")[0] == 2
        nowhere = "hellomeme: There is no file nowhere.safetensors: check the path.\n"
        assert run("v1", "--upscaler", "nowhere.safetensors") == (2, "", nowhere)

        del repositories["me/vae"]
        status, told, sentence = run("v1", *style, "--list")
        assert (status, sentence) == (2, "hellomeme: 1 of 9 repositories could not be listed, see there.\n")
        gone = "There is no folder and no public hub repository me/vae: check the name."
        assert f"me/vae\n  complete on this computer\n  {gone}\nme/lora\n  lora.safetensors" in told
    online(None)
    status, told, sentence = run("v1", *style, "--list", "--offline")
    assert (status, sentence) == (0, "")
    assert "songkey/hm_animatediff_frame12\n  missing here: config.json, weights\n" in told
