"""A camera that drives a portrait: the class that follows a face, the recording, and the tab's events called
as functions."""

import base64
import dataclasses
import io
import threading
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import Base64ImageData
from PIL import Image
from test_reenactor import ColourAnalyzer, picture

import hellomeme.io.recording as recording
from hellomeme.errors import HelloMemeError
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.smooth import LiveSmoother
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import probe, read_frames
from hellomeme.live import Live
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import load
from hellomeme.settings import Settings
from page import files, live_offer, live_session, live_tab, spaces_gpu, state as states

BLACK = np.zeros((160, 200, 3), np.uint8)
QUICK = Settings(steps=1, guidance=1)
NOTHING = (gr.skip(), gr.skip())


class CameraAnalyzer(ColourAnalyzer):
    """Follows the only face there is, unless the frame is black."""

    def follow(self, frame, last=None):
        return self.face(frame) if frame.any() else None


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load(str(model_folder), device="cpu")


@pytest.fixture
def reenactor(loaded):
    pipeline, encoders, release = loaded
    return Reenactor(pipeline, release, encoders, CameraAnalyzer())


# The class


def test_the_first_frame_is_drawn_as_a_picture_is(reenactor):
    reference = reenactor.set_reference(picture())
    live = Live(reenactor)
    drawn = live.draw(live.read(picture(0.9, 0.3), 0.0), reference, QUICK)
    expected = reenactor.image(picture(0.9, 0.3), QUICK).picture
    assert np.array_equal(drawn, np.asarray(expected)) and drawn.dtype == np.uint8


def test_relative_motion_from_the_neutral_face(reenactor):
    reference = reenactor.set_reference(picture(0.5, 0.1))
    live = Live(reenactor, smoothing=0)
    with pytest.raises(HelloMemeError, match="look into the camera"):
        live.set_neutral()
    live.read(picture(0.3, 0.2), 0.0)
    live.set_neutral()
    still = live.retargeted(live.read(picture(0.3, 0.2), 0.1), reference, QUICK)
    np.testing.assert_allclose(still.blendshapes, reference.motion.blendshapes, atol=1e-6)
    np.testing.assert_allclose(still.rotation, reference.motion.rotation, atol=1e-9)
    moved = live.retargeted(live.read(picture(0.5, 0.2), 0.2), reference, QUICK)
    rise = live.read(picture(0.5, 0.2), 0.3).blendshapes - live.neutral.blendshapes
    np.testing.assert_allclose(moved.blendshapes, reference.motion.blendshapes + rise, atol=1e-6)
    assert 0.1 < rise.min()
    live.neutral = None
    absolute = live.retargeted(live.read(picture(0.3, 0.2), 0.4), reference, QUICK)
    assert absolute.blendshapes.max() < 0.4  # the driver's own again


def test_a_frame_without_a_face_has_no_motion_and_the_next_one_begins_anew(reenactor):
    live = Live(reenactor)
    first = live.read(picture(0.2), 0.0)
    assert live.read(BLACK, 0.1) is None
    again = live.read(picture(0.9), 0.2)
    fresh = Live(reenactor).read(picture(0.9), 0.2)
    np.testing.assert_array_equal(again.blendshapes, fresh.blendshapes)
    assert again.blendshapes.mean() > first.blendshapes.mean() + 0.5


def test_smoothing_calms_what_trembles_and_lets_pass_what_moves(reenactor):
    motion = Live(reenactor, smoothing=0).read(picture(), 0.0)
    noise = np.random.default_rng(0).normal(0, 0.01, (40, 51)).astype(np.float32)

    def filtered(levels, strength=0.5):
        smoother = LiveSmoother(strength)
        frames = (dataclasses.replace(motion, blendshapes=level[None]) for level in levels)
        return np.concatenate([smoother(frame, k / 10).blendshapes for k, frame in enumerate(frames)])

    trembling = 0.5 + noise
    assert np.diff(filtered(trembling), axis=0).std() < 0.7 * np.diff(trembling, axis=0).std()
    np.testing.assert_array_equal(filtered(trembling, 0), trembling)
    blink = np.zeros((12, 51), np.float32)
    blink[5:7] = 1
    assert filtered(blink).max() > 0.75 and filtered(blink).dtype == np.float32
    turned = LiveSmoother(0.5)
    turned(motion, 0.0)
    np.testing.assert_allclose(turned(motion, 0.1).rotation, motion.rotation, atol=1e-9)


