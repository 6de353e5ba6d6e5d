"""Clips from a driver's motion to the written file, on a tiny random model with a stand-in for MediaPipe."""

import dataclasses
import shutil
import threading
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch
from clips import H264, KINDS, NTSC, clip as recorded, ffmpeg, has_sound, stamps, turned, variable
from conftest import WIDTHS
from diffusers import MotionAdapter

from hellomeme.errors import HelloMemeError, NoFaceError
from hellomeme.face.detect import Face
from hellomeme.face.motion import Motion
from hellomeme.face.track import analyse
from hellomeme.io.ffmpeg import read_frames
from hellomeme.reenactor import Reenactor, Stopped
from hellomeme.releases.load import load
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.plan import ClipPlan
from hellomeme.settings import ClipSettings, Settings
from hellomeme.video import Selection, read_motion

QUICK = Settings(steps=1, guidance=1)


def face_at(centre, half, red, green):
    cos, sin = np.cos(green), np.sin(green)
    angles = np.linspace(0, 2 * np.pi, 478)
    landmarks = centre + half * np.stack([np.cos(angles), np.sin(angles)], 1)
    rotation = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    box = np.array([*(centre - half), *(centre + half)])
    return Face(
        landmarks.astype(np.float32),
        np.full(51, red, np.float32),
        rotation,
        np.asarray(centre),
        half / 1.5,
        box,
    )


class ColourAnalyzer:
    """A face in the middle of any picture that is not dark: red opens everything, green turns the head."""

    def faces(self, frame, thorough=False):
        red, green, _ = frame.reshape(-1, 3).mean(0) / 255
        height, width = frame.shape[:2]
        centre = np.array([width, height]) / 2
        return [] if red < 0.15 else [face_at(centre, 0.15 * min(width, height), red, green)]

    def near(self, frame, face):
        """Nothing: each frame is looked at as a whole."""

    def face(self, frame, name="driver", index=None):
        return self.faces(frame)[0]


class Everywhere(ColourAnalyzer):
    """A face in the middle of every picture; keeps the sizes of the pictures."""

    def __init__(self):
        self.sizes = set()

    def faces(self, frame, thorough=False):
        self.sizes.add(frame.shape[:2])
        return [face_at(np.array(frame.shape[1::-1]) / 2, 0.15 * min(frame.shape[:2]), 0.5, 0.2)]


class Several(ColourAnalyzer):
    """Each frame is a number: which list of faces it shows."""

    def __init__(self, *faces):
        self.shown = faces

    def faces(self, frame, thorough=False):
        return self.shown[frame[0, 0, 0]]


def frames(*numbers):
    return (np.full((200, 300, 3), number, np.uint8) for number in numbers)


def still(count, rate=Fraction(25)):
    """A motion of so many frames in which nothing moves."""
    return Motion(
        np.zeros((count, 51), np.float32),
        np.tile(np.eye(3), (count, 1, 1)),
        np.full((count, 2), 256.0),
        np.full(count, 50.0),
        np.ones(count, bool),
        rate=rate,
    )


@pytest.fixture(scope="module")
def moving_folder(model_folder, tmp_path_factory):
    """The tiny model with a motion module of random numbers."""
    folder = shutil.copytree(model_folder, tmp_path_factory.mktemp("models") / "moving")
    torch.manual_seed(1)
    adapter = MotionAdapter(
        block_out_channels=WIDTHS,
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    )
    for parameter in adapter.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)
    adapter.save_pretrained(folder / "motion")
    return folder


def ready(folder):
    pipeline, encoders, release = load(str(folder), device="cpu")
    reenactor = Reenactor(pipeline, release, encoders, ColourAnalyzer())
    reenactor.set_reference(np.full((160, 160, 3), (100, 60, 120), np.uint8))
    return reenactor


@pytest.fixture(scope="module")
def plain(model_folder):
    return ready(model_folder)


@pytest.fixture(scope="module")
def moving(moving_folder):
    return ready(moving_folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """One second at 29.97 with longer sound; red rises, and two frames in the middle are black."""
    path = tmp_path_factory.mktemp("clips") / "driver.mp4"
    colour = "geq=r='if(between(N,14,15),0,80+4*N)':g='if(between(N,14,15),0,60)':b=60"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        f"nullsrc=size=96x96:rate=30000/1001:duration=1,format=gbrp,{colour}",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=2",
        *H264,
        path,
    )
    return path


