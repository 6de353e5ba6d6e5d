"""The face drawn into the condition picture: from a face to its shape, back to landmarks, and to pixels."""

import dataclasses

import numpy as np
import pytest
import torch

from hellomeme.errors import HelloMemeError
from hellomeme.face.arkit import INDEX
from hellomeme.face.conditions import condition_pictures, condition_tensor, pose_picture
from hellomeme.face.crop import Crop
from hellomeme.face.detect import Face
from hellomeme.face.drawing import GREEN, POINTS, ROWS, FaceBasis, FaceShape, draw_face
from hellomeme.face.motion import FRAME, Motion
from hellomeme.reenactor import Reenactor
from tests.test_reenactor import ColourAnalyzer, picture

LEVEL = np.eye(3)
YAW = np.array([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])


@pytest.fixture
def basis():
    rng = np.random.default_rng(0)
    shape = (len(POINTS), 3)
    mean = rng.normal(0, 1, shape).astype("f4")
    displacements = rng.normal(0, 0.2, (51, *shape)).astype("f4")
    for eye in ("right eye", "left eye"):  # open, and far from closing
        mean[ROWS[eye][1:8], 1], mean[ROWS[eye][9:], 1] = -9, 9
    return FaceBasis(mean, displacements)


def a_face(basis, coefficients, rotation=LEVEL, shift=0.0):
    """The face of a person whose shape is the mean, moved up by `shift`, as the basis sees it."""
    motion = Motion(
        coefficients[None].astype("f4"),
        rotation[None],
        np.array([[250.0, 260]]),
        np.array([60.0]),
        np.ones(1, bool),
    )
    landmarks = np.zeros((478, 2), np.float32)
    landmarks[POINTS] = basis.landmarks(basis.mean + np.array([0, shift, 0]), motion)[0]
    box = np.array([*landmarks[POINTS].min(0), *landmarks[POINTS].max(0)])
    return Face(landmarks, coefficients.astype("f4"), rotation, motion.origin[0], 60.0, box)


def test_a_shape_from_one_picture_gives_its_landmarks_back(basis):
    smiling = np.zeros(51)
    smiling[INDEX["mouthSmileLeft"]] = 0.7
    face = a_face(basis, smiling, YAW, shift=0.3)
    motion = Motion.from_faces([face], Crop(0, 0, FRAME))
    shape = FaceShape.of(face, basis)
    np.testing.assert_allclose(shape.landmarks(motion)[0], face.landmarks[POINTS], atol=1e-3)
    # The shape is the person's, whatever the expression was: the neutral face lies where the truth has it.
    neutral = dataclasses.replace(motion, blendshapes=np.zeros((1, 51), np.float32))
    expected = basis.landmarks(basis.mean + np.array([0, 0.3, 0]), neutral)
    np.testing.assert_allclose(shape.landmarks(neutral), expected, atol=1e-3)


def test_the_shape_does_not_depend_on_where_the_face_was_found(basis):
    face = a_face(basis, np.full(51, 0.2), YAW)
    near = FaceShape.of(face.mapped(2.5, np.array([40.0, -7])), basis)
    np.testing.assert_allclose(near.neutral, FaceShape.of(face, basis).neutral, atol=1e-4)


def test_a_basis_survives_saving_and_damage_gets_a_sentence(basis, tmp_path):
    path = tmp_path / "basis.safetensors"
    basis.save(path)
    again = FaceBasis.load(path)
    basis = FaceBasis(basis.mean.T.copy().T, basis.displacements.transpose(0, 2, 1).copy().transpose(0, 2, 1))
    basis.save(path)  # whatever the order of its arrays in memory is
    assert np.array_equal(FaceBasis.load(path).displacements, again.displacements)
    np.testing.assert_allclose(again.displacements, basis.displacements, atol=1e-3)
    broken = FaceBasis(np.full_like(basis.mean, np.nan), basis.displacements)
    for spoil in (lambda: path.write_bytes(path.read_bytes()[:-9]), lambda: broken.save(path), path.unlink):
        spoil()
        with pytest.raises(HelloMemeError, match="get the model again"):
            FaceBasis.load(path)


