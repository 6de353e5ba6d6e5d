"""Bridging and smoothing of motion, and which of it the reference takes over."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hellomeme.face.arkit import INDEX
from hellomeme.face.motion import Motion
from hellomeme.face.retarget import neutral_frame, retarget
from hellomeme.face.smooth import bridged, one_euro, smoothed
from hellomeme.settings import ClipSettings, Settings

RATE = 30.0


def yaw(*degrees):
    return Rotation.from_rotvec([[0.0, d, 0] for d in degrees], degrees=True).as_matrix()


def motion(frames, expression=0.3, turns=None, valid=None, emotion=None):
    turns = np.zeros(frames) if turns is None else turns
    return Motion(
        np.broadcast_to(np.float32(expression), (frames, 51)).copy(),
        yaw(*turns),
        np.full((frames, 2), 256.0),
        np.full(frames, 60.0),
        np.ones(frames, bool) if valid is None else np.array(valid, bool),
        emotion,
    )


def trembling(frames, seed=0):
    """A still face as measured: noise of a hundredth in coefficients, half a degree, one pixel."""
    rng = np.random.default_rng(seed)
    still = motion(frames)
    return dataclasses.replace(
        still,
        blendshapes=np.clip(still.blendshapes + rng.normal(0, 0.01, (frames, 51)), 0, 1).astype(np.float32),
        rotation=Rotation.from_rotvec(rng.normal(0, 0.5, (frames, 3)), degrees=True).as_matrix(),
        origin=still.origin + rng.normal(0, 1, (frames, 2)),
        scale=still.scale * np.exp(rng.normal(0, 0.005, frames)),
    )


def restlessness(values):
    return np.abs(np.diff(values, axis=0)).mean()


def test_strength_zero_changes_nothing():
    shaky = trembling(20)
    assert smoothed(shaky, RATE, 0) is shaky


def test_what_stands_still_is_calmed():
    shaky = trembling(90)
    calm, calmer = smoothed(shaky, RATE, 0.5), smoothed(shaky, RATE, 1)
    for name in ("blendshapes", "rotation", "origin", "scale"):
        before, half, full = (restlessness(getattr(each, name)) for each in (shaky, calm, calmer))
        assert full < half < before / 3, name
    assert np.allclose(np.linalg.det(calm.rotation), 1)
    assert calm.blendshapes.dtype == np.float32 and calm.blendshapes.min() >= 0


def test_a_blink_and_a_turn_stay_when_and_what_they_were():
    """A blink of 0.2 s keeps most of its depth, at its moment; a shake of the head keeps its width, without
    lag."""
    t = np.arange(90) / RATE
    blink = np.clip(1 - np.abs(t - 1) / 0.1, 0, 1)
    turns = 20 * np.sin(2 * np.pi * t)
    clip = motion(90, blink[:, None], turns)
    result = smoothed(clip, RATE, 0.5)
    closed = result.blendshapes[:, INDEX["eyeBlinkLeft"]]
    assert closed.argmax() == 30 and closed.max() > 0.8
    angle = Rotation.from_matrix(result.rotation).as_rotvec(degrees=True)[:, 1]
    assert abs(angle.max() - 20) < 2 and np.abs(angle - turns)[5:-5].max() < 2.5
    lag = [np.mean((angle[10:-10] - np.roll(turns, shift)[10:-10]) ** 2) for shift in (-2, -1, 0, 1, 2)]
    assert np.argmin(lag) == 2


def test_emotion_codes_are_smoothed_too():
    codes = np.random.default_rng(0).normal(size=(40, 548)).astype(np.float32)
    clip = motion(40, emotion=codes)
    result = smoothed(clip, RATE, 1).emotion
    assert result.dtype == np.float32 and restlessness(result) < restlessness(codes)
    parts = np.random.default_rng(1).normal(size=(40, 3, 1024)).astype(np.float32)
    both = smoothed(dataclasses.replace(clip, face_parts=parts), RATE, 1)
    assert both.face_parts.shape == parts.shape and restlessness(both.face_parts) < restlessness(parts)
    np.testing.assert_array_equal(both.emotion, result)


def test_the_filter_keeps_constants():
    values = np.full((10, 2), 3.0)
    np.testing.assert_allclose(one_euro(values, RATE, 1.0, 1.0), values)


def test_gaps_are_bridged_and_ends_are_held():
    clip = motion(
        6, np.array([9, 0.2, 9, 9, 0.8, 9])[:, None] / 1, [90, 0, 90, 90, 30, 90], [0, 1, 0, 0, 1, 0]
    )
    parts = np.array([9, 2, 9, 9, 8, 9], np.float32)[:, None, None]
    result = bridged(dataclasses.replace(clip, face_parts=parts))
    np.testing.assert_allclose(result.face_parts[:, 0, 0], [2, 2, 4, 6, 8, 8], atol=1e-6)
    np.testing.assert_allclose(result.blendshapes[:, 7], [0.2, 0.2, 0.4, 0.6, 0.8, 0.8], atol=1e-6)
    np.testing.assert_allclose(result.rotation, yaw(0, 0, 10, 20, 30, 30), atol=1e-9)
    assert result.valid.tolist() == clip.valid.tolist()
    whole = motion(3)
    assert bridged(whole) is whole


REFERENCE = motion(1, 0.1, [-10])


def performed(driver, **clip):
    settings = {name: clip.pop(name) for name in ("expression", "head", "translation") if name in clip}
    return retarget(driver, REFERENCE, Settings(**settings), ClipSettings(**clip))


def test_absolute_motion_is_the_drivers():
    driver = motion(3, np.array([[0.3], [0.5], [0.9]]), [5, 10, 20])
    result = performed(driver)
    np.testing.assert_allclose(result.blendshapes, driver.blendshapes)
    np.testing.assert_allclose(result.rotation, driver.rotation, atol=1e-9)


def test_relative_motion_counts_from_the_neutral_frame():
    driver = motion(3, np.array([[0.3], [0.2], [0.9]]), [5, 2, 20])
    assert neutral_frame(driver) == 1
    result = performed(driver, relative=True)
    np.testing.assert_allclose(result.blendshapes[:, 0], [0.2, 0.1, 0.8], atol=1e-6)
    np.testing.assert_allclose(result.rotation, yaw(-7, -10, 8), atol=1e-9)
    by_number = performed(driver, relative=True, neutral=0)
    np.testing.assert_allclose(by_number.rotation, yaw(-10, -13, 5), atol=1e-9)
    assert by_number.blendshapes[1, 0] == 0  # 0.1 - 0.1, kept in range
    double = performed(driver, relative=True, expression=2)
    np.testing.assert_allclose(double.blendshapes[:, 0], [0.3, 0.1, 1], atol=1e-6)


def test_relative_places_count_from_the_neutral_frame():
    driver = dataclasses.replace(motion(3), origin=np.array([[256.0, 256], [276, 256], [306, 256]]))
    result = performed(driver, relative=True, neutral=1, translation=1)
    np.testing.assert_allclose(result.origin[:, 0], [236, 256, 286])


def test_the_neutral_frame_shows_a_face():
    clip = motion(3, np.array([[0.5], [0.1], [0.4]]), valid=[1, 0, 1])
    assert neutral_frame(clip) == 2


@pytest.mark.parametrize("region", ["expression", "head", "eyes", "mouth"])
def test_a_region_moves_and_the_rest_is_the_references(region):
    codes = np.ones((2, 548), np.float32)
    driver = dataclasses.replace(motion(2, 0.9, [20, 30], emotion=codes), origin=np.full((2, 2), 300.0))
    driver.origin[1] += 20
    driver = dataclasses.replace(driver, face_parts=np.ones((2, 3, 1024), np.float32))
    reference = dataclasses.replace(
        REFERENCE, emotion=np.zeros((1, 548), np.float32), face_parts=np.zeros((1, 3, 1024), np.float32)
    )
    result = retarget(driver, reference, Settings(translation=1), ClipSettings(region=region))
    moves = {
        name: bool(result.blendshapes[0, INDEX[name]] > 0.5)
        for name in ("eyeBlinkLeft", "browInnerUp", "jawOpen")
    }
    eyes, mouth = region in ("expression", "eyes"), region in ("expression", "mouth")
    assert moves == {"eyeBlinkLeft": eyes, "browInnerUp": eyes, "jawOpen": mouth}
    assert (result.emotion[0, :6].all(), result.emotion[0, 36:].all()) == (eyes, mouth)
    assert result.face_parts[0].all(1).tolist() == [eyes, eyes, mouth]
    turned = not np.allclose(result.rotation, reference.rotation)
    shifted = not np.allclose(result.origin, reference.origin)
    assert turned == shifted == (region == "head")
