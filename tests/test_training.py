"""Training end to end at a tiny size: every stage runs, resumes, leaves the base alone, and its export
loads."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file

from hellomeme.errors import HelloMemeError
from hellomeme.face.conditions import condition_tensor
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.drawing import PARTS, POINTS, ROWS, FaceBasis, FaceShape
from hellomeme.face.landmarks import MEDIAPIPE
from hellomeme.face.motion import FRAME, Motion
from hellomeme.face.rotation import from_angles
from hellomeme.inputs import Conditions
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.releases.load import face_basis as load_face_basis, find, load
from hellomeme.sampling.windows import WINDOW, sample_windows
from training import dataset, face_basis
from training.driving import COMMANDED, OTHER, OWN, DrivenFrames
from training.export import take_apart
from training.loop import Schedule, load_averaged, train, trained
from training.stages.adapters import PURE, network_inputs, with_frames_held_out
from training.stages.base import make_scheduler
from training.stages.coordinates import CHANNELS, encoded, head_places
from training.stages.motion_module import flicker
from training.stages.reader import NAMES, Reader
from training.stages.together import hand_over
from training.workshop import Workshop

CONFIG = {
    "seed": 0,
    "mixed_precision": "no",
    "data": {
        "identities": 4,
        "validation_identities": 2,
        "frames": 2,
        "size": 128,
        "cast": 2,
        "cast_frames": 2,
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
        "base_heads": [1, 2, 2, 2],
        "heads": 2,
        "control_width": 16,
        "motion_transformer_layers": [1, 1, 0, 0],
    },
    "decoder_drawings": 32,
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
    for name in ("autoencoder", "reader", "base", "adapters", "decoder", "motion"):
        stage = getattr(shop, f"{name}_stage")()
        if name == "autoencoder":
            stage.start()
        train(stage, QUICK, shop.folder / name)
    return shop


def test_frames_are_labelled_and_reproducible(shop):
    frames = shop.frames("train")
    assert len(frames) == 8 and frames.found.all() and frames.images.shape == (8, 128, 128, 3)
    everything = shop.train_frames
    assert len(everything) == 12 and everything.images.shape == (12, 0, 0, 3)
    assert [dataset.is_cast(int(seed)) for seed in everything.identity] == [False] * 8 + [True] * 4
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
        images = stage.frames.images
        error = stage.reconstructions(images).astype(float) - images
    assert (error**2).mean() < 0.5 * images.astype(float).var()


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
def test_one_step_from_pure_noise_is_what_the_sampler_makes(shop):
    """There the velocity is the clean latents' negative, whatever the noise."""
    clean, noise = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(make_scheduler().get_velocity(clean, noise, torch.tensor([PURE])), -clean)
    stage = load_averaged(shop.adapters_stage(), shop.folder / "adapters").eval()
    inputs = network_inputs(stage.driven, stage.latents, np.array([0]), np.array([[1]]))
    torch.manual_seed(0)
    drawn = stage.one_step(inputs)[:, :, 0]
    torch.manual_seed(0)
    noise = torch.randn_like(drawn)[:, :, None]
    scheduler = make_scheduler()
    scheduler.set_timesteps(1)
    assert scheduler.timesteps == PURE
    velocity = stage.predict(noise, PURE, *stage.conditioned(inputs))
    sampled = scheduler.step(velocity, PURE, noise).prev_sample
    torch.testing.assert_close(sampled[:, :, 0], drawn, rtol=1e-4, atol=1e-5)


def test_references_are_of_the_cast_as_often_as_asked(shop):
    stage, rng = shop.adapters_stage(), np.random.default_rng(0)
    references, targets = stage.choose(rng, 400)
    frames = stage.frames
    cast = [dataset.is_cast(int(seed)) for seed in frames.identity[references]]
    assert 0.4 < np.mean(cast) < 0.6 and targets.shape == (400, stage.targets)
    assert (frames.identity[targets] == frames.identity[references][:, None]).all()
    assert (targets != references[:, None]).all()
    stage.group_weights = stage._group_weights(cast_share=0.2)
    references, _ = stage.choose(rng, 400)
    assert 0.13 < np.mean([dataset.is_cast(int(seed)) for seed in frames.identity[references]]) < 0.27


