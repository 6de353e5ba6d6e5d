"""A driver's motion and how much of it a reference takes over."""

import io
import pickle
from dataclasses import fields, replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from hellomeme.errors import HelloMemeError, NoFaceError
from hellomeme.face import motion as motion_module
from hellomeme.face.crop import Crop
from hellomeme.face.detect import Face
from hellomeme.face.motion import FOCAL, Motion


def turn(*degrees):
    return cv2.Rodrigues(np.radians(np.array(degrees, float)))[0]


def made(frames, seed, emotion=True):
    rng = np.random.default_rng(seed)
    turns = np.stack([turn(*rng.uniform(-40, 40, 3)) for _ in range(frames)])
    return Motion(
        rng.random((frames, 51), np.float32),
        turns,
        rng.uniform(200, 300, (frames, 2)),
        rng.uniform(45, 65, frames),
        np.ones(frames, bool),
        rng.normal(size=(frames, 548)).astype(np.float32) if emotion else None,
        Fraction(30000, 1001),
        rng.normal(size=(frames, 3, 1024)).astype(np.float32) if emotion else None,
    )


@pytest.fixture
def reference():
    return made(1, 0)


@pytest.fixture
def driver():
    return made(5, 1)


def angle(a, b):
    """Degrees between two rotations."""
    return np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1)))


def test_strength_0_is_the_references_own_code(reference, driver):
    result = driver.onto(reference, expression=0, head=0)
    assert len(result) == 5
    for frame in range(5):
        np.testing.assert_array_equal(result.blendshapes[frame], reference.blendshapes[0])
        np.testing.assert_array_equal(result.emotion[frame], reference.emotion[0])
        np.testing.assert_array_equal(result.face_parts[frame], reference.face_parts[0])
        np.testing.assert_allclose(result.rotation[frame], reference.rotation[0], atol=1e-12)
        np.testing.assert_allclose(result.origin[frame], reference.origin[0], atol=1e-9)
        assert result.scale[frame] == pytest.approx(reference.scale[0])


def test_strength_1_is_the_drivers(reference, driver):
    result = driver.onto(reference, expression=1, head=1)
    np.testing.assert_array_equal(result.blendshapes, driver.blendshapes)
    np.testing.assert_array_equal(result.emotion, driver.emotion)
    np.testing.assert_array_equal(result.face_parts, driver.face_parts)
    np.testing.assert_allclose(result.rotation, driver.rotation, atol=1e-9)
    np.testing.assert_allclose(result.origin, np.tile(reference.origin, (5, 1)), atol=1e-9)  # place stays
    np.testing.assert_allclose(result.scale, np.tile(reference.scale, 5))


@pytest.mark.parametrize("strength", [0.5, 1.5, 2.0])
def test_strengths_between_and_above(reference, driver, strength):
    result = driver.onto(reference, expression=strength)
    code = reference.blendshapes + strength * (driver.blendshapes - reference.blendshapes)
    np.testing.assert_allclose(result.blendshapes, np.clip(code, 0, 1), atol=1e-6)
    assert result.blendshapes.dtype == result.emotion.dtype == np.float32
    emotion = reference.emotion + strength * (driver.emotion - reference.emotion)
    np.testing.assert_allclose(result.emotion, emotion, atol=1e-5)
    parts = reference.face_parts + strength * (driver.face_parts - reference.face_parts)
    np.testing.assert_allclose(result.face_parts, parts, atol=1e-5)
    if strength > 1:
        assert np.abs(code - np.clip(code, 0, 1)).max() > 0.1  # the clip had something to do


@pytest.mark.parametrize("strength", [0.25, 0.5, 1.5])
def test_head_strength_goes_along_the_shortest_turn(reference, driver, strength):
    result = driver.onto(reference, head=strength)
    for frame in range(5):
        whole = angle(reference.rotation[0], driver.rotation[frame])
        gone = angle(reference.rotation[0], result.rotation[frame])
        left = angle(result.rotation[frame], driver.rotation[frame])
        assert gone == pytest.approx(strength * whole, abs=1e-3)
        assert left == pytest.approx(abs(1 - strength) * whole, abs=1e-3)
        assert np.linalg.det(result.rotation[frame]) == pytest.approx(1)
    # The expression is a matter of its own
    np.testing.assert_array_equal(result.blendshapes, driver.blendshapes)


