"""The pose camera and picture against the released one's figures, and the aligned faces."""

import cv2
import numpy as np
import pytest
import skimage.data

from hellomeme.face import conditions
from hellomeme.face.conditions import EMOTION_TEMPLATE, Calibration
from hellomeme.face.crop import Crop
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.motion import FOCAL, Motion
from hellomeme.face.parts import PARTS_TEMPLATE


def rotation(pitch=0.0, yaw=0.0, roll=0.0):
    """R = Rz Ry Rx, degrees."""
    x, y, z = (
        cv2.Rodrigues(np.radians(np.eye(3)[i] * angle))[0] for i, angle in enumerate((pitch, yaw, roll))
    )
    return z @ y @ x


STRAIGHT = np.eye(3)


def motion(turn=STRAIGHT, t=(0.0, 0.0, -5.0)):
    scale = FOCAL / -t[2]
    origin = 256 + np.array([t[0], -t[1]]) * scale / 0.05
    return Motion(
        np.zeros((1, 51), np.float32),
        np.asarray(turn)[None],
        origin[None],
        np.array([scale]),
        np.ones(1, bool),
    )


LEVEL = [(207.71, 304.29), (207.71, 207.71), (304.29, 207.71), (304.29, 304.29)]


@pytest.mark.parametrize(
    "turn, corners, digits",
    [  # measured on the released camera
        (rotation(), LEVEL, 0.01),
        (rotation(pitch=20), [(210.8, 298.5), (204.2, 207.3), (307.8, 207.3), (301.2, 298.5)], 0.06),
        (rotation(yaw=20), [(207.3, 307.8), (207.3, 204.2), (298.5, 210.8), (298.5, 301.2)], 0.06),
        (rotation(roll=20), [(227.1, 317.9), (194.1, 227.1), (284.9, 194.1), (317.9, 284.9)], 0.06),
    ],
)
def test_pose_camera(turn, corners, digits):
    np.testing.assert_allclose(conditions.pose_corners(motion(turn))[0], corners, atol=digits)


def test_translation():
    np.testing.assert_allclose(motion(t=(0.02, -0.01, -4.0)).translation, [(0.02, -0.01, -4.0)], atol=1e-12)
    moved = conditions.pose_corners(motion(t=(0.02, 0, -5.0)))[0]
    np.testing.assert_allclose(moved - LEVEL, np.tile([19.3, 0], (4, 1)), atol=0.05)
    moved = conditions.pose_corners(motion(t=(0, 0.02, -5.0)))[0]
    np.testing.assert_allclose(moved - LEVEL, np.tile([0, -19.3], (4, 1)), atol=0.05)
    larger = conditions.pose_corners(motion(t=(0, 0, -2.5)))[0]
    np.testing.assert_allclose(larger - 256, 2 * (np.array(LEVEL) - 256), atol=0.02)


def test_pose_picture():
    picture = conditions.pose_picture(motion())
    assert picture.shape == (1, 512, 512, 3) and picture.dtype == np.uint8
    picture = picture[0]
    colours = {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}
    assert colours == {(0, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 0), (255, 0, 255)}  # not antialiased
    assert picture[256, 208].tolist() == [0, 255, 0] and picture[208, 256].tolist() == [0, 0, 255]
    assert picture[256, 304].tolist() == [255, 0, 0] and picture[304, 256].tolist() == [255, 0, 255]
    assert picture[256, 256].tolist() == [0, 0, 0]
    for line in (picture[256, :256], picture[256, 257:], picture[:256, 256], picture[257:, 256]):
        # OpenCV's thickness of 15, which fills a pixel more on either side
        assert 15 <= line.any(-1).sum() <= 17
    # where edges meet, the one drawn later lies on top
    for row, column, colour in [
        (208, 208, (0, 0, 255)),
        (208, 304, (255, 0, 0)),
        (304, 304, (255, 0, 255)),
        (304, 208, (255, 0, 255)),
    ]:
        assert picture[row, column].tolist() == list(colour)


def test_a_very_near_face_is_still_drawn():
    for turn in (rotation(), rotation(yaw=60, pitch=40)):
        picture = conditions.pose_picture(motion(turn, (0, 0, -0.5)))
        assert picture.shape == (1, 512, 512, 3)
        assert np.isfinite(conditions.pose_corners(motion(turn, (0, 0, -0.5)))).all()


def test_condition_tensor():
    whole = conditions.condition_tensor(motion(rotation(10, 20, 5)))
    assert whole.shape == (3, 1, 512, 512) and str(whole.dtype) == "torch.float32"
    assert whole.min() == -1 and whole.max() == 1
    picture = conditions.pose_picture(motion(rotation(10, 20, 5)))[0]
    np.testing.assert_array_equal(whole[:, 0].numpy(), picture.transpose(2, 0, 1) / np.float32(127.5) - 1)
    small = conditions.condition_tensor(motion(rotation(10, 20, 5)), 32)
    assert small.shape == (3, 1, 32, 32)
    means = whole[:, 0].reshape(3, 32, 16, 32, 16).mean((2, 4))
    np.testing.assert_allclose(small[:, 0], means, atol=0.51 / 127.5)  # rounded to bytes


