"""Training end to end at a tiny size: every stage runs, resumes, leaves the base alone, and its export
loads."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file

from hellomeme.face.detect import FaceAnalyzer
from hellomeme.models.adapters import HMReferenceAdapter
from hellomeme.sampling.windows import WINDOW, ClipPlan, in_windows
from training import dataset
from training.adapters import start_by_copying
from training.export import take_apart
from training.loop import Schedule, load_averaged, train, trained
from training.motion_module import SECOND, flicker
from training.reader import NAMES, Reader
from training.run import Workshop
from training.together import hand_over

CONFIG = {
    "seed": 0,
    "mixed_precision": "no",
    "data": {
        "identities": 4,
        "validation_identities": 2,
        "frames": 2,
        "size": 128,
        "clips": 1,
        "validation_clips": 1,
        "clip_frames": 12,
    },
    "model": {
        "latent_channels": 4,
        "autoencoder": {
            "encoder_channels": [16, 16],
            "decoder_channels": [16, 16, 16],
            "layers_per_block": 1,
        },
        "text_width": 16,
        "channels": [16, 16, 32, 32],
        "layers": 1,
        "heads": 2,
        "control_width": 16,
    },
}
QUICK = Schedule(minutes=10, batch=2, learning_rate=1e-3, steps=2)


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Workshop:
    """A work folder with all stages trained for two steps."""
    torch.set_num_threads(1)
    shop = Workshop(tmp_path_factory.mktemp("work"), CONFIG)
    # One process: a pool would import everything again for a few frames.
    (shop.folder / "data").mkdir()
    with FaceAnalyzer() as analyzer:
        for split, (identities, frames) in (shop.splits("data") | shop.splits("clips")).items():
            moving = split.endswith("clips")
            for path, seeds in dataset.shard_paths(shop.folder / "data", split, identities, frames, 128):
                shards = [dataset.render_identity(seed, frames, 128, analyzer, moving) for seed in seeds]
                np.savez(path, **vars(dataset.concatenate(shards)))
    torch.manual_seed(0)
    for name in ("autoencoder", "reader", "base", "adapters", "motion"):
        stage = getattr(shop, f"{name}_stage")()
        if name == "autoencoder":
            stage.start()
        train(stage, QUICK, shop.folder / name)
    return shop


def test_frames_are_labelled_and_reproducible(shop):
    frames = shop.train_frames
    assert len(frames) == 8 and frames.found.all()
    assert frames.images.shape == (8, 128, 128, 3) and frames.poses.any(axis=(1, 2, 3)).all()
    with FaceAnalyzer() as analyzer:
        again = dataset.render_identity(dataset.FIRST_IDENTITY["train"], 2, 128, analyzer)
    assert np.array_equal(again.images, frames.images[:2])
    assert np.array_equal(again.commanded, frames.commanded[:2])


def test_splits_share_no_identity(shop):
    assert not set(shop.train_frames.identity) & set(shop.validation_frames.identity)


def test_autoencoder_starts_as_a_working_code(shop):
    stage = shop.autoencoder_stage()
    stage.start()
    with torch.no_grad():
        error = stage.reconstructions(shop.train_frames.images).astype(float) - shop.train_frames.images
    assert (error**2).mean() < 0.5 * shop.train_frames.images.astype(float).var()


def test_the_base_is_never_changed(shop):
    stage = shop.adapters_stage()
    before = {name: p.clone() for name, p in stage.denoising_net.unet.state_dict().items()}
    adapter = {name: p.clone() for name, p in stage.adapter.state_dict().items()}
    train(stage, QUICK, shop.folder / "frozen")
    after = stage.denoising_net.unet.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(
        adapter["reference_modules_mid.proj.weight"], stage.adapter.reference_modules_mid.proj.weight
    )
    saved = load_averaged(shop.adapters_stage(), shop.folder / "frozen")
    assert torch.equal(
        saved.adapter.reference_modules_mid.proj.weight, stage.adapter.reference_modules_mid.proj.weight
    )


@torch.no_grad()
def test_the_second_step_sees_what_the_first_drew(shop):
    """Or the truth under noise, where `own` says so; the first always sees noise alone."""
    stage = shop.adapters_stage()
    batch = stage.draw(np.random.default_rng(0), 1)
    batch["timesteps"][:], batch["own"] = 400, torch.tensor([[True, False, True]])
    seen, predict = [], stage.predict

    def watched(noisy, timesteps, *conditions):
        seen.append((noisy, timesteps))
        return predict(noisy, timesteps, *conditions)

    stage.predict = watched
    stage(batch)
    (noise, first), (noisy, second) = seen
    assert (first == 999).all() and (second == 400).all()
    conditioned, truth = stage.conditioned(batch), batch["latents"].transpose(1, 2)
    drawn = stage.cleaned(noise, first, *conditioned)
    torch.testing.assert_close(
        stage.scheduled(
            "get_velocity",
            stage.scheduled("get_velocity", truth, noise, second),
            stage.scheduled("add_noise", truth, noise, second),
            second,
        ),
        truth,
        rtol=1e-4,
        atol=1e-4,
    )
    for frame, start in enumerate((drawn, truth, drawn)):
        expected = stage.scheduled("add_noise", start, noise, second)
        torch.testing.assert_close(noisy[:, :, frame], expected[:, :, frame], rtol=1e-4, atol=1e-4)


def test_the_reader_is_a_loss_and_not_trained_with_the_adapters(shop):
    stage = shop.adapters_stage()
    assert stage.reader is not None and not any("reader" in name for name in trained(stage))
    batch = stage.draw(np.random.default_rng(0), 2)
    batch["keep"][:] = True
    losses = []
    for reader in (stage.reader, None):
        stage.reader = reader
        torch.manual_seed(0)
        losses.append(stage(batch).item())
    assert losses[0] > losses[1]
    truth = batch["latents"].flatten(0, 1)
    reader = Reader(truth.shape[1], truth.shape[-1])
    assert reader(truth).shape == (len(truth), len(NAMES))
    assert (reader.difference(truth, truth) == 0).all() and (reader.difference(truth + 1, truth) > 0).all()
    batch["keep"][:] = False
    losses = []
    for stage.reader in (reader, None):
        torch.manual_seed(0)
        losses.append(stage(batch).item())
    assert losses[0] == pytest.approx(losses[1]), "what was told nothing is not read"


def test_base_and_adapters_learn_together_and_are_handed_over(shop, tmp_path):
    other = Workshop(tmp_path, CONFIG)
    for name in ("data", "autoencoder", "latents", "tokenizer"):
        (other.folder / name).symlink_to(shop.folder / name)
    for name in ("base", "adapters"):
        shutil.copytree(shop.folder / name, other.folder / name)
    stage = other.together_stage()
    adapter = load_file(other.folder / "adapters" / "averaged.safetensors")
    assert all(torch.equal(stage.state_dict()[name], tensor) for name, tensor in adapter.items()), (
        "goes on from what there is"
    )
    train(stage, QUICK, other.folder / "together")
    hand_over(other.folder)
    adapters = other.adapters_stage()
    train(adapters, replace(QUICK, stop=0), other.folder / "adapters")
    assert torch.equal(
        adapters.adapter.reference_modules_mid.proj.weight, stage.adapter.reference_modules_mid.proj.weight
    )
    before = load_file(shop.folder / "base" / "averaged.safetensors")
    after = load_file(other.folder / "base" / "averaged.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("text_encoder."))
    assert torch.equal(after["unet.conv_in.weight"], stage.base.unet.conv_in.weight)
    assert not torch.equal(after["unet.conv_in.weight"], before["unet.conv_in.weight"])


def test_a_stage_resumes_where_it_stopped(shop, monkeypatch):
    """Interrupted and resumed is the same as never interrupted: weights, moments, average and draws."""
    monkeypatch.setattr("training.loop._look", lambda *everything: None)
    straight, broken = shop.folder / "straight", shop.folder / "broken"
    constant = replace(QUICK, minutes=1e9, warmup=1, steps=10**6, learning_rate=1e-2)
    torch.manual_seed(0)
    start = {name: p.clone() for name, p in trained(shop.base_stage()).items()}
    for folder, stops in ((straight, (4,)), (broken, (2, 4))):
        for stop in stops:
            stage = shop.base_stage()
            with torch.no_grad():
                for name, p in trained(stage).items():
                    p.copy_(start[name])
            train(stage, replace(constant, stop=stop), folder)
    one, other = (load_file(folder / "last.safetensors") for folder in (straight, broken))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)
    assert not torch.equal(one["weights.unet.conv_in.weight"], start["unet.conv_in.weight"])


def test_copying_is_where_the_reference_attention_starts():
    """Before training, the query of row position i scores the reference's position i, or its neighbour,
    highest."""
    torch.manual_seed(0)
    adapter, side = HMReferenceAdapter(block_out_channels=(64, 96, 128, 128), num_attention_heads=4), 16
    start_by_copying(adapter, side)
    module = adapter.module_at("up_3")
    table = module.norm(module.pos_embed.pe[0])
    queries = module.attn1.to_q(table[:side])
    keys = module.attn1.to_k(table[side : 2 * side])
    assert ((queries @ keys.T).argmax(1) - torch.arange(side)).abs().max() <= 1


def test_the_motion_module_starts_without_effect_and_alone_is_trained(shop):
    stage = shop.motion_stage()
    with torch.no_grad():
        figures = stage.validate()
    for name in ("error", "flicker"):
        assert figures[f"{name}_alone"] == pytest.approx(figures[f"{name}_together"], rel=1e-4)
    assert all("motion_modules" in name for name in trained(stage))
    before = {name: p.clone() for name, p in trained(stage).items()}
    load_averaged(stage, shop.folder / "motion")
    assert any(not torch.equal(before[name], p) for name, p in trained(stage).items())


@torch.no_grad()
def test_the_motion_module_is_trained_on_what_clips_are_drawn_from(shop):
    """Two steps of the stage are what the sampler makes of a window in two steps, the same noise in every
    frame."""
    stage = load_averaged(shop.motion_stage(), shop.folder / "motion").eval()
    batch = stage.draw(np.random.default_rng(0), 1) | {"timesteps": torch.tensor([SECOND])}
    adapters, noise = stage.adapters, torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    prepared, control = (
        adapters.prepare(batch["reference"]),
        adapters.control(batch["poses"], batch["coefficients"]),
    )
    starts = ((None, noise[:, :, None]) for _ in range(WINDOW))
    windows = in_windows(
        lambda frames: (
            lambda latents, timestep: stage.denoising_net(
                latents, timestep, adapters.empty_text, prepared, control
            )
        ),
        adapters.scheduler,
        starts,
        ClipPlan(WINDOW - 1, 2, 1.0),
    )
    drawn = torch.cat(list(windows), 2)
    torch.testing.assert_close(
        drawn, stage._two_steps(stage.denoising_net, batch, noise)[1], rtol=1e-3, atol=1e-4
    )
    assert flicker(drawn + 3, drawn) < 1e-9 < flicker(drawn[:, :, :1].expand_as(drawn), drawn)


def test_the_export_is_a_release(shop, tmp_path):
    from hellomeme.releases.load import load

    shop.export(tmp_path / "model")
    assert MotionAdapter.from_pretrained(tmp_path / "model" / "motion").config.use_motion_mid_block is False
    weights = [load_file(path) for path in (tmp_path / "model").rglob("*.safetensors")]
    assert len(weights) == 7 and not any(
        x.dtype == torch.float32 for tensors in weights for x in tensors.values()
    )
    assert json.loads((tmp_path / "model" / "hm_reference" / "config.json").read_text())["version"] == "v1"
    pipeline, _, release = load(str(tmp_path / "model"), device="cpu")
    stage = load_averaged(shop.adapters_stage(), shop.folder / "adapters")
    for name, tensor in stage.adapter.state_dict().items():
        if name.startswith("reference_modules_down.3"):  # never used, so never trained and random each time
            continue
        assert torch.allclose(pipeline.hm_reference.state_dict()[name], tensor.half().float(), atol=1e-3), (
            name
        )
    reference = pipeline.prepare_reference(pipeline.encode(torch.zeros(1, 3, 128, 128)))
    size = release.condition_size
    result = pipeline(
        reference,
        condition=torch.zeros(1, 3, 1, size, size),
        drive_coeff=torch.zeros(1, 1, 51),
        num_inference_steps=1,
    )
    assert result.frames[0].size == (128, 128)


def test_an_exported_model_can_be_trained_further(shop, tmp_path):
    shop.export(tmp_path / "model")
    other = Workshop(tmp_path / "work", CONFIG)
    (other.folder / "data").mkdir(parents=True)
    for path in (shop.folder / "data").iterdir():
        (other.folder / "data" / path.name).symlink_to(path)
    take_apart(tmp_path / "model", other.folder)
    train(other.adapters_stage(), replace(QUICK, stop=0), other.folder / "adapters")
    begun = load_file(other.folder / "adapters" / "last.safetensors")
    exported = load_averaged(shop.adapters_stage(), shop.folder / "adapters").adapter.reference_modules_mid
    assert torch.allclose(
        begun["weights.adapter.reference_modules_mid.proj.weight"], exported.proj.weight, atol=1e-3
    )
