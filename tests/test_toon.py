"""The renderer of drawn heads: deterministic, complete, and moved by each control where it should be."""

import numpy as np
import pytest

from hellomeme.face.arkit import ARKIT_NAMES, INDEX
from training.toon import Pose, coefficients, make_identity, random_expression, random_pose, render
from training.toon.camera import Camera, rotation
from training.toon.expression import Controls, strong_expression
from training.toon.head import Head
from training.toon.identity import STYLES_MAN, STYLES_WOMAN
from training.toon.mouth import Mouth

SIZE = 64
REST = np.zeros(51, np.float32)


def expression(**values):
    return coefficients(values)


def change(identity, **values):
    """(SIZE, SIZE) absolute change of the picture when controls leave the resting face."""
    rest = render(identity, REST, Pose(), SIZE).astype(float)
    return np.abs(render(identity, expression(**values), Pose(), SIZE) - rest).mean(-1)


def test_names_are_the_51_of_arkit_in_order():
    assert len(ARKIT_NAMES) == len(set(ARKIT_NAMES)) == 51
    assert list(ARKIT_NAMES) == sorted(ARKIT_NAMES)
    assert all(ARKIT_NAMES[i] == name for name, i in INDEX.items())


def test_same_seed_same_picture_and_other_seed_another():
    first, again, other = (render(make_identity(s), REST, Pose(), SIZE) for s in (3, 3, 4))
    assert first.shape == (SIZE, SIZE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.abs(first.astype(float) - other).mean() > 5


def test_every_hair_style_draws_at_extreme_poses():
    wanted, seed = set(STYLES_WOMAN + STYLES_MAN), 0
    while wanted:
        identity = make_identity(seed)
        seed += 1
        if identity.style in wanted:
            wanted.remove(identity.style)
            for yaw in (-38, 38):
                picture = render(identity, expression(jawOpen=1), Pose(yaw=yaw, pitch=22, roll=-18), SIZE)
                assert picture.std() > 10, identity.style
        assert seed < 500


def test_caption_tells_what_is_drawn():
    for seed in range(40):
        identity = make_identity(seed)
        assert identity.caption.startswith("a toon woman" if identity.woman else "a toon man")
        assert ("glasses" in identity.caption) == bool(identity.glasses)
        assert ("a beard" in identity.caption) == bool(identity.beard)
        assert " background" in identity.caption and identity.caption.endswith(" shirt")


@pytest.mark.parametrize(
    "controls, upper_half",
    [
        (dict(jawOpen=1), False),
        (dict(mouthSmileLeft=1, mouthSmileRight=1), False),
        (dict(mouthPucker=1), False),
        (dict(mouthFrownLeft=1, mouthFrownRight=1), False),
        (dict(mouthLeft=1), False),
        (dict(mouthFunnel=1), False),
        (dict(eyeBlinkLeft=1, eyeBlinkRight=1), True),
        (dict(browInnerUp=1), True),
        (dict(browDownLeft=1), True),
        (dict(eyeLookOutLeft=1, eyeLookInRight=1), True),
        (dict(eyeSquintLeft=1), True),
        (dict(eyeWideLeft=1), True),
    ],
)
def test_a_control_moves_its_own_half_of_the_face(controls, upper_half):
    moved = change(make_identity(8), **controls)
    halves = moved[: SIZE // 2 + 4], moved[SIZE // 2 + 4 :]  # split between the eyes and the mouth
    mine, other = halves if upper_half else halves[::-1]
    assert mine.sum() > 100
    assert mine.sum() > 2 * other.sum()  # a smile lifts the lower lids, too


def test_left_of_the_head_is_right_in_the_picture():
    moved = change(make_identity(8), eyeBlinkLeft=1)
    assert moved[:, SIZE // 2 :].sum() > 20 * moved[:, : SIZE // 2].sum()


def test_pose_moves_the_head_as_documented():
    assert rotation(Pose(yaw=30))[0, 2] > 0  # the nose goes to the right
    assert rotation(Pose(pitch=20))[1, 2] < 0  # the nose goes down
    assert rotation(Pose(roll=10))[1, 0] > 0  # the right side goes up: counter-clockwise
    r = rotation(Pose(yaw=20, pitch=-10, roll=5))
    assert np.allclose(r @ r.T, np.eye(3)) and np.isclose(np.linalg.det(r), 1)
    nose = [0.0, -0.4, 1.2]
    middle, moved = Camera(Pose(), 100)(nose), Camera(Pose(tx=0.1, ty=0.05), 100)(nose)
    assert np.allclose(moved - middle, (10, -5))


def test_random_controls_stay_in_range():
    rng = np.random.default_rng(0)
    drawn = np.stack([random_expression(rng) for _ in range(300)])
    assert drawn.shape == (300, 51) and drawn.dtype == np.float32
    assert drawn.min() >= 0 and drawn.max() <= 1
    for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkRight", "browInnerUp", "eyeLookUpLeft"):
        assert drawn[:, INDEX[name]].std() > 0.1
    poses = [random_pose(rng) for _ in range(300)]
    assert max(abs(p.yaw) for p in poses) <= 38 and np.std([p.yaw for p in poses]) > 10


def test_a_name_without_a_side_means_both():
    e = coefficients(dict(mouthSmile=0.5, eyeBlinkLeft=1, jawOpen=0.2))
    assert e.dtype == np.float32 and np.count_nonzero(e) == 4
    assert e[INDEX["mouthSmileLeft"]] == e[INDEX["mouthSmileRight"]] == 0.5


def test_strong_expressions_are_clear_and_in_range():
    rng = np.random.default_rng(0)
    drawn = np.stack([strong_expression(rng) for _ in range(400)])
    assert drawn.shape == (400, 51) and drawn.dtype == np.float32
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn.max(1) > 0.19).all(), "none of them is at rest"
    left, right = drawn[:, INDEX["eyeBlinkLeft"]], drawn[:, INDEX["eyeBlinkRight"]]
    winks = np.abs(left - right) > 0.8
    assert 0.05 < winks.mean() < 0.2 and 0.2 < (left > right)[winks].mean() < 0.8
    for name in ("mouthPucker", "mouthFrownLeft", "browDownLeft", "browInnerUp", "eyeLookUpLeft"):
        assert (drawn[:, INDEX[name]] > 0.5).mean() > 0.01, name


def test_supersampling_smooths_but_keeps_the_picture():
    identity = make_identity(5)
    coarse, fine = (render(identity, REST, Pose(), SIZE, s).astype(float) for s in (1, 4))
    assert 0 < np.abs(coarse - fine).mean() < 12


@pytest.mark.parametrize("smile", [0, 1])
def test_the_chin_is_below_a_wide_open_mouth(smile):
    for seed in range(20):
        identity = make_identity(seed)
        head = Head(identity, Controls(expression(jawOpen=1, mouthSmile=smile, mouthLowerDown=1)))
        chin = head.front(0, -0.97 * identity.chin)[1]  # just above the lowest point of the face
        assert Mouth(head).outer_lower.min() > chin + 0.05