def test_translation(reference, driver):
    """t = t_ref + ratio (t_driver - t_driver,first), in the camera's space: also nearer and farther."""
    for ratio in (0.3, 1.0):
        result = driver.onto(reference, translation=ratio)
        expected = reference.translation + ratio * (driver.translation - driver.translation[:1])
        np.testing.assert_allclose(result.translation, expected, atol=1e-9)
    same = driver.onto(driver_first := driver.at([0]), translation=1)
    np.testing.assert_allclose(same.origin, driver.origin, atol=1e-9)
    np.testing.assert_allclose(same.scale, driver.scale, atol=1e-9)
    assert len(driver_first) == 1
    picture = made(1, 2).onto(reference, translation=1)  # a picture is its own first frame
    np.testing.assert_allclose(picture.origin, reference.origin, atol=1e-9)


def test_a_head_never_passes_the_camera(reference, driver):
    rushing = replace(driver, scale=np.array([20.0, 60, 200, 1000, 5000]))
    result = rushing.onto(reference, translation=1)
    assert (result.scale > 0).all() and np.isfinite(result.origin).all()


def test_emotion_codes_of_both_or_of_none(reference, driver):
    assert made(5, 1, emotion=False).onto(made(1, 0, emotion=False)).emotion is None
    for a, b in ((driver, made(1, 0, emotion=False)), (made(5, 1, emotion=False), reference)):
        with pytest.raises(HelloMemeError) as caught:
            a.onto(b)
        assert (
            str(caught.value)
            == "Emotion codes and embeddings of face parts are needed of both the reference and the driver, "
            "or of neither."
        )


def face(x, smile):
    return Face(
        np.full((478, 2), x, np.float32),
        np.full(51, smile, np.float32),
        turn(0, smile * 10, 0),
        np.array([x, 100.0]),
        30.0,
        np.array([x - 40, 60, x + 40, 140], float),
    )


def test_from_faces():
    motion = Motion.from_faces([face(100, 0.1), face(110, 0.2)], Crop(20, 10, 256))
    assert motion.blendshapes.shape == (2, 51) and motion.rotation.shape == (2, 3, 3)
    np.testing.assert_allclose(motion.origin, [(160, 180), (180, 180)])
    np.testing.assert_allclose(motion.scale, 60)
    np.testing.assert_allclose(motion.translation[0], (-96 * 0.05 / 60, 76 * 0.05 / 60, -FOCAL / 60))
    assert motion.valid.tolist() == [True, True] and motion.emotion is None


def test_frames_without_a_face_take_the_last_known():
    faces = [None, face(100, 0.1), None, None, face(110, 0.2), None]
    motion = Motion.from_faces(faces, Crop(20, 10, 256))
    assert motion.valid.tolist() == [False, True, False, False, True, False]
    np.testing.assert_allclose(motion.blendshapes[:, 0], [0.1, 0.1, 0.1, 0.1, 0.2, 0.2], atol=1e-6)
    for empty in ([None, None], []):
        with pytest.raises(NoFaceError, match="No face in any frame of the driver"):
            Motion.from_faces(empty, Crop(20, 10, 256))


@pytest.mark.parametrize("emotion", [True, False])
def test_a_file_brings_back_the_same(tmp_path, emotion):
    motion = made(7, 3, emotion)
    motion.save(tmp_path / "nod.npz")
    again = Motion.load(tmp_path / "nod.npz")
    for field in fields(Motion):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(motion, field.name))
    assert [path.name for path in tmp_path.iterdir()] == ["nod.npz"]
    motion.save(tmp_path / "nod")  # the name is kept as given
    assert len(Motion.load(str(tmp_path / "nod"))) == 7


@pytest.mark.parametrize("rate", [(1, 86_400), (1, 1001), (2, 7200), (120_000, 1001), (1000, 1)])
def test_rates_of_slow_slide_shows_spread_frames_and_fast_cameras(tmp_path, rate):
    replace(made(2, 3), rate=Fraction(*rate)).save(tmp_path / "nod.npz")
    assert Motion.load(tmp_path / "nod.npz").rate == Fraction(*rate)


