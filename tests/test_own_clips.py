"""Adapters of a release trained further, or begun anew, on a folder of clips: from files to a folder the page
loads."""

import dataclasses
import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import clip
from conftest import write_tokenizer
from PIL import Image
from safetensors.torch import load_file

from hellomeme.errors import HelloMemeError
from hellomeme.face.conditions import condition_tensor
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.drawing import POINTS, FaceBasis, FaceShape
from hellomeme.io.ffmpeg import ClipWriter, read_frames
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import face_basis, find, load
from hellomeme.releases.table import FACE_BASIS
from hellomeme.settings import Settings
from training.loop import Schedule, train
from training.run import main
from training.stages import own_clips
from training.toon import make_identity, random_clip, render

WIDTHS = (16, 32, 32, 32)
FRAMES = 3
CONFIG = {
    "seed": 0,
    "mixed_precision": "no",
    "clips": {"rate": 6, "frames": 200, "steps": 1},
    "model": {"channels": WIDTHS, "heads": 2, "control_width": 16},
    "own": {"minutes": 10, "batch": 1, "learning_rate": 1e-3, "steps": 2, "warmup": 1},
}


def write_base(folder):
    """Stable Diffusion 1.5's shape and text width, and next to no weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    words = write_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=768,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    parts = {
        "unet": UNet2DConditionModel(
            sample_size=64,
            layers_per_block=1,
            block_out_channels=WIDTHS,
            norm_num_groups=8,
            cross_attention_dim=768,
            attention_head_dim=1,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        ),
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=8,
            mid_block_add_attention=False,
        ),
        "text_encoder": CLIPTextModel(text),
        "scheduler": DDIMScheduler(beta_schedule="scaled_linear"),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `clips` of three drawn persons, a `base`, a `config.json` and a `work` trained for two
    steps."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("own")
    (place / "clips").mkdir()
    for seed in (3, 5, 8):
        with ClipWriter(place / "clips" / f"{seed}.mp4", Fraction(6)) as writer:
            for expression, pose in random_clip(np.random.default_rng(seed), FRAMES):
                writer.write(render(make_identity(seed), expression, pose, 192))
    (place / "clips" / "notes.txt").write_text("not a clip")
    write_base(place / "base")
    (place / "config.json").write_text(json.dumps(CONFIG))
    own(place, "work", "--fresh")
    return place


def own(place, work, *more, clips="clips"):
    main(
        [
            "own",
            "--clips",
            str(place / clips),
            "--base",
            str(place / "base"),
            "--folder",
            str(place / work),
            "--config",
            str(place / "config.json"),
            *more,
        ]
    )


def refusal(capsys, place, *arguments, **more) -> str:
    with pytest.raises(SystemExit) as ended:
        own(place, *arguments, **more)
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_the_export_is_a_release_that_draws(place):
    # Without a prompt of the row no text encoder is fetched for it
    row = dataclasses.replace(find(str(place / "work" / "release")), prompt="")
    pipeline, encoders, row = load(row, str(place / "base"), "cpu")
    assert (row.title.split(":")[0], row.expression_type) == ("HelloMeme v1", "drive_coeff")
    assert encoders.emotion is None
    trained = load_file(place / "work" / "own" / "averaged.safetensors")[
        "adapter.reference_modules_mid.proj.weight"
    ]
    assert trained.any(), "it began at zero"
    assert torch.allclose(pipeline.hm_reference.reference_modules_mid.proj.weight, trained, atol=1e-4)
    with FaceAnalyzer() as analyzer:
        reenactor = Reenactor(pipeline, row, encoders, analyzer)
        face = render(
            make_identity(3), np.zeros(51), next(iter(random_clip(np.random.default_rng(0), 1)))[1], 192
        )
        reenactor.set_reference(face)
        assert reenactor.image(face, Settings(steps=1)).picture.size == (512, 512)


def test_the_log_and_a_grid_of_the_last_look_are_there(place):
    header = (place / "work" / "own" / "log.csv").read_text().splitlines()[0]
    assert header == "step,seconds,loss,targets_per_second,validation,psnr,copy"
    grid = Image.open(next((place / "work" / "own").glob("grid_*.jpg")))
    assert grid.size == (4 * 512, own_clips.LOOKS * 512)


def test_released_adapters_are_trained_further_and_the_base_stays(place, tmp_path, monkeypatch):
    monkeypatch.setattr("training.loop._validate", lambda *everything: None)
    start = own_clips.Start(str(place / "work" / "release"), str(place / "base"))
    stage = own_clips.prepare(place / "clips", start, tmp_path, CONFIG, torch.device("cpu"))
    assert [clip.name for clip in stage.clips] == ["3.mp4", "5.mp4"] and [
        c.name for c in stage.validation
    ] == ["8.mp4"]
    assert all(
        clip.latents.shape == (FRAMES, 4, 64, 64) and len(clip.usable) == FRAMES for clip in stage.clips
    )
    exported = load_file(place / "work" / "release" / "hm_control" / "diffusion_pytorch_model.safetensors")
    assert all(
        torch.equal(stage.controls[0].state_dict()[name], tensor.float()) for name, tensor in exported.items()
    )

    base = torch.nn.ModuleList([stage.pipeline.unet, stage.pipeline.vae, stage.pipeline.text_encoder])
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    adapters = {name: tensor.clone() for name, tensor in stage.adapter.state_dict().items()}
    train(stage, Schedule(minutes=10, batch=2, learning_rate=1e-3, steps=1, warmup=1), tmp_path / "own")
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    changed = {
        name for name, tensor in stage.adapter.state_dict().items() if not torch.equal(tensor, adapters[name])
    }
    assert {name.split(".")[0] for name in changed} == {
        "reference_modules_up",
        "reference_modules_mid",
        "reference_modules_down",
    }


def test_noise_is_what_a_base_of_stable_diffusion_is_trained_on(place, tmp_path):
    """The loss of a network that predicts the very noise is zero; of one that predicts the velocity it is
    not."""
    start = own_clips.Start(str(place / "work" / "release"), str(place / "base"))
    stage = own_clips.prepare(place / "clips", start, tmp_path, CONFIG, torch.device("cpu"))
    batch = stage.draw(np.random.default_rng(0), 1)
    assert stage.scheduler.config.prediction_type == "epsilon" and not stage.ends_in_noise
    torch.manual_seed(1)
    noise = torch.randn_like(batch["latents"])
    stage.predict = lambda *inputs: noise.transpose(1, 2)
    stage.prepare = lambda *reference: {}
    torch.manual_seed(1)
    assert stage(batch).item() == 0
    stage.scheduler.register_to_config(prediction_type="v_prediction")
    torch.manual_seed(1)
    assert stage(batch).item() > 0.1


def test_a_second_run_goes_on_without_reading_the_clips_again(place, monkeypatch):
    def never(*_):
        raise AssertionError("clips are read once")

    monkeypatch.setattr(own_clips, "analysed", never)
    monkeypatch.setattr("training.loop._validate", lambda *everything: None)
    before = load_file(place / "work" / "own" / "last.safetensors")
    own(place, "work", "--fresh")  # its two steps are done
    after = load_file(place / "work" / "own" / "last.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_what_was_begun_otherwise_is_not_gone_on_with(place, capsys):
    assert "was begun with fresh True, not False" in refusal(capsys, place, "work")


def test_folders_without_clips_are_refused(place, capsys):
    assert "has no clips" in refusal(capsys, place, "new", clips="base")
    assert "There is no folder" in refusal(capsys, place, "new", clips="nowhere")
    assert not (place / "new").exists()


def test_control_nets_in_two_parts_are_refused(place, tmp_path):
    start = own_clips.Start("v5", str(place / "base"))
    with pytest.raises(HelloMemeError, match="v5 has control nets in two parts.*choose v1, v2 or v3"):
        own_clips.prepare(place / "clips", start, tmp_path, CONFIG, torch.device("cpu"))


@pytest.mark.parametrize("frames, sentence", [(1, "is a single frame"), (2, "does not show a face")])
def test_clips_that_teach_nothing_are_refused_by_name(place, tmp_path, capsys, frames, sentence):
    clip(tmp_path / "bad.mp4", rate=6, picture=["-frames:v", frames])
    received = refusal(capsys, place, "new", clips=tmp_path)
    assert "bad.mp4" in received and sentence in received
    assert not (place / "new" / "own").exists()


def test_a_release_that_draws_faces_is_trained_with_them_drawn(place, tmp_path):
    """Condition pictures of a clip show the face of its first frame; the export keeps the basis."""
    release = tmp_path / "drawn"
    shutil.copytree(place / "work" / "release", release)
    rng, points = np.random.default_rng(0), len(POINTS)
    FaceBasis(rng.normal(0, 1, (points, 3)), rng.normal(0, 0.2, (51, points, 3))).save(release / FACE_BASIS)
    clips = tmp_path / "clips"
    clips.mkdir()
    shutil.copy(place / "clips" / "3.mp4", clips)
    start = own_clips.Start(str(release), str(place / "base"))
    stage = own_clips.prepare(clips, start, tmp_path / "work", CONFIG, torch.device("cpu"))
    (clip,) = stage.clips
    frame = next(read_frames(clips / "3.mp4", Fraction(6), name="training"))
    with FaceAnalyzer() as analyzer:
        shape = FaceShape.of(analyzer.face(frame, "training"), face_basis(stage.release))
    np.testing.assert_allclose(clip.shape.neutral, shape.neutral, atol=1e-3)
    batch, motion = stage._batch([(clip, 0, np.array([1]))]), clip.motion.at([1])
    assert torch.equal(batch["poses"][0], condition_tensor(motion, 512, clip.shape))
    assert not torch.equal(batch["poses"][0], condition_tensor(motion, 512))
    own_clips.export(stage, tmp_path / "export")
    assert face_basis(find(str(tmp_path / "export"))) is not None

    marks = {
        own_clips._mark(clips / "3.mp4", find(str(folder)), start, CONFIG["clips"])
        for folder in (release, place / "work" / "release")
    }
    assert len(marks) == 2, "clips are read again for another basis"


def test_v2_is_begun_with_maps_for_the_up_blocks():
    from hellomeme.releases.load import find

    adapter, (control,) = own_clips.fresh_adapters(find("v2"), CONFIG["model"])
    assert adapter.config.version == "v2" and type(control).__name__ == "HMV2ControlNet"
    maps = control(torch.zeros(1, 3, 1, 512, 512), torch.zeros(1, 1, 51))
    assert {key: tuple(tensor.shape[1:]) for key, tensor in maps.items()} == {
        "up_v2_3": (32, 1, 64, 64),
        "up_v2_2": (32, 1, 32, 32),
        "up_v2_1": (32, 1, 16, 16),
        "up_v2_0": (32, 1, 8, 8),
    }