def test_a_face_is_followed_by_one_detection_and_found_again_after_a_jump(monkeypatch):
    import photos

    windows = []
    detect = FaceAnalyzer._detect

    def counted(self, frame, window, size):
        windows.append(window)
        return detect(self, frame, window, size)

    monkeypatch.setattr(FaceAnalyzer, "_detect", counted)
    frame = np.full((256, 512, 3), 128, np.uint8)
    left, right = frame.copy(), frame.copy()
    left[:, :256] = right[:, 256:] = photos.toon(3)
    with FaceAnalyzer() as analyzer:
        known = analyzer.face(left)
        windows.clear()
        first = analyzer.follow(left)
        assert len(windows) == 2 and np.abs(first.box - known.box).max() < 5
        windows.clear()
        again = analyzer.follow(left, first)
        assert len(windows) == 1 and np.abs(again.box - known.box).max() < 5
        moved = analyzer.follow(right, again)
        assert np.abs(moved.box - known.box - (256, 0, 256, 0)).max() < 5
        windows.clear()
        assert analyzer.follow(frame, moved) is None and len(windows) == 3


# The recording


def test_a_recording_plays_as_fast_as_its_pictures_came(tmp_path):
    stamp = metadata.Stamp(Settings(seed=3).resolved(SimpleNamespace(guidance=1.0, steps=1)), "demo")
    recorder = recording.Recorder(tmp_path / "clip.mp4", stamp)
    for level, seconds, side in ((40, 9.0, 64), (200, 9.001, 64), (120, 9.4, 32), (220, 10.0, 64)):
        recorder.add(np.full((side, side, 3), level, np.uint8), seconds)  # of 32 px: by another model
    assert not (tmp_path / "clip.mp4").exists()
    path = recorder.save()
    assert metadata.read(path).labelled and metadata.read(path).settings.seed == 3
    info = probe(path)
    assert info.rate == recording.RATE and info.frames == 16
    levels = [frame.mean() for frame in read_frames(path, info.rate)]
    assert np.abs(np.array(levels) - [*[200] * 6, *[120] * 9, 220]).max() < 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_empty_or_discarded_recording_leaves_no_file(tmp_path, monkeypatch):
    stamp = metadata.Stamp(QUICK, "demo")
    with pytest.raises(HelloMemeError, match="Nothing has been recorded"):
        recording.Recorder(tmp_path / "clip.mp4", stamp).save()
    recorder = recording.Recorder(tmp_path / "clip.mp4", stamp)
    recorder.add(BLACK, 0.0)
    recorder.discard()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(recording, "LONGEST", 1)
    recorder = recording.Recorder(tmp_path / "clip.mp4", stamp)
    for seconds in (0.0, 0.5, 1.0, 600.0):
        recorder.add(BLACK, seconds)
        assert recorder.is_full == (seconds >= 1)
    assert probe(recorder.save()).frames < 16


# The events


@pytest.fixture
def state(loaded, reenactor, model_folder, monkeypatch):
    state = states.State(str(model_folder), device="cpu")
    state.analyzer = reenactor.analyzer
    state.reenactors[state.release, state.default_type(state.release)] = reenactor
    monkeypatch.setattr(states, "STATE", state)
    monkeypatch.setattr(live_session, "LATE", 600)  # the tests may run on a busy computer
    return state


@pytest.fixture
def portrait(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "portrait.png")
    return str(tmp_path / "portrait.png")


