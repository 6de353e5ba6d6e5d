"""The measurements measure what they say: on arrays, on the renderer's own pictures, and whole runs on a tiny
model."""

import itertools
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hellomeme.control_maps import ControlMaps
from hellomeme.errors import HelloMemeError
from hellomeme.evaluation.baselines import warped
from hellomeme.face import detect as face_module
from hellomeme.face.arkit import INDEX
from hellomeme.face.conditions import condition_pictures
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.drawing import POINTS, FaceBasis, FaceShape
from hellomeme.face.rotation import to_angles
from hellomeme.releases.table import FACE_BASIS
from training import dataset, readings
from training.evaluation import (
    bench as bench_module,
    causal,
    cross,
    curves,
    evaluate,
    gallery,
    photographs,
    presets,
    results,
    steps,
    text_grid,
)
from training.toon import Pose, make_identity, random_stills, render
from training.toon.camera import rotation


@pytest.fixture(scope="module")
def bench(model_folder, tmp_path_factory):
    """A tiny random model on three identities, one step; pictures without a face are looked through once
    only."""
    torch.set_num_threads(1)
    everything = face_module.search_windows
    # Its condition pictures show the face
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("models") / "drawn")
    rng, points = np.random.default_rng(0), len(POINTS)
    FaceBasis(rng.normal(0, 1, (points, 3)), rng.normal(0, 0.2, (51, points, 3))).save(folder / FACE_BASIS)
    with pytest.MonkeyPatch.context() as patch, FaceAnalyzer() as analyzer:
        patch.setattr(face_module, "search_windows", lambda *size: itertools.islice(everything(*size), 1))
        yield bench_module.Bench.of(str(folder), analyzer, identities=3, steps=1, guidance=1.0)


# Measures on arrays