@pytest.fixture(scope="module")
def ten_minutes(tmp_path_factory):
    """At 5 frames a second; red rises all the while, and the head turns."""
    path = tmp_path_factory.mktemp("clips") / "long.mp4"
    source = "nullsrc=size=2x2:rate=5:duration=600,format=gbrp,geq=r='60+N/16':g='40+N/30':b=60,scale=96:96"
    ffmpeg("-f", "lavfi", "-i", source, "-f", "lavfi", "-i", "sine=duration=600", *H264, path)
    return path


def pictures(path, rate=NTSC):
    return np.stack(list(read_frames(path, rate)))


def test_a_clip_keeps_rate_length_and_sound(plain, driver, tmp_path):
    received = []
    report = plain.video(driver, tmp_path / "out.mp4", QUICK, progress=lambda *step: received.append(step))
    assert (report.frames, report.without_face, report.rate) == (30, 2, NTSC)
    assert stamps(report.path)[0] == [k / NTSC for k in range(30)]
    ends = (
        times[-1] + lengths[-1] for times, lengths in (stamps(report.path, "v"), stamps(report.path, "a"))
    )
    assert abs(next(ends) - next(ends)) < 1 / NTSC
    assert pictures(report.path).shape == (30, 128, 128, 3)
    assert [step for step in received if step[0] == "analysing"] == [
        ("analysing", k, 30) for k in range(1, 31)
    ]
    drawing = [step[1:] for step in received if step[0] == "drawing"]
    assert drawing[-1] == (30, 30) and drawing == sorted(drawing) and len(drawing) >= 3
    assert report.settings.steps == 1 and report.seconds > 0


def test_frames_are_decoded_beside_the_drawing(plain, monkeypatch):
    settings = QUICK.resolved(plain.release)

    def drawn(cores, progress=lambda *_: None):
        monkeypatch.setattr("hellomeme.drawing.usable_cores", lambda: cores)
        return np.stack(list(plain.frames(plain.reference, still(30), settings, ClipSettings(), progress)))

    def stop(phase, done, total):
        if done > 20:
            raise Stopped

    beside = drawn(64)
    np.testing.assert_array_equal(beside, drawn(1))
    assert beside.shape == (30, 128, 128, 3)
    with pytest.raises(Stopped):
        drawn(64, stop)
    assert not any(thread.name.startswith("hellomeme-beside") for thread in threading.enumerate())


@pytest.mark.parametrize("kind", [*KINDS, "variable", "turned by 90", "turned by 180", "turned by 270"])
def test_every_kind_of_clip_drives(plain, tmp_path, monkeypatch, kind):
    seen = Everywhere()
    monkeypatch.setattr(plain, "analyzer", seen)
    if kind in KINDS:
        name, options, _, size, there = KINDS[kind]
        path = recorded(tmp_path / name, **options)
    elif kind == "variable":
        path, size, there = variable(tmp_path / "a.mp4"), (64, 96), 24
    else:
        angle = int(kind.split()[-1])
        path, size, there = turned(tmp_path / "a.mp4", angle), (64, 96) if angle == 180 else (96, 64), 25
    report = plain.video(path, tmp_path / "out.mp4", QUICK, ClipSettings(frames=2))
    assert report.path.is_file() and (report.frames, report.without_face) == (min(2, there), 0)
    assert pictures(report.path, report.rate).shape == (min(2, there), 128, 128, 3)
    assert seen.sizes == {size}


def test_frames_are_spread_over_ten_minutes(plain, ten_minutes, tmp_path):
    chosen = ClipSettings(frames=6, rate="12")
    motion, _, selection = read_motion(ten_minutes, QUICK, chosen, plain.analyzer, plain.release.crop_scale)
    assert (selection.count, selection.driver_rate, selection.output_rate) == (6, Fraction(1, 100), 12)
    red = 255 * motion.blendshapes[:, 0]
    # The middles of six equal parts
    np.testing.assert_allclose(red, 60 + np.arange(250, 3000, 500) / 16, atol=4)
    report = plain.video(ten_minutes, tmp_path / "out.mp4", QUICK, chosen)
    assert (report.frames, report.without_face, report.rate) == (6, 0, 12)
    assert not has_sound(report.path)  # it plays faster than life