def a_drawing():
    """Landmarks of two round eyes, as fractions: eyes open, and with the lids of the left one closed."""
    points = np.full((len(POINTS), 2), 0.5)
    for eye, x in (("right eye", 0.35), ("left eye", 0.65)):
        angles = np.linspace(np.pi, 3 * np.pi, 16, endpoint=False)
        points[ROWS[eye]] = [x, 0.4] + 0.08 * np.stack([np.cos(angles), np.sin(angles)], 1)
    points[ROWS["irises"]] = (0.35, 0.4), (0.65, 0.4)
    closed = points.copy()
    closed[ROWS["left eye"], 1] = 0.4
    return points, closed


@pytest.mark.parametrize("size", [32, 48, 512])
def test_an_eye_shows_its_iris_as_far_as_it_is_open(size):
    square = np.zeros((size, size, 3), np.uint8)
    pictures = [draw_face(square, points) for points in a_drawing()]
    assert all(picture.shape == square.shape and picture.dtype == np.uint8 for picture in pictures)
    half = size // 2
    opened, closed = (picture[:, half:].astype(int) for picture in pictures)
    assert np.array_equal(pictures[0][:, :half], pictures[1][:, :half])  # the other eye
    assert opened.sum() > 3 * closed.sum() > 0
    centre = opened[round(0.4 * size), round(0.65 * size) - half]
    assert centre[1] - centre[0] > 0.4 * (GREEN[1] - GREEN[0])  # in small pictures with some white in it


def test_a_face_beyond_the_picture_is_cut_off(basis):
    far = np.random.default_rng(0).uniform(-30, 30, (len(POINTS), 2))
    assert draw_face(np.zeros((48, 48, 3), np.uint8), far).shape == (48, 48, 3)


def test_without_a_shape_the_condition_is_the_pose_picture(basis):
    face = a_face(basis, np.zeros(51))
    motion = Motion.from_faces([face, face], Crop(0, 0, FRAME))
    assert np.array_equal(condition_pictures(motion), pose_picture(motion))
    drawn = condition_tensor(motion, 48, FaceShape.of(face, basis))
    assert drawn.shape == (3, 2, 48, 48) and drawn.dtype == torch.float32
    assert -1 <= drawn.min() and drawn.max() <= 1
    assert not torch.equal(drawn, condition_tensor(motion, 48))


def test_a_reenactor_with_a_basis_shows_the_expression_to_the_control_nets(model_folder, basis, tmp_path):
    from hellomeme.releases.load import face_basis, find, load

    assert find(str(model_folder)).face_basis is None
    folder = tmp_path / "drawn"
    folder.symlink_to(model_folder, target_is_directory=True)
    pipeline, encoders, release = load(str(folder), device="cpu")
    reenactor = Reenactor(pipeline, release, encoders, ColourAnalyzer(), basis)
    seen = []
    monkey = type(pipeline).__call__

    def listen(self, reference, condition, **arguments):
        seen.append(condition)
        return monkey(self, reference, condition, **arguments)

    type(pipeline).__call__ = listen
    try:
        assert reenactor.set_reference(picture()).shape is not None
        for jaw in (0.0, 1.0):
            result = reenactor.expression({"jawOpen": jaw})
    finally:
        type(pipeline).__call__ = monkey
    assert not torch.equal(*seen)
    assert result.pose.size == (FRAME, FRAME)
    assert face_basis(release) is None


def test_lids_meet_and_never_cross(basis):
    """Beyond a closed eye the lids stay where they meet; the other eye stays as it is."""
    mean, displacements = np.zeros_like(basis.mean), np.zeros_like(basis.displacements)
    eye = ROWS["left eye"]
    mean[eye[1:8], 1], mean[eye[9:], 1] = -0.1, 0.1
    displacements[INDEX["eyeBlinkLeft"], eye[9:], 1] = -0.5
    shape = FaceShape(FaceBasis(mean, displacements), mean)
    blinks = np.zeros((3, 51), np.float32)
    blinks[:, INDEX["eyeBlinkLeft"]] = 0, 0.2, 1
    still = {"rotation": np.stack([LEVEL] * 3), "origin": np.full((3, 2), 256.0), "scale": np.full(3, 50.0)}
    points = shape.landmarks(Motion(blinks, **still, valid=np.ones(3, bool)))
    opening = points[:, eye[1:8], 1] - points[:, eye[:8:-1], 1]  # px; y points down
    np.testing.assert_allclose(opening, np.repeat([[10.0], [5], [0]], 7, 1), atol=1e-4)
    assert np.ptp(points[:, ROWS["right eye"]], axis=0).max() == 0