def test_calibration():
    turned = rotation(pitch=9, yaw=20)
    level = conditions.pose_corners(motion(rotation(yaw=20)))
    np.testing.assert_allclose(conditions.pose_corners(motion(turned), Calibration(tilt=9)), level, atol=1e-6)
    shifted = conditions.pose_corners(motion(), Calibration(origin=(0.1, 0.2)))[0]
    np.testing.assert_allclose(shifted - LEVEL, np.tile([4.83, -9.66], (4, 1)), atol=0.02)


@pytest.fixture(scope="module")
def astronaut():
    frame = skimage.data.astronaut()
    with FaceAnalyzer() as analyzer:
        face = analyzer.face(frame)
    crop = Crop.of([face], frame.shape)
    return crop.apply(frame, 512), crop.face(face, 512), Motion.from_faces([face], crop)


def test_the_square_sits_on_the_face(astronaut):
    _, face, driver = astronaut
    corners = conditions.pose_corners(driver)[0]
    # the irises lie inside the square, the chin below it
    for index in (468, 473):
        assert cv2.pointPolygonTest(corners.astype(np.float32), face.landmarks[index].tolist(), False) > 0
    assert corners[:, 1].max() < face.landmarks[152, 1]
    left, right = corners[1], corners[2]  # the top edge is as level as the eyes
    eyes = face.landmarks[473] - face.landmarks[468]
    slope = (right - left)[1] / (right - left)[0]
    assert slope == pytest.approx(eyes[1] / eyes[0], abs=0.04) and slope > 0.01


def test_similarity():
    points = np.random.default_rng(0).normal(size=(7, 2)) * 50
    angle, scale, shift = 0.7, 1.8, np.array([30, -12])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = conditions.similarity(points, points @ turn.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack([turn, shift]), atol=1e-9)
    mirrored = conditions.similarity(points, points * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) > 0  # a similarity turns, it never mirrors


@pytest.mark.parametrize("template, size", [(EMOTION_TEMPLATE, 224), (PARTS_TEMPLATE, 512)])
def test_alignment(astronaut, template, size):
    frame, face, _ = astronaut
    matrix = conditions.to_template(face, template)
    landmarks = face.points(template.points) @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(landmarks - size * np.array(list(template.points.values()))).mean() < 0.03 * size
    aligned = conditions.align(frame, face, template)
    assert aligned.shape == (size, size, 3) and aligned.dtype == np.uint8
    turned = cv2.getRotationMatrix2D((256, 256), 25, 0.8)  # whatever the face does in the frame, it is undone
    moved = cv2.warpAffine(frame, turned, (512, 512), flags=cv2.INTER_CUBIC)
    points = (face.landmarks @ turned[:, :2].T + turned[:, 2]).astype(np.float32)
    again = conditions.align(
        moved,
        type(face)(
            points, *[getattr(face, name) for name in ("blendshapes", "rotation", "origin", "scale", "box")]
        ),
        template,
    )
    middle = slice(size // 3, 2 * size // 3)
    assert np.abs(again[middle, middle].astype(int) - aligned[middle, middle]).mean() < 4


def test_shrinking_alignment_does_not_skip_pixels():
    stripes = np.zeros((800, 800, 3), np.uint8)
    stripes[:, ::2] = 255
    small = conditions.warp(stripes, np.array([[0.2, 0, 3.0], [0, 0.2, 0]]), 140)
    assert np.abs(small[10:-10, 10:-10].astype(int) - 127).max() < 30  # unshrunk: 0 and 255
    ramp = np.repeat(np.tile(np.linspace(0, 255, 800), (800, 1))[..., None], 3, 2).astype(np.uint8)
    small = conditions.warp(ramp, np.array([[0.2, 0, 3.0], [0, 0.2, 0]]), 140)
    assert np.abs(small[70, 10:-10, 0] - (np.arange(10, 130) - 3.0) * 5 * 255 / 800).max() < 2


def test_emotion_input(astronaut):
    frame, face, _ = astronaut
    picture = conditions.emotion_input(frame, face)
    assert picture.shape == (3, 224, 224) and picture.dtype == np.float32
    assert -1 <= picture.min() < -0.9 and 0.8 < picture.max() <= 1
    aligned = conditions.align(frame, face, EMOTION_TEMPLATE)
    np.testing.assert_allclose(picture[0], aligned[..., 0] / 127.5 - 1, atol=1e-6)