def test_saving_where_nothing_can_be_saved(tmp_path):
    with pytest.raises(HelloMemeError) as caught:
        made(1, 0).save(path := tmp_path / "none" / "nod.npz")
    assert str(caught.value) == f"The motion file {path} could not be written: No such file or directory."
    (tmp_path / "folder").mkdir()
    with pytest.raises(HelloMemeError):
        made(1, 0).save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


class Evil:
    """Would be called if a file were ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def changed(**arrays):
    good = {**vars(made(4, 3)), "rate": np.array([30000, 1001])}
    return {"format": "hellomeme motion 1", **good, **arrays}


def bad_files(folder):
    made(4, 3).save(folder / "good.npz")
    good = (folder / "good.npz").read_bytes()
    arrays = {
        "another archive": {"a": np.zeros(3)},
        "another format": changed(format="hellomeme motion 99"),
        "no coefficients": {name: value for name, value in changed().items() if name != "blendshapes"},
        "wrong count": changed(scale=np.ones(3)),
        "wrong width": changed(blendshapes=np.zeros((4, 52), np.float32)),
        "wrong code": changed(emotion=np.zeros((4, 512), np.float32)),
        "wrong embeddings": changed(face_parts=np.zeros((4, 3, 768), np.float32)),
        "not numbers": changed(scale=np.array(["a"] * 4)),
        "NaN": changed(origin=np.full((4, 2), np.nan)),
        "no rotations": changed(rotation=np.ones((4, 3, 3))),
        "mirrors": changed(rotation=np.tile(np.diag([1.0, 1, -1]), (4, 1, 1))),
        "behind the camera": changed(scale=-np.ones(4)),
        "out of range": changed(blendshapes=np.full((4, 51), 7, np.float32)),
        "no time": changed(rate=np.array([25, 0])),
        "a frame in 30 years": changed(rate=np.array([1, 10**9])),
        "a billion frames a second": changed(rate=np.array([10**9, 1])),
        "no face at all": changed(valid=np.zeros(4, bool)),
        "faces by halves": changed(valid=np.full(4, 0.5)),
        "no frames": {
            **{n: v[:0] for n, v in changed().items() if n != "format"},
            "format": "hellomeme motion 1",
        },
        "a single number": changed(blendshapes=np.float32(0)),
    }
    files = {
        "empty": b"",
        "text": b"not a motion",
        "cut": good[: len(good) // 2],
        "bytes changed": good[:300] + bytes(100) + good[400:],
        "pickle": pickle.dumps(Evil()),
    }
    for name, content in arrays.items():
        buffer = io.BytesIO()
        np.savez(buffer, **content)
        files[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, **changed(blendshapes=np.array([Evil()], object)))
    files["pickle inside"] = buffer.getvalue()
    return files


def test_a_damaged_or_foreign_file_gets_one_sentence(tmp_path):
    for case, content in bad_files(tmp_path).items():
        path = tmp_path / "driver.npz"
        path.write_bytes(content)
        with pytest.raises(HelloMemeError) as caught:
            Motion.load(path)
        assert str(caught.value) == (
            "driver.npz is not a motion file of HelloMeme or is damaged: make it again from the driver."
        ), case
    with pytest.raises(HelloMemeError) as caught:
        Motion.load(tmp_path / "none.npz")
    assert str(caught.value) == f"There is no motion file at {tmp_path / 'none.npz'}: check the path."


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    made(4, 3).save(tmp_path / "nod.npz")
    assert len(Motion.load(tmp_path / "nod.npz")) == 4
    monkeypatch.setattr(motion_module, "MAX_FILE_SIZE", 10_000)
    with pytest.raises(HelloMemeError, match="4 frames are too many for a motion file with these codes"):
        made(4, 3).save(tmp_path / "long.npz")
    assert not (tmp_path / "long.npz").exists()
    with pytest.raises(HelloMemeError, match="nod.npz is not a motion file"):
        Motion.load(tmp_path / "nod.npz")