@pytest.fixture
def once(state, portrait):
    """The answer to one frame: the picture, a line, and the button that records."""

    def once(camera, session="me", **changes):
        values = dict(expression=1, head=1, guidance=1, steps=1, seed=0)
        values |= dict(reference_face=None, prompt="", negative_prompt="")
        given = {"camera": camera, "model": state.release, "reference": portrait} | values | changes
        return live_tab.draw_frame(**given, request=SimpleNamespace(session_hash=session))

    yield once
    for session in list(state.live._sessions):
        state.live.end(session)


@pytest.fixture
def frame(once):
    """Picture and line for a frame, which come with the next one, or with itself if it is the first."""

    def frame(*camera, **values):
        answers = once(*camera, **values), once(*camera, **values)
        return (answers[0] if answers[1][1] == gr.skip() else answers[1])[:2]

    return frame


def test_frames_are_drawn_and_where_no_face_is_the_picture_stays(frame, state):
    first, line = frame(picture(0.9))
    assert first.shape == (128, 128, 3) and line == ""
    kept, line = frame(BLACK)
    assert kept == gr.skip() and line.key == live_tab.NO_FACE.key
    second, _ = frame(picture(0.1))
    assert not np.array_equal(first, second)
    for _ in range(3):
        _, line = frame(picture(0.2))
    assert line.endswith(" fps")
    assert frame(None) == NOTHING and state.pace[state.release] > 0
    frame(picture(0.2), reuse=2)  # after what was begun before
    state.pace.clear()
    frame(picture(0.2), reuse=2)  # is faster than a whole picture
    assert state.pace == {}


def test_a_frame_is_drawn_while_the_next_one_comes():
    visitor, go = live_session.LiveSession(), threading.Event()
    assert visitor.draw(lambda: "first", 0.0) == "first"
    assert visitor.draw(lambda: go.wait(9) and "second", 0.1) is None  # while it is drawn
    go.set()
    assert visitor.draw(lambda: "third", 0.2) == "second"
    assert visitor.draw(lambda: 1 / 0, 0.3) == "third"
    with pytest.raises(ZeroDivisionError):
        visitor.draw(lambda: "fifth", 0.4)
    assert visitor.draw(lambda: "after a pause", 0.5 + live_session.LATE) == "after a pause"
    visitor.drop()
    assert visitor.draw(lambda: "after no face", 1.2) == "after no face"
    visitor.close()
    assert visitor.draw(lambda: "again", 2.0) == "again"
    visitor.close()


def test_errors_are_sentences_and_do_not_end_the_stream(frame, state, monkeypatch, caplog):
    for changes, sentence in (
        ({"reference": None}, "There is no reference picture yet: choose the portrait that should move."),
        ({"expression": 3}, "Expression must be a number from 0 to 2, not 3."),
    ):
        assert frame(picture(), **changes) == (gr.skip(), sentence)
    monkeypatch.setattr(Live, "draw", lambda *_: 1 / 0)
    kept, line = frame(picture())
    assert kept == gr.skip() and "Something broke on our side" in line and "ZeroDivision" in caplog.text


def test_a_frame_does_not_wait_for_long_for_anothers_picture(frame, state, monkeypatch):
    frame(picture())
    monkeypatch.setattr(live_offer, "WAIT", 0.01)
    held, done = threading.Event(), threading.Event()

    def other():
        with state.drawing_lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    assert frame(picture())[1].key == live_tab.BUSY.key
    done.set()
    thread.join()
    assert frame(picture())[0].shape == (128, 128, 3)


def test_where_it_is_not_offered(state, monkeypatch):
    monkeypatch.setattr(live_offer.state.STATE, "models", {"v1": ("HelloMeme v1", None)})
    settings = Settings(steps=4, guidance=1)
    assert "is not known yet" in live_offer.refusal("v1", settings)
    state.pace["v1"] = 0.05
    assert live_offer.refusal("v1", settings) is None
    sentence = live_offer.refusal("v1", dataclasses.replace(settings, guidance=2.0, steps=25))
    assert sentence.startswith("A picture of HelloMeme v1 takes 2.5 s here")
    monkeypatch.setattr(spaces_gpu, "ON_SPACES", True)
    assert "a GPU is lent for one picture" in live_offer.refusal("v1", settings)
    state.models["v1"] = ("HelloMeme v1", "It needs a GPU.")
    assert live_offer.refusal("v1", settings) == "It needs a GPU."


