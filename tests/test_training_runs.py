"""The configuration for a GPU at a tiny size, in its precision; the log and its curves."""

import json

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from hellomeme.errors import HelloMemeError
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.inputs import Conditions
from hellomeme.releases.load import load
from training import dataset
from training.loop import Schedule, Stage, read_log, train, trained
from training.one_gpu import train_on_one_gpu
from training.run import CONFIGS, main
from training.stages.together import hand_over
from training.workshop import Workshop

TINY = {
    "identities": 2,
    "validation_identities": 2,
    "frames": 2,
    "cast": 1,
    "cast_frames": 2,
    "clips": 1,
    "validation_clips": 1,
    "clip_frames": 12,
}
TINY_MODEL = {
    "latent_channels": 4,
    "autoencoder": {"encoder_channels": [16, 16], "decoder_channels": [16, 16, 16]},
    "text_width": 16,
    "channels": [16, 16, 32, 32],
    "layers": 1,
    "base_heads": [1, 1, 2, 2],
    "heads": 2,
    "control_width": 16,
    "motion_transformer_layers": [1, 1, 0, 0],
}


@pytest.fixture
def own_precision():
    """accelerate keeps to the first precision that a process asks for."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_configuration_for_a_gpu_trains_a_model_of_its_size(tmp_path, own_precision):
    """256 px and bfloat16 through every stage, on few and small things: sizes follow the configuration
    throughout. `together` goes as on a GPU, but for the capture."""
    torch.set_num_threads(1)
    config = json.loads((CONFIGS / "gpu.json").read_text())
    demo = json.loads((CONFIGS / "demo.json").read_text())
    assert (config["data"], config["model"]) == (demo["data"], demo["model"])
    stages = ("autoencoder", "base", "reader", "together", "decoder", "motion")
    assert config["data"].keys() == TINY.keys() | {"size"} and config["model"].keys() == TINY_MODEL.keys()
    config |= {"data": config["data"] | TINY | {"size": 256}, "model": TINY_MODEL, "decoder_drawings": 32}

    shop = Workshop(tmp_path, config)
    size = config["data"]["size"]
    (tmp_path / "data").mkdir()
    with FaceAnalyzer() as analyzer:
        for split, (identities, frames) in shop.splits("data").items():
            for path, seeds in dataset.shard_paths(tmp_path / "data", split, identities, frames, size):
                people = dataset.concatenate(
                    [dataset.render_identity(seed, frames, size, analyzer) for seed in seeds]
                )
                np.savez(path, **vars(people))
    assert people.found.all() and people.images.shape[1:3] == (256, 256)
    still = {
        name: np.repeat(values[:1], TINY["clip_frames"], axis=0) for name, values in vars(people).items()
    }
    for split, (identities, frames) in shop.splits("clips").items():
        for path, _ in dataset.shard_paths(tmp_path / "data", split, identities, frames, size):
            np.savez(path, **still)

    for name in stages:
        stage = getattr(shop, f"{name}_stage")()
        if name == "autoencoder":
            stage.start()
        schedule = Schedule(**config[name] | {"batch": 2, "steps": 1})
        if name == "together":
            before = {key: value.detach().bfloat16().float() for key, value in trained(stage).items()}
            train_on_one_gpu(stage, schedule, tmp_path / name, config["seed"], processes=1)
            after = load_file(tmp_path / name / "averaged.safetensors")
            changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
            # Not yet what comes before convolutions that begin at zero
            assert before.keys() == after.keys() and len(changed) > 0.8 * len(before)
            hand_over(tmp_path)
            (tmp_path / name / "last.safetensors").touch()
            with pytest.raises(HelloMemeError, match="can be resumed without --one-gpu"):
                train_on_one_gpu(stage, schedule, tmp_path / name)
        else:
            train(stage, schedule, tmp_path / name, config["seed"], config["mixed_precision"])
        last = read_log(tmp_path / name / "log.csv")[-1]
        assert np.isfinite(float(last["loss"])) and float(last["targets_per_second"]) > 0, name
    shop.export(tmp_path / "model")

    pipeline, _, row = load(str(tmp_path / "model"), device="cpu")
    assert (row.size, row.condition_size) == (256, 64) and row.face_basis is not None
    shown = Conditions(torch.zeros(1, 3, 1, 64, 64), torch.zeros(1, 1, 51))
    latents = pipeline.encode(torch.zeros(1, 3, 256, 256))
    result = pipeline(
        pipeline.prepare_reference(latents, conditions=shown),
        condition=shown.condition,
        drive_coeff=shown.drive_coeff,
        num_inference_steps=1,
    )
    assert result.frames[0].size == (256, 256)


class Line(Stage):
    """One number that is to become 3; `figures` are what a look sees."""

    name = "line"

    def __init__(self, figures):
        super().__init__()
        self.weight, self.figures = torch.nn.Parameter(torch.zeros(1)), figures
        self.drawn = []

    def draw(self, rng, batch):
        self.drawn.append(rng.random())
        return {"truth": torch.full((batch,), 3.0)}

    def forward(self, batch):
        return ((self.weight - batch["truth"]) ** 2).mean()

    def validate(self):
        return self.figures

    def picture(self):
        return Image.new("RGB", (8, 8))


def test_a_log_keeps_its_columns_apart_when_they_change(tmp_path, capsys):
    schedule = dict(minutes=1e9, batch=1, learning_rate=0.1, steps=100)
    train(Line({"old": 1, "both": 2}), Schedule(**schedule, stop=2), tmp_path / "line")
    train(Line({"both": 3, "new": 4}), Schedule(**schedule, stop=4), tmp_path / "line")
    first, second = read_log(tmp_path / "line" / "log.csv")
    assert (first["step"], first["old"], first["both"], first["new"]) == ("2", "1.0", "2.0", "")
    assert (second["step"], second["old"], second["both"], second["new"]) == ("4", "", "3.0", "4.0")
    assert float(first["loss"]) > float(second["loss"]) > 0

    main(["plot", "--folder", str(tmp_path)])
    picture = np.asarray(Image.open(tmp_path / "curves.jpg").convert("L"))
    assert str(tmp_path / "curves.jpg") in capsys.readouterr().out and picture.std() > 5


def test_a_log_of_an_older_version_with_a_heading_too_short_is_read(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("step,loss,psnr\n10,0.5,20\n20,0.4,21,0.97,0.6\n")
    assert [row["psnr"] for row in read_log(path)] == ["20", "21"]
    assert set(read_log(path)[1]) == {"step", "loss", "psnr"}


def test_batches_depend_on_seed_and_step_alone(tmp_path):
    schedule = dict(minutes=1e9, batch=1, learning_rate=0.1, steps=100)
    straight, *parts = [Line({}) for _ in range(3)]
    train(straight, Schedule(**schedule, stop=4), tmp_path / "straight")
    for stage, stop in zip(parts, (2, 4), strict=True):
        train(stage, Schedule(**schedule, stop=stop), tmp_path / "parts")
    assert straight.drawn[:4] == parts[0].drawn[:2] + parts[1].drawn[:2] and len(set(straight.drawn)) >= 4


def test_plotting_without_logs_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plot", "--folder", str(tmp_path)])
    assert ended.value.code == 2 and "no logs of training" in capsys.readouterr().err


def test_a_stage_that_a_configuration_leaves_out_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["adapters", "--folder", str(tmp_path), "--config", str(CONFIGS / "gpu.json")])
    assert ended.value.code == 2 and "gpu.json has no stage adapters" in capsys.readouterr().err


def test_captured_steps_are_for_one_stage_and_a_gpu(tmp_path, capsys, monkeypatch, own_precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for stage, said in (("base", "is for the stage together"), ("together", "needs a GPU")):
        with pytest.raises(SystemExit) as ended:
            main([stage, "--one-gpu", "--folder", str(tmp_path)])
        assert ended.value.code == 2 and said in capsys.readouterr().err