def test_frames_of_the_cast_are_held_out_for_the_log(shop):
    few = shop.train_frames
    groups, held_out = with_frames_held_out(few)
    assert len(held_out) == 0 and sum(map(len, groups)) == len(few)
    some = np.repeat([0, 8, 10], 64)  # of the cast are 8 and 10
    shop = Workshop(shop.folder, CONFIG)
    base_latents = shop.base_stage().latents
    shop.train_frames, shop.train_latents = few.only(some), base_latents[torch.from_numpy(some)]
    stage = shop.adapters_stage()
    assert [len(group) for group in stage.groups] == [64, 60, 60]
    assert stage.held_out.tolist() == [[124, 125], [126, 127], [188, 189], [190, 191]]
    _, targets = stage.choose(np.random.default_rng(0), 200)
    assert not np.isin(targets, stage.held_out).any()


def test_the_log_tells_errors_of_frames_trained_on_from_others(shop, monkeypatch):
    stage, pairs = shop.adapters_stage(), np.array([[0, 1]])
    assert list(stage.errors(pairs)) == ["error", "error_trained"]
    stage.held_out = np.array([[8, 9]])
    monkeypatch.setattr(stage, "one_step", lambda batch, noise: torch.zeros_like(noise))
    errors, each = stage.errors(pairs), stage.latents.float().square().mean((1, 2, 3))
    assert list(errors) == ["error", "error_trained", "error_cast", "error_cast_trained"]
    assert errors["error"] == pytest.approx(stage.validation_latents[1].float().square().mean().item())
    assert errors["error_trained"] in [pytest.approx(error.item()) for error in each[:8]]
    assert errors["error_cast"] == pytest.approx(each[9].item())
    assert errors["error_cast_trained"] in [pytest.approx(error.item()) for error in each[8:]]


def test_twins_perform_the_same(shop):
    frames = shop.train_frames
    twins = frames.twins()
    assert [list(group) for group in twins] == [[2], [3], [0], [1], [6], [7], [4], [5], [10], [11], [8], [9]]
    for index, group in enumerate(twins):
        for twin in group:
            assert frames.identity[twin] != frames.identity[index]
            assert np.array_equal(frames.commanded[twin], frames.commanded[index])
            assert np.array_equal(frames.angles[twin], frames.angles[index])
    frames.found[2] = False
    assert len(frames.twins()[0]) == 0
    frames.found[2] = True


def test_conditions_take_the_shape_from_the_reference_and_the_motion_from_the_source(shop):
    frames, rng = shop.train_frames, np.random.default_rng(0)
    driven = DrivenFrames(frames, shop.basis, 32)
    targets = np.array([[1, 1, 1]])
    sources = np.array([[OWN, OTHER, COMMANDED]])
    motion = driven.motion(targets[0], sources[0], rng)
    assert np.array_equal(motion.blendshapes[0], frames.blendshapes[1])
    assert np.array_equal(motion.blendshapes[1], frames.blendshapes[3])  # the twin of frame 1
    assert np.array_equal(motion.blendshapes[2], frames.calibrated()[1])
    assert np.array_equal(motion.rotation, frames.rotation[[1, 3, 1]])
    assert np.array_equal(motion.origin, frames.origin[[1, 1, 1]])  # everybody stays in the target's place

    drawn = driven.conditions(np.array([0]), targets, sources, rng)
    assert drawn["poses"].shape == (1, 3, 3, 32, 32) and drawn["coefficients"].shape == (1, 3, 51)
    before = driven.landmarks.copy()
    driven.landmarks[1:] = 0  # of the target and its twin
    assert torch.equal(driven.conditions(np.array([0]), targets, sources, rng)["poses"], drawn["poses"])
    driven.landmarks[0] += 20
    assert not torch.equal(driven.conditions(np.array([0]), targets, sources, rng)["poses"], drawn["poses"])
    driven.landmarks = before


def test_conditions_are_those_of_inference(shop):
    """The picture that a `Reenactor` would show to the control nets, from the face as it was detected."""
    frames = shop.frames("train")
    face = SimpleNamespace(
        landmarks=frames.landmarks[0] * FRAME,
        blendshapes=frames.blendshapes[0],
        rotation=frames.rotation[0],
        origin=frames.origin[0],
        scale=frames.scale[0],
        landmark_set=MEDIAPIPE,
    )
    motion = DrivenFrames(frames, shop.basis, 32).motion(np.array([1]), np.array([OWN]))
    expected = condition_tensor(motion, 32, FaceShape.of(face, shop.basis))
    drawn = DrivenFrames(frames, shop.basis, 32).conditions(np.array([0]), np.array([[1]]))
    torch.testing.assert_close(drawn["poses"][0], expected)


