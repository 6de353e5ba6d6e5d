"""Turns beyond what a model was trained on are held at the edge, and said to be."""

import dataclasses

import numpy as np
import pytest

from hellomeme.face.motion import Motion
from hellomeme.face.retarget import held_turns
from hellomeme.face.rotation import from_angles, to_angles
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import load
from hellomeme.settings import Settings
from tests.test_reenactor import ColourAnalyzer, picture

LIMITS = {"pitch": (-20.0, 40.0), "yaw": (-38.0, 38.0), "roll": (-19.0, 19.0)}


def motion(*angles):
    count = len(angles)
    rotation = np.stack([from_angles(*each) for each in angles])
    origin, scale = np.full((count, 2), 256.0), np.full(count, 60.0)
    return Motion(np.zeros((count, 51), np.float32), rotation, origin, scale, np.ones(count, bool))


def test_each_angle_is_held_by_itself():
    held, names = held_turns(motion((10, 50, 0), (-30, 20, 5)), LIMITS)
    np.testing.assert_allclose(to_angles(held.rotation), [(10, 38, 0), (-20, 20, 5)], atol=1e-9)
    assert names == ("pitch", "yaw")


@pytest.mark.parametrize("limits", [LIMITS, None])
def test_within_the_range_nothing_changes(limits):
    free = motion((10, 30, -10))
    held, names = held_turns(free, limits)
    assert np.array_equal(held.rotation, free.rotation) and names == ()


def test_a_result_says_what_was_held(model_folder):
    pipeline, encoders, release = load(str(model_folder), device="cpu")
    results = []
    for turns in (None, LIMITS):
        row = dataclasses.replace(release, turns=turns)
        reenactor = Reenactor(pipeline, row, encoders, ColourAnalyzer())
        reenactor.set_reference(picture(green=0.01))
        results.append(reenactor.image(picture(green=0.95), Settings(steps=1)))
    free, held = results
    assert free.held == () and held.held == ("yaw",)
    assert not np.array_equal(np.asarray(free.pose), np.asarray(held.pose))
