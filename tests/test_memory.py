"""A GPU whose memory runs out, with a stand-in for it: a prediction of too many frames at once raises torch's
error."""

import dataclasses

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image
from test_clip import ColourAnalyzer, moving_folder, pictures, ready  # noqa: F401  (a fixture and what it needs)

from hellomeme.cli import main
from hellomeme.errors import NoMemoryError
from hellomeme.face.motion import Motion
from hellomeme.memory import SENTENCE
from hellomeme.models.control import HMControlNet
from hellomeme.models.unet import HMDenoisingNet
from hellomeme.reenactor import Reenactor
from hellomeme.settings import ClipSettings, Settings
from page import image_tab, state as states

GUIDED = Settings(steps=2, guidance=1.5)
FACE = np.full((160, 160, 3), (200, 90, 120), np.uint8)


class Memory:
    """room: of how many frames at once, both halves of guidance counted. seen: how many each prediction
    had."""

    def __init__(self):
        self.room, self.seen, self.emptied = 10**9, [], 0

    def take(self, frames):
        self.seen.append(frames)
        if frames > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.fixture
def memory(monkeypatch):
    memory = Memory()
    predict, control = HMDenoisingNet.forward, HMControlNet.forward

    def predicting(self, sample, *more, **named):
        memory.take(sample.shape[0] * sample.shape[2])
        return predict(self, sample, *more, **named)

    def controlling(self, condition, **named):
        memory.take(condition.shape[0] * condition.shape[2])
        return control(self, condition, **named)

    def empty(device=None):
        memory.emptied += 1

    monkeypatch.setattr(HMDenoisingNet, "forward", predicting)
    monkeypatch.setattr(HMControlNet, "forward", controlling)
    monkeypatch.setattr("hellomeme.memory.empty_device_cache", empty)
    return memory


@pytest.fixture(scope="module")
def moving(moving_folder):  # noqa: F811
    return ready(moving_folder)


@pytest.fixture(scope="module")
def nod():
    """14 frames of a face that turns."""
    t = np.linspace(0, 0.5, 14)
    cos, sin, zero, one = np.cos(t), np.sin(t), np.zeros(14), np.ones(14)
    rotation = np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).reshape(14, 3, 3)
    return Motion(
        np.tile(t[:, None], 51).astype(np.float32),
        rotation,
        np.full((14, 2), 256.0),
        np.full(14, 90.0),
        np.ones(14, bool),
    )