def test_a_basis_is_fitted_to_the_landmarks_it_made(shop):
    """Of many persons whose shapes differ, each seen in many poses with random coefficients."""
    rng = np.random.default_rng(0)
    truth = FaceBasis(
        rng.normal(0, 1, (len(POINTS), 3)).astype("f4"), rng.normal(0, 0.3, (51, len(POINTS), 3)).astype("f4")
    )
    persons, each = 30, 20
    count = persons * each
    codes = (rng.random((count, 51)) * (rng.random((count, 51)) < 0.3)).astype("f4")
    angles = rng.uniform(-30, 30, (count, 3))
    motion = Motion(
        codes,
        np.stack([from_angles(*row) for row in angles]),
        np.full((count, 2), FRAME / 2),
        np.full(count, 60.0),
        np.ones(count, bool),
    )
    for points, free in face_basis.one_sided():  # a wink moves one eye, and no lids cross
        truth.displacements[np.ix_(~free, points)] = 0
    for eye in ("right eye", "left eye"):
        truth.mean[ROWS[eye][1:8], 1], truth.mean[ROWS[eye][9:], 1] = -9, 9
    landmarks = np.zeros((count, 478, 2), np.float32)
    for person in range(persons):
        shape = truth.mean + rng.normal(0, 0.1, truth.mean.shape)
        for i in range(person * each, (person + 1) * each):
            landmarks[i, POINTS] = truth.landmarks(shape, motion.at([i]))[0] / FRAME
    frames = dataset.Frames(
        images=np.zeros((count, 0, 0, 3), np.uint8),
        blendshapes=codes,
        commanded=codes,
        angles=angles,
        rotation=motion.rotation,
        origin=motion.origin,
        scale=motion.scale,
        landmarks=landmarks,
        identity=np.repeat(np.arange(persons), each),
        captions=np.full(count, ""),
        found=np.ones(count, bool),
    )
    fitted = face_basis.fit(frames)
    missed = np.abs(fitted.displacements - truth.displacements).mean()
    assert missed < 0.15 * np.abs(truth.displacements).mean()
    for points, free in face_basis.one_sided():
        assert not fitted.displacements[np.ix_(~free, points)].any()
    distances = face_basis.errors(fitted, frames, codes)
    assert distances.keys() == PARTS.keys() and max(distances.values()) < 6
    still = face_basis.errors(FaceBasis(fitted.mean, 0 * fitted.displacements), frames, codes)
    assert max(distances.values()) < 0.5 * min(still.values())


def test_the_basis_of_the_work_folder_is_fitted_once(shop):
    assert (shop.folder / "face_basis.safetensors").is_file()
    again = Workshop(shop.folder, CONFIG).basis
    assert np.array_equal(again.displacements, shop.basis.displacements)
    errors = face_basis.errors(shop.basis, shop.train_frames, shop.train_frames.blendshapes)
    assert max(errors.values()) < 30  # px of 512, from a dozen frames


def test_the_decoder_alone_is_trained_on_drawings(shop):
    stage = shop.decoder_stage()
    names = {".".join(name.split(".")[:2]) for name in trained(stage)}
    assert names == {"autoencoder.patch_decoder", "autoencoder.decoder", "discriminator.layers"}
    assert len(stage.latents) == len(stage.frames) >= CONFIG["decoder_drawings"]
    first, further = (
        {name.removeprefix("autoencoder."): tensor for name, tensor in tensors.items() if "discr" not in name}
        for tensors in (
            load_file(shop.folder / name / "averaged.safetensors") for name in ("autoencoder", "decoder")
        )
    )
    finished = shop.finished_autoencoder().state_dict()
    kept = {name for name in first if name.startswith(("encoder.", "patch_encoder."))}
    assert kept and kept == first.keys() - further.keys()
    assert all(torch.equal(finished[name], tensor) for name, tensor in (first | further).items())
    assert not torch.equal(first["patch_decoder.weight"], further["patch_decoder.weight"])


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
    truth = batch["latents"].transpose(1, 2).flatten(0, 1)
    reader = Reader(truth.shape[1], truth.shape[-1])
    assert reader(truth).shape == (len(truth), len(NAMES))
    assert (reader.difference(truth, truth) == 0).all() and (reader.difference(truth + 1, truth) > 0).all()
    batch["keep"][:] = False
    losses = []
    for stage.reader in (reader, None):
        torch.manual_seed(0)
        losses.append(stage(batch).item())
    assert losses[0] == pytest.approx(losses[1]), "what is drawn without conditions is not read"


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
    told, kept = (
        load_file(other.folder / name / "averaged.safetensors") for name in ("together", "adapters")
    )
    for helper in stage.helpers:
        assert any(name.startswith(helper) for name in told), helper
        assert not any(name.startswith(helper) for name in kept), "it served the training"
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