def test_on_spaces_the_demo_is_drawn_on_the_cpu_without_the_gpu(state, monkeypatch):
    monkeypatch.setattr(spaces_gpu, "ON_SPACES", True)
    with state.drawing_lock:
        own = state.drawing_reenactor(state.release)
        assert own is state.drawing_reenactor(state.release)
    assert own is not state.reenactor(state.release) and own.pipeline.unet.device.type == "cpu"


def test_the_neutral_face_by_its_buttons(frame, state):
    me = SimpleNamespace(session_hash="me")
    with pytest.raises(gr.Error) as error:
        live_tab.set_neutral(me)
    assert error.value.message == "The camera does not run yet: start it first."
    frame(picture(0.9))
    assert live_tab.set_neutral(me)["interactive"] and state.live.of("me").live.neutral is not None
    frame(picture(0.2), session="somebody else")
    assert state.live.of("somebody else").live.neutral is None
    assert not live_tab.forget_neutral(me)["interactive"] and state.live.of("me").live.neutral is None


def press_record(state, session="me"):
    values = dict(expression=1, head=1, guidance=1, steps=1, seed=0, reference_face=None)
    values |= dict(prompt="", negative_prompt="")
    return live_tab.record(
        model=state.release, reference=None, **values, request=SimpleNamespace(session_hash=session)
    )


def test_a_recording_by_its_button_and_none_of_a_visitor_who_leaves(
    frame, once, state, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "upload_folder", lambda: tmp_path / "served")
    me = SimpleNamespace(session_hash="me")
    assert once(BLACK)[2] == gr.skip()
    assert once(picture())[2] == gr.update(interactive=True)
    frame(picture())
    button, _ = press_record(state)
    assert button["value"].key == live_tab.SAVE.key
    assert once(picture(0.3))[2] == gr.skip()
    frame(picture(0.9), session="somebody else")
    assert live_tab.camera_stopped(me)["interactive"]  # what is recorded can be saved
    button, clip = press_record(state)
    assert button["value"].key == live_tab.RECORD.key and not button["interactive"]
    stamp = metadata.read(clip["value"])
    assert stamp.labelled and stamp.settings.steps == 1 and probe(clip["value"]).frames == 1

    press_record(state)
    frame(picture(0.5))
    recorder = state.live.of("me").recorder
    state.live.end("me")
    assert not recorder.path.exists() and state.live.of("me").live is None
    assert len(list((tmp_path / "served").rglob("*.mp4"))) == 1


def test_a_recording_that_cannot_be_written_is_told_once(frame, once, state, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "upload_folder", lambda: tmp_path)
    frame(picture())
    press_record(state)

    def full(*_):
        raise HelloMemeError("The clip could not be encoded: No space left on device.")

    monkeypatch.setattr(recording.Recorder, "add", full)
    assert once(picture())[1].endswith("No space left on device.")
    assert once(picture())[0].shape == (128, 128, 3) and state.live.of("me").recorder is None


def test_pictures_travel_as_data_and_not_as_files():
    sent = live_tab.encode(picture())
    assert isinstance(sent, Base64ImageData) and live_tab.encode(None) is None
    received = live_tab.decode(SimpleNamespace(url=sent.url))
    assert np.abs(received.astype(int) - picture()).mean() < 12
    assert live_tab.decode(None) is None and live_tab.decode(SimpleNamespace(url="/file=x.png")) is None
    large = io.BytesIO()
    Image.new("RGB", (live_tab.MAX_SIDE + 1, 8)).save(large, "jpeg")
    with pytest.raises(ValueError):
        live_tab.decode(
            SimpleNamespace(url="data:image/jpeg;base64," + base64.b64encode(large.getvalue()).decode())
        )