@pytest.mark.parametrize("pitch, yaw, roll", [(10, 0, 0), (0, 20, 0), (0, 0, -15), (8, -25, 12)])
def test_angles_are_those_of_the_renderer(pitch, yaw, roll):
    """Rz Ry Rx of the contract taken apart again."""
    x, y, z = np.radians([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    assert to_angles(rz @ ry @ rx) == pytest.approx([pitch, yaw, roll])
    single = [Pose(pitch=pitch), Pose(yaw=yaw), Pose(roll=roll)]
    for i, pose in enumerate(single):
        assert to_angles(rotation(pose))[i] == pytest.approx((pitch, yaw, roll)[i])


def face(yaw: float = 0.0, **coefficients: float) -> SimpleNamespace:
    blendshapes = np.zeros(51)
    for name, value in coefficients.items():
        blendshapes[INDEX[name]] = value
    return SimpleNamespace(blendshapes=blendshapes, rotation=rotation(Pose(yaw=yaw)))


def test_follow_sees_who_follows_and_who_does_not():
    drivers = [face(yaw, jawOpen=jaw) for jaw, yaw in ((0.0, -20), (0.5, 0), (1.0, 20), (0.2, 10))]
    same = readings.follow(drivers, drivers)
    assert same["aed"] == same["apd"] == 0 and same["jawOpen"] == pytest.approx(1) and same["faces"] == 1
    mirrored = readings.follow(
        [face(jawOpen=1 - driver.blendshapes[INDEX["jawOpen"]]) for driver in drivers], drivers
    )
    assert mirrored["jawOpen"] == pytest.approx(-1) and mirrored["yaw"] == 0 and mirrored["apd"] > 3
    assert readings.follow([None, None, None, drivers[0]], drivers) == {"faces": 0.25}


def test_left_and_right_are_told_apart():
    wink = face(eyeBlinkLeft=0.9, eyeLookOutLeft=0.6, eyeLookInRight=0.4)
    assert (readings.control(wink, "blink left"), readings.control(wink, "blink right")) == (0.9, 0)
    other = face(eyeLookInLeft=0.6, eyeLookOutRight=0.4)
    assert readings.control(wink, "gaze") == -readings.control(other, "gaze") == pytest.approx(0.5)
    assert readings.control(wink, "wink") == -readings.control(face(eyeBlinkRight=0.9), "wink") == 0.9
    assert readings.control(face(eyeBlinkLeft=0.9, eyeBlinkRight=0.9), "wink") == 0


def test_likeness():
    picture = np.random.default_rng(0).integers(0, 200, (1, 32, 32, 3), dtype=np.uint8)
    figures = evaluate.likeness(picture + np.uint8(10), picture)
    assert figures["psnr"] == pytest.approx(20 * np.log10(25.5))
    assert 0.9 < figures["ssim"] < 1


def test_warping_moves_landmarks_and_keeps_the_border():
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[28:33, 18:23] = 255  # a spot at (20, 30)
    frame[0], frame[-1] = 99, 99
    points = np.array([(20, 30), (16, 26), (24, 26), (16, 34), (24, 34)], float)
    assert np.array_equal(warped(frame, points, points), frame)
    moved = warped(frame, points, points + (15, 4))
    y, x = np.argwhere(moved[8:-8, :, 0] > 128).mean(0) + (8, 0)
    assert (x, y) == pytest.approx((35, 34), abs=0.5)
    assert (moved[0] == 99).all() and (moved[-1] == 99).all()
    # Landmarks beyond the frame are left out
    assert warped(frame, points, points + (60, 0)).shape == frame.shape


def test_drift_is_0_at_the_truth_and_1_at_the_driver():
    rng = np.random.default_rng(0)
    people = 10 * rng.random((5, 8))
    truth, drivers = people + 0.01, np.roll(people, 1, axis=0)
    faithful = cross.drift(people, truth, truth, drivers)
    assert faithful["drift"] == 0 and faithful["recognised"] == faithful["truth recognised"] == 1
    taken_over = cross.drift(people, drivers, truth, drivers)
    assert taken_over["drift"] == pytest.approx(1) and taken_over["recognised"] == 0


def test_colours_ignore_the_inner_face_and_where_things_are():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = (200, 30, 30)
    landmarks = np.zeros((478, 2))
    landmarks[list(cross.INNER_FACE)] = np.random.default_rng(0).uniform(110, 146, (len(cross.INNER_FACE), 2))
    toon = SimpleNamespace(landmarks=landmarks)
    plain = cross.colours(picture, toon)
    made_up = picture.copy()
    made_up[30:34, 30:34] = 255
    assert np.array_equal(cross.colours(made_up, toon), plain)
    assert np.array_equal(cross.colours(picture[::-1], toon), plain)
    assert np.abs(cross.colours(picture // 2, toon) - plain).mean() > 3


# Text


def test_colour_words_of_captions():
    caption = "a toon man with side-parted red hair, a beard, round glasses, dark background, pink shirt"
    assert text_grid.words(caption) == {"background": "dark", "shirt": "pink", "hair": "red"}
    bare = "a toon man with a bald head, red background, blue shirt"
    assert text_grid.words(bare) == {"background": "red", "shirt": "blue"}
    assert "hair" not in text_grid.words("a toon man with a pink buzz cut, grey background, red shirt")


def test_the_renderer_agrees_with_its_own_captions_and_not_with_others():
    people = [make_identity(seed) for seed in range(12)]
    pictures = np.stack([render(person, np.zeros(51), Pose(), 128, 1) for person in people])
    captions = [person.caption for person in people]
    assert text_grid.agreement(pictures, captions)["all words"] > 0.95
    assert text_grid.shuffled(pictures, captions)["all words"] < 0.3


def test_adapters_told_nothing_still_take_part(bench):
    """Otherwise the comparison with the base would compare the base with itself."""
    captions = ["a toon man with red hair"]
    base, adapted = text_grid.by_base(bench, captions, 1), text_grid.by_adapted(bench, captions, 1)
    assert base.shape == adapted.shape == (1, 128, 128, 3)
    assert not np.array_equal(base, adapted)


def test_without_adapters_the_two_ways_to_draw_a_caption_are_one(bench, monkeypatch):
    captions = ["a toon man with red hair"]
    monkeypatch.setattr(bench.pipeline.hm_reference, "prepare", lambda features: {})
    monkeypatch.setattr(bench.pipeline, "control_maps", lambda *args, **more: ControlMaps({}, {}))
    base, adapted = text_grid.by_base(bench, captions, 2), text_grid.by_adapted(bench, captions, 2)
    assert np.abs(base.astype(int) - adapted).max() <= 1


# Photographs


def test_edits_of_a_photograph_are_what_is_asked_of_the_output(bench):
    motions = photographs.commands(bench.pairs[0].driver.motion, 4, np.random.default_rng(0))
    asked = np.stack([photographs.wanted(motion) for motion in motions])
    assert np.ptp(asked, axis=0).min() > 0.1
    obedient = [SimpleNamespace(blendshapes=m.blendshapes[0], rotation=m.rotation[0]) for m in motions]
    figures = photographs.followed(motions, [*obedient[:3], None])
    assert figures["pictures"] == 4 and figures["faces"] == 0.75
    assert [figures[name] for name in photographs.READINGS] == pytest.approx([1, 1, 1])


def test_thumbnails_are_enlarged():
    frame = photographs.enlarged(np.eye(25))
    assert frame.shape == (320, 320, 3) and frame.dtype == np.uint8 and frame.max() > 200


# Training curves


def test_curves_are_drawn_from_logs_in_parts(tmp_path):
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "log_1.csv").write_text("step,seconds,loss\n1,30,0.9\n20,60,0.8\n")
    (tmp_path / "adapters" / "log.csv").write_text("step,seconds,loss,faces\n30,90,0.7,0.5\n40,120,,0.6\n")
    rows = curves.read_logs(tmp_path)["adapters"]
    assert (
        [row["step"] for row in rows] == [1, 20, 30, 40]
        and "loss" not in rows[-1]
        and rows[-1]["faces"] == 0.6
    )
    curves.curves(tmp_path, tmp_path / "curves.jpg")
    assert Image.open(tmp_path / "curves.jpg").format == "JPEG"
    with pytest.raises(HelloMemeError, match="no logs"):
        curves.read_logs(tmp_path / "elsewhere")


# Whole runs on the tiny model


def test_pairs_of_the_cast_are_frames_that_no_training_has_seen(bench):
    pairs = bench_module.cast_pairs(2, bench.analyzer)
    seeds = [dataset.FIRST_IDENTITY["cast"] + number for number in dataset.CAST[:2]]
    for pair, seed in zip(pairs, seeds, strict=True):
        shot = pair.reference
        again = render(make_identity(seed), shot.expression, shot.pose, dataset.RENDER_SIZE)
        assert np.array_equal(shot.frame, again)
    trained = random_stills(np.random.default_rng([dataset.performance_of(seeds[0]), 1]), 3200)
    for expression in (pairs[0].reference.expression, pairs[0].driver.expression):
        assert not any(np.array_equal(expression, other) for other, _ in trained)


def test_reenactment_of_ones_own_frames(bench):
    figures, pictures = evaluate.reenactment(bench, bench.pairs)
    assert all(images.shape == (3, 128, 128, 3) for images in pictures.values())
    assert figures["copied reference"]["faces"] == 1
    assert figures["warped reference"]["psnr"] > figures["copied reference"]["psnr"]
    assert figures["warped reference"]["apd"] < figures["copied reference"]["apd"]
    assert "| psnr |" in evaluate.as_table(figures)


def test_a_crossed_pair_is_the_reference_doing_what_the_driver_does(bench):
    pairs = cross.crossed(bench.pairs)
    assert [pair.driver for pair in pairs] == [bench.pairs[i].driver for i in (1, 2, 0)]
    own = readings.read_back([pair.truth for pair in pairs], bench.analyzer)
    for found, pair in zip(own, pairs, strict=True):
        assert readings.control(found, "yaw") == pytest.approx(
            readings.control(pair.driver.face, "yaw"), abs=8
        )
    truth = bench.small(pair.truth for pair in pairs)
    for figures in cross.identity_drift(bench, pairs, truth, truth).values():
        assert figures["drift"] == 0 and figures["recognised"] == figures["truth recognised"] == 1


def test_a_model_that_draws_the_truth_passes_the_causal_test(bench, monkeypatch):
    """The renderer in the model's place: what is drawn is the driver's own frame."""
    by_motion = {}

    def remembering(*args):
        shot = bench_module.shoot(*args)
        by_motion[shot.face.blendshapes.tobytes()] = shot.frame
        return shot

    monkeypatch.setattr(causal, "shoot", remembering)
    drawn = lambda reference, motion: bench.small([by_motion[motion.blendshapes[0].tobytes()]])[0]  # noqa: E731
    monkeypatch.setattr(bench, "draw", drawn)
    figures, strips = causal.causal(bench)
    assert set(figures) == set(causal.CHANGES) and len(strips) == 3
    for row in figures.values():
        assert row["picture"] == pytest.approx(1) and row["gain"] == pytest.approx(1)
        assert row["read of output"] == pytest.approx(row["read of render"], rel=0.4)
    assert figures["yaw"]["read of render"] == pytest.approx(25, abs=5)


def test_the_same_noise_for_every_picture(bench):
    pair = bench.pairs[0]
    reference = bench.prepare(pair.reference)
    first, second = (bench.draw(reference, pair.driver.motion) for _ in range(2))
    assert np.array_equal(first, second)


def test_the_condition_shows_the_reference_and_its_expression(bench, monkeypatch):
    """Of the face in the reference alone, in the driver's pose; and as `Reenactor` shows it."""
    seen, draw = [], type(bench.pipeline).__call__

    def listen(self, reference, condition, **arguments):
        seen.append(condition)
        return draw(self, reference, condition, **arguments)

    monkeypatch.setattr(type(bench.pipeline), "__call__", listen)
    pair, other = bench.pairs[:2]
    bench.reenact([pair])
    bench.draw(bench.prepare(other.reference), pair.driver.motion)
    bench.through_the_page([pair])
    own, others, page = (condition[0, :, 0].permute(1, 2, 0).numpy() for condition in seen)
    size, motion = bench.release.condition_size, pair.driver.motion
    shape = FaceShape.of(pair.reference.face, bench.basis)
    np.testing.assert_allclose(own, condition_pictures(motion, size, shape)[0] / 127.5 - 1, atol=1e-6)
    assert not np.array_equal(own, others)
    assert page.shape == own.shape and bench.reenactor.basis is bench.basis


def test_models_without_a_basis_are_shown_the_square(model_folder, bench, monkeypatch):
    plain = bench_module.Bench.of(str(model_folder), bench.analyzer, 3)
    assert plain.basis is None and plain.reenactor.basis is None
    assert plain.prepare(bench.pairs[0].reference).shape is None


@pytest.fixture
def small_gallery(monkeypatch):
    """Two expressions and two references of a kind, at half the size."""
    expressions = {name: gallery.EXPRESSIONS[name] for name in ("laugh", "wink")}
    monkeypatch.setattr(gallery, "EXPRESSIONS", expressions)
    monkeypatch.setattr(gallery, "PEOPLE", 2)
    monkeypatch.setattr(gallery, "SIZE", 256)


def test_the_gallery_is_drawn_and_read(bench, small_gallery, monkeypatch):
    drawn, drawings = gallery.drawn, []
    monkeypatch.setattr(gallery, "drawn", lambda *args: drawings.append(drawn(*args)) or drawings[-1])
    figures, picture = gallery.gallery(bench)
    assert picture.shape == ((1 + 2 + 2) * 128, (1 + 2) * 128, 3)
    for group in ("the cast", "never trained on"):
        renderer = figures[f"{group}: renderer"]
        assert renderer["faces"] == 1 and renderer["yaw"] > 0.9 and renderer["wink"] > 0.8
        assert 0.8 < renderer["edges"] < 1.3 and figures[group]["edges"] > 0
        assert "wink" not in figures[group] or abs(figures[group]["wink"]) <= 1
    assert all(x.shape == (8, 128, 128, 3) for images in drawings for x in images.values())
    assert len(np.unique(drawings[0]["reference"], axis=0)) == 2


def test_drivers_of_the_gallery_are_in_no_split(bench, small_gallery):
    shots = gallery.drivers(bench.analyzer)
    yaws = [abs(shot.pose.yaw) for shot in shots]
    assert len(shots) == 4 and max(yaws[::2]) <= 8 < min(yaws[1::2]) <= max(yaws) <= 22
    assert np.array_equal(shots[0].expression, shots[1].expression)
    assert np.abs(shots[0].frame.astype(int) - shots[1].frame).mean() > 5  # somebody else
    last = max(dataset.FIRST_IDENTITY[name] for name in dataset.FIRST_IDENTITY if name != "gallery")
    assert min(gallery.FIRST.values()) > last + 10_000


def test_presets_that_come_over_are_told_by_their_marks(monkeypatch):
    """Of two portraits, in pictures whose brightness stands for how far a preset has come."""
    names = list(presets.PRESETS)

    def read(pictures, analyzer):
        faces = []
        for i, picture in enumerate(pictures):
            coming = picture.mean() / 100
            marks = presets.MARKS[names[i % 7 - 1]] if i % 7 else ()
            values = np.full(51, 0.1)
            for mark in marks:
                for name, weight in mark.items():
                    values[INDEX[name]] += coming * np.sign(weight)
            faces.append(SimpleNamespace(blendshapes=values) if coming else None)
        return faces

    monkeypatch.setattr(presets, "read_back", read)
    truth, model = np.full((2, 7, 4, 4, 3), 100), np.full((2, 7, 4, 4, 3), 100)
    model[:, 1 + names.index("kiss")] = 30
    model[:, 1 + names.index("sad")] = 0  # without a face
    figures = presets.shares({"model": model, "renderer": truth}, None)
    assert {name: share["model"] for name, share in figures.items()} == {
        name: {"kiss": 0.3, "sad": 0.0}.get(name, 1.0) for name in names
    }
    assert all(share["renderer"] == 1 for share in figures.values())


def test_presets_are_drawn_and_measured(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(presets, "CAST", presets.CAST[:1])
    monkeypatch.setattr(gallery, "PEOPLE", 1)
    monkeypatch.setattr(presets, "SIZE", 256)
    monkeypatch.setattr(gallery, "SIZE", 256)
    figures, people, pictures = presets.measured(bench.reenactor)
    assert people == 2 and list(figures) == list(presets.PRESETS)
    assert all(frames.shape == (2, 7, 128, 128, 3) for frames in pictures.values())
    assert figures["laugh"]["renderer"] > 0.8 > figures["laugh"]["model"]


def test_photographs_drive(bench, monkeypatch):
    monkeypatch.setattr(photographs, "THUMBNAILS", 1)
    figures, shown = photographs.driven(bench, edits=2)
    large = figures["edited"]["photographs"]  # not the profile, which a single look does not find
    assert large >= 2 and figures["own motion"]["photographs"] == large + 1
    assert figures["own motion"]["of them 25 px"] == 1 and figures["edited"]["pictures"] == 2 * large
    assert shown.shape == (large * 128, len(photographs.SHOWN) * 128, 3)
    obeyed = figures["edited: renderer"]
    assert obeyed["faces"] == 1 and obeyed["yaw"] > 0.9
    assert figures["edited: the cast"]["pictures"] == 2 * large


def test_captions_are_drawn_and_read(bench):
    figures, picture = text_grid.text(bench, count=5, steps=1)
    assert figures["renderer (ceiling)"]["all words"] > 0.7 > figures["chance"]["all words"]
    assert picture.width == 4 * (2 * 128 + 8)


def test_steps(bench):
    figures = steps.by_steps(bench, (2,))
    assert set(figures) == {"1", "2"}  # the default is always among them
    assert figures["1"]["psnr"] != figures["2"]["psnr"] and figures["1"]["seconds"] > 0


def section(figures):
    return lambda bench, folder: (f"## A section\n\n{evaluate.as_table({'a': {'b': 1}})}\n", figures)


FIGURES = {
    "gallery": {
        "the cast": {"jawOpen": 0.9, "wink": 0.5},
        "never trained on": {"jawOpen": 0.7, "wink": 0.66},
    },
    "self": {
        "the cast": {
            "model": {"psnr": 24.0, "ssim": 0.8, "aed": 0.06},
            "copied reference": {"psnr": 15.0, "ssim": 0.5, "aed": 0.12},
        },
        "never trained on": {
            "model": {"psnr": 20.0, "ssim": 0.8, "aed": 0.03},
            "copied reference": {"psnr": 14.0, "ssim": 0.5, "aed": 0.12},
        },
    },
    "cross": {},
    "causal": {"jaw": {"picture": 0.9}, "smile": {"picture": 0.4}},
    "photographs": {
        "own motion": {"jawOpen": 0.6, "smile": 0.75, "yaw": 0.9},
        "own motion: the cast": {"jawOpen": 0.9, "smile": 0.7, "yaw": 0.9},
        "own motion: renderer": {"jawOpen": 0.1, "smile": 0.1, "yaw": 0.1},
        "edited": {"jawOpen": 0.8, "smile": 0.65},  # too few faces leave a figure out
        "edited: the cast": {"jawOpen": 0.8, "smile": 0.9, "yaw": 0.9},
    },
    "steps": {"1": {"seconds": 0.5}},
    "text": {},
}


def test_aims_say_what_was_reached(bench):
    rows = [line.strip("| ").split(" | ") for line in results.aims(bench, FIGURES).splitlines()]
    reached = {name: cells for name, *cells in rows}
    assert reached["jawOpen"] == ["≥ 0.82", "0.900 ✓", "≥ 0.8", "0.700"]
    assert reached["wink"] == ["≥ 0.8", "0.500", "≥ 0.65", "0.660 ✓"]
    assert reached["PSNR above the copied reference's, dB"] == ["≥ 9", "9.000 ✓", "≥ 6.5", "6.000"]
    assert reached["SSIM"] == ["≥ 0.82", "0.800", "≥ 0.72", "0.800 ✓"]
    share = "AED, as a share of the copied reference's"
    assert reached[share] == ["≤ 0.45", "0.500", "≤ 0.55", "0.250 ✓"]
    assert reached["correlation of jawOpen, driven by photographs"] == [
        "≥ 0.75",
        "0.800 ✓",
        "≥ 0.65",
        "0.600",
    ]
    assert reached["correlation of smile, driven by photographs"] == ["≥ 0.75", "0.700", "≥ 0.65", "0.650 ✓"]
    assert reached["correlation of yaw, driven by photographs"] == ["≥ 0.75", "0.900 ✓", "≥ 0.65", "0.000"]
    assert reached["seconds"] == ["≤ 0.2", "0.500"]


def test_the_page_takes_over_the_ablation_and_is_written_whole(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "SECTIONS", {name: section(figures) for name, figures in FIGURES.items()})
    out = tmp_path / "RESULTS.md"
    results.write(bench, out)
    assert "Not measured yet." in out.read_text()
    (tmp_path / "results" / "ablation").mkdir()
    (tmp_path / "results" / "ablation" / "table.md").write_text("| knitted | 0.5 |\n")
    plan = {"steps": 123, "batch": 2, "seeds": [0, 1, 2], "validation_identities": 32}
    (tmp_path / "results" / "ablation" / "plan.json").write_text(json.dumps(plan))
    before = out.read_text()
    monkeypatch.setattr("sys.argv", ["results", "--ablation", "--out", str(out)])
    results.main()  # without measuring anything again
    written = out.read_text()
    assert (
        "| knitted | 0.5 |" in written and "123 steps of 2 references" in written and "curves.png" in written
    )
    assert (
        written.partition(results.BEGIN)[0] == before.partition(results.BEGIN)[0] and results.END in written
    )
    results.write(bench, out)
    assert out.read_text() == written
    monkeypatch.setitem(results.SECTIONS, "text", lambda bench, folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        results.write(bench, out)
    assert out.read_text() == written and list(tmp_path.glob("*.part")) == []


def test_pictures_stay_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (500, 900, 3), dtype=np.uint8)
    results.save(noise, tmp_path / "noise.jpg")
    assert (tmp_path / "noise.jpg").stat().st_size < results.LARGEST


def test_bad_arguments_are_refused_before_the_work(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "page", lambda *args: pytest.fail("began to work"))
    for arguments, sentence in (
        (["--out", str(tmp_path / "nowhere" / "RESULTS.md")], "There is no folder"),
        (["--folder", str(tmp_path)], "There are no logs of training"),
        (["--identities", "2"], "2 identities are too few"),
        (["--steps", "0"], "Steps must be"),
        (["--release", "nothing"], "There is no release or folder"),
    ):
        monkeypatch.setattr("sys.argv", ["results", "--release", str(model_folder), *arguments])
        with pytest.raises(SystemExit):
            results.main()
        assert sentence in capsys.readouterr().err