@pytest.mark.parametrize("muon", [False, True])
def test_a_stage_resumes_where_it_stopped(shop, monkeypatch, muon):
    """Interrupted and resumed is the same as never interrupted: weights, moments, average and draws."""
    monkeypatch.setattr("training.loop._validate", lambda *everything: None)
    straight, broken = shop.folder / f"straight_{muon}", shop.folder / f"broken_{muon}"
    constant = replace(QUICK, minutes=1e9, warmup=1, steps=10**6, learning_rate=1e-2, muon=muon)
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
    with pytest.raises(HelloMemeError, match="change that, or delete the file"):
        train(shop.base_stage(), replace(constant, muon=not muon, stop=5), broken)


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
    """The step of the stage is what the sampler makes of a window in one step, the same noise in every
    frame."""
    stage = load_averaged(shop.motion_stage(), shop.folder / "motion").eval()
    batch = stage.draw(np.random.default_rng(0), 1)
    adapters, noise = stage.adapters, torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    prepared, control = adapters.conditioned(batch)
    starts = ((None, noise[:, :, None]) for _ in range(WINDOW))
    windows = sample_windows(
        lambda frames: (
            lambda latents, timestep: stage.denoising_net(
                latents, timestep, adapters.empty_text, prepared, control
            )
        ),
        adapters.scheduler,
        starts,
        [range(WINDOW)],
        steps=1,
    )
    drawn = torch.cat(list(windows), 2)
    torch.testing.assert_close(drawn, stage._clean(stage.denoising_net, batch, noise), rtol=1e-3, atol=1e-4)
    assert flicker(drawn + 3, drawn) < 1e-9 < flicker(drawn[:, :, :1].expand_as(drawn), drawn)


def test_the_export_is_a_release(shop, tmp_path):
    shop.export(tmp_path / "model")
    motion = MotionAdapter.from_pretrained(tmp_path / "model" / "motion")
    assert motion.config.use_motion_mid_block is False
    layers = [len(block.motion_modules[0].transformer_blocks) for block in motion.down_blocks]
    assert layers == CONFIG["model"]["motion_transformer_layers"]
    weights = [load_file(path) for path in (tmp_path / "model").rglob("*.safetensors")]
    assert len(weights) == 8 and not any(
        x.dtype == torch.float32 for tensors in weights for x in tensors.values()
    )
    assert json.loads((tmp_path / "model" / "hm_reference" / "config.json").read_text())["version"] == "v1"
    pipeline, _, release = load(str(tmp_path / "model"), device="cpu")
    basis = load_face_basis(release)
    assert np.array_equal(basis.displacements, shop.basis.displacements)
    stage = load_averaged(shop.adapters_stage(), shop.folder / "adapters")
    for name, tensor in stage.adapter.state_dict().items():
        if name.startswith("reference_modules_down.3"):  # never used, so never trained and random each time
            continue
        assert torch.allclose(pipeline.hm_reference.state_dict()[name], tensor.half().float(), atol=1e-3), (
            name
        )
    assert release.reference_control, "the adapters are trained so"
    inputs = network_inputs(stage.driven, stage.latents, np.array([0]), np.array([[1]]))
    own = Conditions(inputs["reference_poses"], inputs["reference_coefficients"])
    reference = pipeline.prepare_reference(inputs["reference"], conditions=own)
    with torch.no_grad():
        trained_on = stage.half().float().eval().conditioned(inputs)[0]  # as it was saved
    for place, tensors in trained_on.items():
        for ours, theirs in zip(reference.prepared[place], tensors, strict=True):
            # What the pipeline's text encoder says of no words is rounded to half precision, too
            assert (ours[1:] - theirs).norm() < 5e-3 * theirs.norm(), place
    result = pipeline(
        reference, condition=inputs["poses"], drive_coeff=inputs["coefficients"], num_inference_steps=1
    )
    assert result.frames[0].size == (128, 128)


