"""The evaluation measures what it says: angles, distances, correlations, and a whole run on a tiny model."""

from types import SimpleNamespace

import numpy as np
import pytest

from hellomeme.arkit import INDEX
from training import evaluate
from training.toon.camera import Pose, rotation


@pytest.mark.parametrize("pitch, yaw, roll", [(10, 0, 0), (0, 20, 0), (0, 0, -15), (8, -25, 12)])
def test_angles_are_those_of_the_renderer(pitch, yaw, roll):
    """Rz Ry Rx of the contract taken apart again."""
    x, y, z = np.radians([pitch, yaw, roll])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    assert evaluate.angles(rz @ ry @ rx) == pytest.approx([pitch, yaw, roll])
    single = [Pose(pitch=pitch), Pose(yaw=yaw), Pose(roll=roll)]
    for i, pose in enumerate(single):
        assert evaluate.angles(rotation(pose))[i] == pytest.approx((pitch, yaw, roll)[i])


def face(jaw: float, yaw: float) -> SimpleNamespace:
    blendshapes = np.zeros(51)
    blendshapes[INDEX["jawOpen"]] = jaw
    return SimpleNamespace(blendshapes=blendshapes, rotation=rotation(Pose(yaw=yaw)))


def test_follow_sees_who_follows_and_who_does_not():
    drivers = [dict(face=face(jaw, yaw)) for jaw, yaw in ((0.0, -20), (0.5, 0), (1.0, 20), (0.2, 10))]
    same = evaluate.follow([pair["face"] for pair in drivers], drivers)
    assert same["aed"] == same["apd"] == 0 and same["jawOpen"] == pytest.approx(1) and same["faces"] == 1
    mirrored = evaluate.follow([face(1 - p["face"].blendshapes[INDEX["jawOpen"]], 0) for p in drivers], drivers)
    assert mirrored["jawOpen"] == pytest.approx(-1) and mirrored["yaw"] == 0 and mirrored["apd"] > 3
    assert evaluate.follow([None, None, None, drivers[0]["face"]], drivers) == {"faces": 0.25}


def test_a_whole_evaluation(model_folder):
    figures, pictures = evaluate.evaluate(str(model_folder), 2, steps=1)
    assert set(figures) == {"copied reference", "model", "autoencoder alone", "as on the page"}
    assert all(images.shape == (2, 128, 128, 3) for images in pictures.values())
    assert "psnr" in figures["model"] and "| psnr |" in evaluate.as_table(figures)
    assert figures["copied reference"]["faces"] == 1.0