def test_ten_minutes_are_analysed_without_keeping_a_picture(plain, ten_minutes):
    """3000 frames as pictures would be 83 MB; their numbers are 2.5 kB each, and as many again while they are
    put together."""
    tracemalloc.start()
    try:
        motion, _ = analyse(
            read_frames(ten_minutes, Fraction(5)), Fraction(5), plain.analyzer, plain.release.crop_scale
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(motion) == 3000 and motion.valid.all()
    assert peak < 20e6


def test_a_motion_file_drives_like_the_clip_itself(plain, driver, tmp_path):
    first = plain.video(driver, tmp_path / "a.mp4", QUICK)
    motion, _ = analyse(read_frames(driver, NTSC), NTSC, plain.analyzer, plain.release.crop_scale)
    motion.save(tmp_path / "motion.npz")
    again = plain.video(tmp_path / "motion.npz", tmp_path / "b.mp4", QUICK)
    assert (again.frames, again.without_face, again.rate) == (30, 2, NTSC)
    assert has_sound(first.path) and not has_sound(again.path)
    np.testing.assert_array_equal(pictures(first.path), pictures(again.path))


def test_the_motion_module_counts_and_the_settings_reach_the_plan(moving, driver, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr(
        "hellomeme.drawing.draw_clip", lambda *a, **more: plans.append(a[3]) or draw_clip(*a, **more)
    )

    def made(name, **chosen):
        chosen = ClipSettings(frames=5, start=0, **chosen)
        return pictures(moving.video(driver, tmp_path / f"{name}.mp4", QUICK, chosen).path)

    first = made("a")
    np.testing.assert_array_equal(first, made("again"))
    assert (made("b", motion=False, overlap=6, fast=True) != first).any()
    plan = ClipPlan(5, 1, 1.0, together=True, first_pass=False)
    assert plans == [plan, plan, dataclasses.replace(plan, together=False, overlap=6, fast=True)]


def test_the_strip_shows_driver_pose_and_result(plain, driver, tmp_path):
    chosen = {"frames": 3, "start": 0.2}
    strip, alone = (
        pictures(
            plain.video(
                driver, tmp_path / f"{beside}.mp4", QUICK, ClipSettings(side_by_side=beside, **chosen)
            ).path
        )
        for beside in (True, False)
    )
    assert strip.shape == (3, 128, 384, 3)
    assert abs(strip[:, :, 256:].astype(float) - alone).mean() < 6
    red = strip[:, :, :128, 0].mean((1, 2))
    assert red[0] < red[1] < red[2] and strip[:, :, 128:256].max() > 150


def test_a_stop_ends_within_a_step_and_leaves_no_file(plain, driver, tmp_path):
    calls = []

    def stop(phase, done, total):
        calls.append(phase)
        if calls.count("drawing") == 3:
            raise Stopped

    with pytest.raises(Stopped):
        plain.video(driver, tmp_path / "out.mp4", QUICK, progress=stop)
    assert calls.count("drawing") == 3 and not list(tmp_path.iterdir())


def test_outputs_and_starts_that_cannot_be(plain, driver, tmp_path):
    copy = shutil.copy(driver, tmp_path / "driver.mp4")
    for output, why in (
        (tmp_path / "a.avi", "must end in .mp4"),
        (tmp_path / "no" / "a.mp4", "does not exist"),
        (copy, "is one of the input files"),
    ):
        with pytest.raises(HelloMemeError, match=why):
            plain.video(copy, output, QUICK)
    with pytest.raises(
        HelloMemeError, match=r"The start of 7 s is beyond the end of the driver, which lasts 1.00 s"
    ):
        plain.video(driver, tmp_path / "a.mp4", QUICK, ClipSettings(start=7))
    with pytest.raises(HelloMemeError, match="Neutral frame 30 was asked for, but the clip has 30 frames"):
        plain.video(driver, tmp_path / "a.mp4", QUICK, ClipSettings(relative=True, neutral=30))
    assert len(list(tmp_path.iterdir())) == 1


def test_selection():
    def chosen(**clip):
        selection = Selection.of(Fraction(10), NTSC, ClipSettings(**clip))
        rates = selection.driver_rate, selection.output_rate
        return selection.start, selection.count, *rates, selection.real_time

    assert chosen() == (0, 300, NTSC, NTSC, True)
    assert chosen(rate="12") == (0, 120, 12, 12, True)
    assert chosen(start=4, rate="24") == (4, 144, 24, 24, True)
    assert chosen(start=4, frames=10) == (4, 10, NTSC, NTSC, True)
    assert chosen(frames=50) == (0, 50, 5, 5, True)  # evenly over the clip, in its own time
    assert chosen(frames=50, rate="25") == (0, 50, 5, 25, False)
    assert chosen(frames=1000) == (0, 300, NTSC, NTSC, True)  # there are no more
    assert chosen(end=1) == (0, 30, NTSC, NTSC, True)
    assert chosen(start=9.5, end=99) == (Fraction(19, 2), 15, NTSC, NTSC, True)
    assert chosen(start=2, end=4, rate="12") == (2, 24, 12, 12, True)
    assert chosen(end=5, frames=10) == (0, 10, 2, 2, True)
    for clip in ({"end": 0}, {"start": 4, "end": 3}):
        with pytest.raises(HelloMemeError, match="choose a later end, or an earlier start"):
            chosen(**clip)


def test_no_driver_can_ask_for_more_frames_than_can_be_kept(plain):
    slow = still(4, rate=Fraction(1, 86_400))
    assert len(read_motion(slow, QUICK, ClipSettings(), plain.analyzer, 2.0)[0]) == 4
    assert len(read_motion(slow, QUICK, ClipSettings(frames=3, rate="30"), plain.analyzer, 2.0)[0]) == 3
    with pytest.raises(HelloMemeError) as caught:
        read_motion(slow, QUICK, ClipSettings(rate="30"), plain.analyzer, 2.0)
    assert str(caught.value) == (
        "The driver would give 10368000 frames, and 250000 is the most: choose how many to make, or "
        "a lower rate."
    )


def test_frames_of_a_motion_file_that_all_show_no_face(plain):
    motion = dataclasses.replace(still(4), valid=np.array([False, True, True, True]))
    assert len(read_motion(motion, QUICK, ClipSettings(frames=2), plain.analyzer, 2.0)[0]) == 2
    with pytest.raises(NoFaceError, match="No face in any of the frames chosen from the motion file"):
        read_motion(motion, QUICK, ClipSettings(frames=1), plain.analyzer, 2.0)


def test_the_face_of_the_beginning_is_followed():
    left, right = face_at(np.array([80.0, 100]), 30, 0.2, 0), face_at(np.array([220.0, 100]), 40, 0.8, 0)
    moved = face_at(np.array([95.0, 100]), 30, 0.3, 0)
    shown = Several([right, left], [right, moved], [right])
    largest, _ = analyse(frames(0, 1, 2, 1), Fraction(25), shown, 2.0)
    np.testing.assert_allclose(largest.blendshapes[:, 0], [0.8] * 4)
    second, _ = analyse(frames(0, 1, 2, 1), Fraction(25), shown, 2.0, index=1)
    np.testing.assert_allclose(second.blendshapes[:, 0], [0.2, 0.3, 0.3, 0.3])
    assert second.valid.tolist() == [True, True, False, True]
    late, _ = analyse(frames(1, *[2] * 12, *[2] * 5), Fraction(10), shown, 2.0, index=0)
    assert late.valid.all()


def test_frames_more_than_a_second_apart_are_looked_at_one_by_one():
    """Nobody stays where he was for a minute, and the first of such frames is not the clip's first second."""
    spots = [[face_at(np.array([x, 100.0]), 20, 0.5, 0)] for x in (50, 150, 250)]
    motion, _ = analyse(frames(0, 1, 2, 3), Fraction(1, 60), Several([], *spots), 3.0)
    assert motion.valid.tolist() == [False, True, True, True]
    with pytest.raises(NoFaceError, match="No face found in 3 of the 4 frames of the driver clip"):
        analyse(frames(0, 0, 1, 0), Fraction(1, 60), Several([], *spots), 3.0)


def test_one_crop_holds_the_whole_way_of_the_face():
    spots = [[face_at(np.array([x, 100.0]), 20, 0.5, 0)] for x in (100, 115, 130)]
    motion, crop = analyse(frames(0, 1, 2), Fraction(25), Several(*spots), 3.0)
    assert crop.side == pytest.approx(120) and crop.left == pytest.approx(115 - 60)
    np.testing.assert_allclose(np.diff(motion.origin[:, 0]), 15 * 512 / 120)
    assert motion.rate == 25 and isinstance(motion, Motion)


def test_clips_without_a_face_are_refused():
    shown = Several([], [face_at(np.array([80.0, 100]), 30, 0.2, 0)])
    with pytest.raises(NoFaceError, match="No face found in the first second of the driver clip"):
        analyse(frames(*[0] * 10, *[1] * 90), Fraction(10), shown, 2.0)
    with pytest.raises(NoFaceError, match="No face found in 11 of the 20 frames of the driver clip"):
        analyse(frames(*[1] * 9, *[0] * 11), Fraction(10), shown, 2.0)
    with pytest.raises(NoFaceError, match="No face number 1 found in the first second"):
        analyse(frames(1), Fraction(10), shown, 2.0, index=1)
    motion, _ = analyse(frames(*[0] * 9, *[1] * 9), Fraction(10), shown, 2.0)
    assert motion.valid.sum() == 9