def close(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_a_picture_is_drawn_in_halves_and_is_the_same(moving, memory):
    whole = moving.image(FACE, GUIDED)
    assert set(memory.seen) == {2} and not memory.emptied
    memory.room, memory.seen = 1, []
    assert close(moving.image(FACE, GUIDED).picture, whole.picture)
    assert memory.seen[0] == 2 and set(memory.seen[1:]) == {1} and memory.emptied == 1


def test_a_sentence_if_that_does_not_suffice_and_the_next_works(moving, memory):
    memory.room = 0
    with pytest.raises(NoMemoryError) as caught:
        moving.image(FACE, GUIDED)
    assert str(caught.value) == SENTENCE and memory.seen == [2, 1] and memory.emptied == 2
    memory.room = 2
    assert moving.image(FACE, GUIDED).picture.size == (128, 128)


def test_a_clip_is_drawn_in_smaller_windows(moving, memory, nod, tmp_path):
    chosen = ClipSettings(overlap=4)
    assert moving.video(nod, tmp_path / "a.mp4", GUIDED, chosen).frames == 14 and max(memory.seen) == 24
    memory.room, memory.seen = 8, []
    report = moving.video(nod, tmp_path / "b.mp4", GUIDED, chosen)
    assert report.frames == len(pictures(report.path, report.rate)) == 14
    # First control maps of a window and one negative frame; then six frames, and that frame alone
    assert memory.seen[0] == 12 + 1 and set(memory.seen[1:]) == {6, 1} and memory.emptied == 1
    memory.room = 5
    with pytest.raises(NoMemoryError):
        moving.video(nod, tmp_path / "c.mp4", GUIDED, chosen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("together", [True, False])
def test_a_clip_begun_goes_on_where_it_was(moving, memory, nod, tmp_path, together):
    """The frames that are there are kept, and those that follow are the ones that would have come."""
    drawn = [pictures(moving.video(nod, tmp_path / "a.mp4", GUIDED, ClipSettings(motion=together)).path, 25)]
    too_little, received = max(memory.seen) - 1 if together else 3, []  # alone, the last batch has two frames

    def full_later(phase, done, total):
        received.append(done)
        memory.room = too_little if done > 9 else 10**9

    drawn += [
        pictures(
            moving.video(nod, tmp_path / "b.mp4", GUIDED, ClipSettings(motion=together), full_later).path, 25
        )
    ]
    assert memory.emptied == 1 and received != sorted(received)  # it began anew behind the scenes
    assert np.abs(drawn[0].astype(int) - drawn[1]).mean() < 1


def test_a_reference_is_tried_twice(moving, memory, monkeypatch):
    encode, calls = moving.pipeline.encode, []

    def once(pixels):
        calls.append(pixels)
        if len(calls) == 1:
            raise torch.OutOfMemoryError
        return encode(pixels)

    monkeypatch.setattr(moving.pipeline, "encode", once)
    assert moving.set_reference(FACE).latents.shape[0] == 1 and len(calls) == 2


def test_a_face_is_read_twice(moving, memory, monkeypatch):
    """Its emotion code, which comes of a network too."""
    calls = []

    class Encoder(torch.nn.Module):
        device, dtype = torch.device("cpu"), torch.float32

        def forward(self, picture):
            calls.append(picture)
            if len(calls) == 1 or memory.room == 0:
                raise torch.OutOfMemoryError
            return torch.zeros(1, 548)

    monkeypatch.setattr(moving.encoders, "emotion", Encoder())
    assert moving.portrait(FACE).motion.emotion.shape == (1, 548) and len(calls) == 2
    memory.room = 0
    with pytest.raises(NoMemoryError):
        moving.portrait(FACE)


def test_weights_that_do_not_fit_are_told(memory, monkeypatch, capfd, tmp_path):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr("hellomeme.reenactor.load", full)
    Image.fromarray(FACE).save(tmp_path / "face.png")
    status = main.main(["image", *[str(tmp_path / "face.png")] * 2, str(tmp_path / "out.png")])
    first, last = capfd.readouterr().err.splitlines()
    assert status == 2 and "trying once more" in first and last == f"hellomeme: {SENTENCE}"


def test_the_page_says_so_forgets_what_it_can_and_goes_on(moving_folder, memory, monkeypatch, tmp_path):  # noqa: F811
    own = states.State(str(moving_folder), device="cpu")
    monkeypatch.setattr(states, "STATE", own)
    monkeypatch.setattr(states.State, "analyzer", ColourAnalyzer())
    own.reenactors["another", "drive_coeff"] = Reenactor.from_release(str(moving_folder), device="cpu")
    Image.fromarray(FACE).save(tmp_path / "face.png")
    arguments = [own.release, *[str(tmp_path / "face.png")] * 2, 1, 1, 1.5, 2, 0, 0, 0, "", "", False, 0.5]
    whole, *_ = image_tab.make_image(*arguments)
    memory.room = 0
    with pytest.raises(gr.Error) as caught:
        image_tab.make_image(*arguments)
    assert caught.value.message == SENTENCE
    assert not own.references and [release for release, _ in own.reenactors] == [own.release]
    memory.room = 2
    assert close(image_tab.make_image(*arguments)[0], whole)


def test_the_errors_of_other_kinds_are_not_tried_again(moving, memory, monkeypatch):
    monkeypatch.setattr(memory, "take", lambda frames: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        moving.image(FACE, dataclasses.replace(GUIDED, guidance=1))
    assert not memory.emptied
