"""The reenactor on a tiny random model; a stand-in for MediaPipe reads the face from the colours of the
picture."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from hellomeme.errors import HelloMemeError, NoFaceError
from hellomeme.expression import ExpressionEncoders
from hellomeme.face.detect import Face
from hellomeme.face.motion import EMOTION_WIDTH
from hellomeme.reenactor import Reenactor, Stopped
from hellomeme.releases.load import load
from hellomeme.settings import Settings


class ColourAnalyzer:
    """Sees a face in any picture that is not black: red opens the jaw and everything else, green turns the
    head."""

    def face(self, frame, name="driver", index=None):
        height, width = frame.shape[:2]
        red, green, _ = frame.reshape(-1, 3).mean(0) / 255
        if red == green == 0:
            raise NoFaceError(f"No face found in the {name} picture: choose one that shows a face clearly.")
        if index:
            raise HelloMemeError(
                f"Face {index} was asked for, but there is only one face in the {name} picture."
            )
        cos, sin = np.cos(green), np.sin(green)
        centre, half = np.array([width, height]) / 2, 0.15 * min(width, height)
        angles = np.linspace(0, 2 * np.pi, 478)
        landmarks = centre + half * np.stack([np.cos(angles), np.sin(angles)], 1)
        return Face(
            landmarks=landmarks.astype(np.float32),
            blendshapes=np.full(51, red, np.float32),
            rotation=np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]),
            origin=centre,
            scale=half / 1.5,
            box=np.array([*(centre - half), *(centre + half)]),
        )


def picture(red=0.5, green=0.1, size=(200, 160)):
    noise = np.random.default_rng(0).integers(-20, 20, (*size[::-1], 3))
    colour = np.array([red, green, 0.5]) * 255
    return np.clip(colour + noise, 1, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load(str(model_folder), device="cpu")


@pytest.fixture
def reenactor(loaded):
    pipeline, encoders, release = loaded
    return Reenactor(pipeline, release, encoders, ColourAnalyzer())


QUICK = Settings(steps=2)


def same(a, b):
    return np.array_equal(np.asarray(a.picture), np.asarray(b.picture))


def test_a_picture_comes_out_with_what_it_was_made_of(reenactor):
    portrait = reenactor.set_reference(Image.fromarray(picture()))
    result = reenactor.image(picture(0.9, 0.6), Settings(seed=5))
    assert (
        portrait.picture.size
        == result.picture.size
        == result.reference.size
        == result.driver.size
        == (128, 128)
    )
    assert result.pose.size == (512, 512) and np.asarray(result.pose).any()
    assert result.settings.steps == reenactor.release.steps and result.settings.seed == 5
    assert np.array_equal(np.asarray(result.reference), np.asarray(portrait.picture))


def test_same_seed_and_input_same_picture(loaded, reenactor):
    reenactor.set_reference(picture())
    first = reenactor.image(picture(0.9), QUICK)
    assert same(first, reenactor.image(picture(0.9), QUICK))
    assert not same(first, reenactor.image(picture(0.9), dataclasses.replace(QUICK, seed=1)))
    assert not same(first, reenactor.image(picture(0.1), QUICK))
    again = Reenactor(loaded[0], loaded[2], None, ColourAnalyzer())
    again.set_reference(picture())
    assert same(first, again.image(picture(0.9), QUICK))


def test_strength_zero_is_the_references_own_code_and_one_the_drivers(reenactor, monkeypatch):
    received = []
    draw = reenactor.pipeline.__class__.__call__

    def listen(self, reference, condition, **arguments):
        received.append((condition, arguments["drive_coeff"]))
        return draw(self, reference, condition, **arguments)

    monkeypatch.setattr(reenactor.pipeline.__class__, "__call__", listen)
    own = reenactor.set_reference(picture(0.5, 0.1)).motion.blendshapes
    driver = reenactor.portrait(picture(0.9, 0.8)).motion.blendshapes
    for expression, head in ((0, 0), (1, 1), (0.5, 0)):
        reenactor.image(picture(0.9, 0.8), Settings(steps=1, expression=expression, head=head))
    (still, kept), (turned, taken), (_, halfway) = received
    np.testing.assert_allclose(kept[0].numpy(), own, atol=1e-6)
    np.testing.assert_allclose(taken[0].numpy(), driver, atol=1e-6)
    np.testing.assert_allclose(halfway[0].numpy(), (own + driver) / 2, atol=1e-6)
    assert kept.shape == (1, 1, 51) and not torch.equal(still, turned)
    # At strength 0 the driver does not matter at all: it may as well be the reference itself.
    reenactor.image(picture(0.5, 0.1), Settings(steps=1))
    torch.testing.assert_close(received[-1][0], still)


def test_the_reference_is_worked_on_once(reenactor, monkeypatch):
    counts = {"encode": 0, "prepare_reference": 0}
    for name in counts:
        original = getattr(reenactor.pipeline, name)

        def counting(*arguments, name=name, original=original):
            counts[name] += 1
            return original(*arguments)

        monkeypatch.setattr(reenactor.pipeline, name, counting)
    reenactor.set_reference(picture())
    for seed in range(3):
        reenactor.image(picture(0.9), Settings(steps=1, seed=seed))
    assert counts == {"encode": 1, "prepare_reference": 1}
    reenactor.image(picture(0.9), Settings(steps=1, prompt="hat"))
    assert counts == {"encode": 1, "prepare_reference": 2}


def test_a_portrait_stands_for_its_picture_and_its_face_is_not_searched_for_again(reenactor, monkeypatch):
    reference = reenactor.set_reference(picture())
    expected = reenactor.image(picture(0.9, 0.6), QUICK)
    portraits = reenactor.portrait(picture(), "reference"), reenactor.portrait(picture(0.9, 0.6))
    monkeypatch.delattr(ColourAnalyzer, "face")
    reenactor.set_reference(portraits[0])
    assert same(expected, reenactor.image(portraits[1], QUICK))
    assert reenactor.set_reference(reference) is reference is reenactor.reference


def test_an_earlier_reference_can_be_driven_again(reenactor):
    first = reenactor.set_reference(picture(0.3))
    expected = reenactor.image(picture(0.9), QUICK)
    reenactor.set_reference(picture(0.8, 0.7))
    assert not same(expected, reenactor.image(picture(0.9), QUICK))
    assert same(expected, reenactor.image(picture(0.9), QUICK, reference=first))


def test_progress_counts_the_steps_and_may_stop(reenactor):
    reenactor.set_reference(picture())
    steps = []
    reenactor.image(picture(0.9), Settings(steps=3), progress=lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3), (3, 3)]

    def stop(step, of):
        if step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        reenactor.image(picture(0.9), Settings(steps=3), progress=stop)


def test_sentences(reenactor, tmp_path):
    with pytest.raises(HelloMemeError, match="^There is no reference picture yet"):
        reenactor.image(picture())
    with pytest.raises(NoFaceError, match="^No face found in the reference picture: "):
        reenactor.set_reference(np.zeros((64, 64, 3), np.uint8))
    reenactor.set_reference(picture())
    with pytest.raises(NoFaceError, match="^No face found in the driver picture: "):
        reenactor.image(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(HelloMemeError, match="in the driver picture"):
        reenactor.image(picture(), Settings(driver_face=3))
    with pytest.raises(HelloMemeError, match="reference picture"):
        reenactor.set_reference(picture(), face=2)
    with pytest.raises(HelloMemeError, match="driver picture"):
        reenactor.image(tmp_path / "missing.png")


class MeanEncoder(torch.nn.Module):
    """In place of FanEncoder: the mean of the aligned face, 548 times."""

    device, dtype = torch.device("cpu"), torch.float32

    def forward(self, faces):
        return faces.mean((1, 2, 3))[:, None].expand(-1, EMOTION_WIDTH)

    def negative(self):
        return self(torch.full((1, 3, 224, 224), -1.0))


def test_the_emotion_code_goes_where_it_is_asked_for(loaded):
    """With an emotion encoder the code is read from the aligned face, and guidance gets that of a black
    one."""
    from hellomeme.models.control import HMControlNet2
    from hellomeme.pipeline import HelloMemePipeline

    torch.manual_seed(0)
    parts = {**loaded[0].components, "hm_control": None, "hm_control_up": None}
    parts["hm_control2"] = HMControlNet2(
        block_out_channels=(8, 16, 32, 32), cross_attention_dim=32, input_channels=3, scale_factor=2
    )
    pipeline = HelloMemePipeline(**parts)
    reenactor = Reenactor(pipeline, loaded[2], ExpressionEncoders(MeanEncoder()), ColourAnalyzer())
    portrait = reenactor.set_reference(picture(0.2))
    assert portrait.motion.emotion.shape == (1, EMOTION_WIDTH)
    bright = reenactor.image(picture(0.9), QUICK)
    assert not same(bright, reenactor.image(picture(0.1), QUICK))
    still = dataclasses.replace(QUICK, expression=0, head=0)
    assert same(reenactor.image(picture(0.9), still), reenactor.image(picture(0.1), still))


@pytest.mark.parametrize(("negative", "value"), [("black picture", -1.0), ("zeros", 0.0)])
def test_the_release_chooses_the_negative_of_an_emotion_code(loaded, negative, value):
    encoders = ExpressionEncoders(MeanEncoder(), negative_emotion=negative)
    reenactor = Reenactor(loaded[0], loaded[2], encoders, ColourAnalyzer())
    arguments = encoders.arguments(reenactor.portrait(picture(0.5, 0.1)).motion, {"pd_fpg"})
    assert arguments.keys() == {"emotion", "negative_emotion"}
    assert arguments["negative_emotion"].shape == (1, 1, EMOTION_WIDTH)
    assert arguments["negative_emotion"].eq(value).all()