def test_an_older_export_sees_the_reference_without_its_face(shop, tmp_path):
    shop.export(tmp_path / "model")
    assert find(str(tmp_path / "model")).reference_control
    load(str(tmp_path / "model"), device="cpu")[0].save_pretrained(tmp_path / "saved")
    again = HelloMemePipeline.from_pretrained(tmp_path / "saved")
    assert again.config.reference_control and again.release.reference_control
    facts = json.loads((tmp_path / "saved" / "release.json").read_text())
    assert find(str(tmp_path / "saved")).reference_control and facts.pop("reference_control")
    (tmp_path / "saved" / "release.json").write_text(json.dumps(facts))  # as older files
    assert find(str(tmp_path / "saved")).reference_control, "as the pipeline's index says"

    index = tmp_path / "model" / "model_index.json"
    said = json.loads(index.read_text())
    del said["reference_control"]
    index.write_text(json.dumps(said))
    assert not find(str(tmp_path / "model")).reference_control
    other = Workshop(tmp_path / "work", CONFIG)
    (other.folder / "data").mkdir(parents=True)
    for path in (shop.folder / "data").iterdir():
        (other.folder / "data" / path.name).symlink_to(path)
    take_apart(tmp_path / "model", other.folder)
    with pytest.raises(HelloMemeError, match="train `together` or `adapters` first"):
        other.decoder_stage()
    other.export(tmp_path / "again")
    assert not find(str(tmp_path / "again")).reference_control
    train(other.adapters_stage(), QUICK, other.folder / "adapters")
    other.export(tmp_path / "again")
    assert find(str(tmp_path / "again")).reference_control


def test_the_place_on_the_head_is_known_at_every_position(shop):
    """One unit from the head's origin towards the left eye is u = 1, wherever the head is and however it
    leans."""
    frames, side = shop.train_frames, 64
    chosen = np.array([2, 5])
    places = head_places(frames, chosen)
    maps = encoded(places, side)
    assert maps.shape == (2, CHANNELS, side, side)
    for index, (u, v, *_, yaw, _, _) in zip(chosen, maps.unbind(0), strict=True):
        right = frames.landmarks[index, 263] - frames.landmarks[index, 33]
        right = right / np.linalg.norm(right) * frames.scale[index]
        for offset, expected in (((0, 0), (0, 0)), (right, (0.5, 0)), ((-right[1], right[0]), (0, 0.5))):
            x, y = ((frames.origin[index] + offset) * side / 512 - 0.5).round().astype(int)
            assert (u[y, x], v[y, x]) == pytest.approx(expected, abs=0.06)
        assert yaw.unique() * 20 == pytest.approx(frames.angles[index, 0], abs=1e-3)


def test_places_are_asked_of_features(shop):
    """At every place, and the loss reaches the UNet."""
    stage = shop.together_stage()
    batch = stage.draw(np.random.default_rng(0), 2)
    stage(batch)
    features = {place: x.detach() for place, x in stage.reference_features.items()}
    assert set(features) == set(stage.coordinates.heads), "every place is asked"
    lost = stage.coordinates(stage.reference_features, batch["reference_places"])
    assert lost.shape == (2,)
    lost.sum().backward()
    assert stage.denoising_net.unet.conv_in.weight.grad.abs().max() > 0


def test_an_exported_model_can_be_trained_further(shop, tmp_path):
    shop.export(tmp_path / "model")
    other = Workshop(tmp_path / "work", CONFIG)
    (other.folder / "data").mkdir(parents=True)
    for path in (shop.folder / "data").iterdir():
        (other.folder / "data" / path.name).symlink_to(path)
    take_apart(tmp_path / "model", other.folder)
    assert np.array_equal(other.basis.mean, shop.basis.mean), "the control nets know faces drawn by it"
    train(other.adapters_stage(), replace(QUICK, stop=0), other.folder / "adapters")
    begun = load_file(other.folder / "adapters" / "last.safetensors")
    exported = load_averaged(shop.adapters_stage(), shop.folder / "adapters").adapter.reference_modules_mid
    assert torch.allclose(
        begun["weights.adapter.reference_modules_mid.proj.weight"], exported.proj.weight, atol=1e-3
    )
