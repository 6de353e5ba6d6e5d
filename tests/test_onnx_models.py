"""The released face models, by small ONNX files with their interface: the real ones are not needed."""

import cv2
import numpy as np
import pytest

import app

pytest.importorskip("onnxruntime", reason="the extra for the released face models is not installed")
pytest.importorskip("onnx", reason="the tests make small ONNX files with it")

from onnx_faces import ANGLES, DISTANCE, placed, write_face_models
from PIL import Image
from test_clip import driver  # noqa: F401  (a fixture)

from hellomeme.cli import main
from hellomeme.errors import HelloMemeError, NoFaceError
from hellomeme.face import onnx_models
from hellomeme.face.conditions import EMOTION_TEMPLATE, to_template
from hellomeme.face.crop import Crop
from hellomeme.face.landmarks import RELEASED
from hellomeme.face.motion import Motion
from hellomeme.face.onnx_models import ReleasedFaceAnalyzer, crop_matrix, eye_angle, face_analyzer
from hellomeme.face.rotation import to_angles
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import face_basis, load
from page import state as states
from page.state import State


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_face_models(tmp_path_factory.mktemp("models") / "faces")


@pytest.fixture(scope="module")
def analyzer(models):
    return ReleasedFaceAnalyzer(models)


def frame_with(*faces, size=(400, 320)):
    """A black picture with a red and a blue blob for each pair of eyes."""
    frame = np.zeros((*size[::-1], 3), np.uint8)
    for left, right in faces:
        radius = 0.15 * np.hypot(*np.subtract(right, left))
        for centre, colour in ((left, (255, 0, 0)), (right, (0, 0, 255))):
            shifted = [round(16 * value) for value in centre]
            cv2.circle(frame, shifted, round(16 * radius), colour, -1, cv2.LINE_AA, 4)
    return frame


EYES = (150.0, 130.0), (230.0, 160.0)  # not level: the face leans


def test_the_face_is_where_the_models_see_it(analyzer):
    (face,) = analyzer.faces(frame_with(EYES))
    points = placed(*EYES)
    assert face.landmarks.shape == (222, 2) and face.landmark_set is RELEASED
    np.testing.assert_allclose(face.landmarks, points, atol=0.5)
    np.testing.assert_allclose(face.box, [*points.min(0), *points.max(0)], atol=0.5)
    # The pose: angles in radians, and the origin, which the model has between the eyes, carried to the frame
    np.testing.assert_allclose(np.radians(to_angles(face.rotation)), ANGLES, atol=1e-6)
    np.testing.assert_allclose(face.origin, np.mean(EYES, 0), atol=0.5)
    zoom = (1 - 0.35) * 224 / np.ptp(points, axis=0).max()
    assert face.scale == pytest.approx(241.43 / DISTANCE / zoom, rel=0.01)
    # The coefficients: the eyes are level, and the face has its margin
    left, right = face.blendshapes[:2], face.blendshapes[2:4]
    assert left[1] == pytest.approx(right[1], abs=0.003)
    level = placed((0, 0), (1, 0))
    assert right[0] - left[0] == pytest.approx((1 - 0.15) / np.ptp(level, axis=0).max(), rel=0.01)
    assert face.blendshapes.dtype == np.float32 and face.blendshapes[4] == 1.0  # held at 1


def test_the_rest_of_the_package_takes_the_face(analyzer):
    frame = frame_with(EYES)
    face = analyzer.face(frame)
    crop = Crop.of([face], frame.shape)
    motion = Motion.from_faces([face], crop)
    offset = (motion.origin[0] - crop.face(face, 512).origin, motion.translation[0, 2])
    np.testing.assert_allclose(offset[0], 0, atol=1e-9)
    matrix = to_template(face, EMOTION_TEMPLATE)
    points = face.points(EMOTION_TEMPLATE.points) @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(points / 224 - np.array(list(EMOTION_TEMPLATE.points.values()))).max() < 0.15
    assert eye_angle(crop.face(face, 512).landmarks) == pytest.approx(np.arctan2(30, 80), abs=0.01)


def test_several_faces_and_small_ones(analyzer):
    both = ((50.0, 160.0), (130.0, 160.0)), ((430.0, 150.0), (530.0, 150.0))
    faces = analyzer.faces(frame_with(*both, size=(600, 320)))
    assert [face.extent > 100 for face in faces] == [True, True]
    for face, eyes in zip(faces, reversed(both), strict=True):  # the largest first
        np.testing.assert_allclose(face.landmarks, placed(*eyes), atol=1)
    upright = (150.0, 900.0), (230.0, 890.0)
    (face,) = analyzer.faces(frame_with(upright, size=(500, 1100)))
    np.testing.assert_allclose(face.landmarks, placed(*upright), atol=1)
    small = (900.0, 700.0), (940.0, 700.0)
    (face,) = analyzer.faces(frame_with(small, size=(1200, 1000)))
    np.testing.assert_allclose(face.landmarks, placed(*small), atol=1)
    with pytest.raises(HelloMemeError, match="Face 3 was asked for, but there"):
        analyzer.face(frame_with(EYES), index=3)


def test_pictures_without_a_face(analyzer):
    blank = np.zeros((200, 200, 3), np.uint8)
    assert analyzer.faces(blank) == []
    green = blank.copy()
    cv2.circle(green, (100, 100), 40, (0, 255, 0), -1)  # detected, but the landmark model finds no face in it
    assert analyzer._boxes(green, onnx_models.Window(0, 0, 200)).size and analyzer.faces(green) == []
    with pytest.raises(NoFaceError, match="No face found in the reference picture"):
        analyzer.face(green, "reference")
    with pytest.raises(HelloMemeError, match="H x W x 3"):
        analyzer.faces(np.zeros((20, 20), np.uint8))


def test_a_crop_has_the_points_in_its_middle():
    points = np.array([(10.0, 20), (50, 60), (40, 20), (20, 60)])
    matrix = crop_matrix(points, 100, 0.2, np.pi / 4)
    inside = points @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose((inside.min(0) + inside.max(0)) / 2, 50)
    assert np.ptp(inside, axis=0).max() == pytest.approx(80)
    assert inside[0, 1] == pytest.approx(inside[1, 1])  # the line that descends by 45 degrees is level


def test_closed_models_load_again(models):
    with ReleasedFaceAnalyzer(models) as analyzer:
        first = analyzer.faces(frame_with(EYES))[0]
        analyzer.close()
        assert not analyzer._sessions
        np.testing.assert_array_equal(analyzer.faces(frame_with(EYES))[0].landmarks, first.landmarks)
    assert not analyzer._sessions


def test_the_command_line_reads_a_motion_with_them(models, tmp_path, capfd):
    from clips import H264, ffmpeg

    for k in range(3):
        eyes = np.array(EYES) + (6 * k, 0)
        Image.fromarray(frame_with(tuple(map(tuple, eyes)))).save(tmp_path / f"{k}.png")
    ffmpeg("-framerate", "3", "-i", tmp_path / "%d.png", *H264, tmp_path / "driver.mp4")
    command = ["motion", str(tmp_path / "driver.mp4"), str(tmp_path / "out.npz")]
    assert main.main([*command, "--release", "v1", "--expression-type", "drive_coeff"]) == 2  # no network
    assert "songkey/IP-Adapter is not on this computer" in capfd.readouterr().err
    status = main.main([*command, "--face-models", str(models)])
    assert status == 0, capfd.readouterr().err
    motion = Motion.load(tmp_path / "out.npz")
    assert len(motion) == 3 and motion.valid.all()
    np.testing.assert_allclose(np.radians(to_angles(motion.rotation)), [ANGLES] * 3, atol=1e-5)


def test_a_batch_knows_what_read_its_faces(models, model_folder, tmp_path, capfd):
    Image.fromarray(frame_with(EYES)).save(tmp_path / "a.png")
    (tmp_path / "jobs.csv").write_text("reference,driver,output\na.png,a.png,b.png\n")
    command = ["batch", str(tmp_path / "jobs.csv"), str(tmp_path / "out"), "--release", str(model_folder)]
    command += ["--device", "cpu", "--steps", "1"]
    for _ in range(2):  # the second time it is done already
        assert main.main([*command, "--face-models", str(models)]) == 0, capfd.readouterr().err
    assert main.main(command) == 1
    assert "was not made from these pictures with this release, these settings" in capfd.readouterr().err


def test_a_picture_is_drawn_from_their_signals(model_folder, analyzer):
    pipeline, encoders, release = load(str(model_folder), device="cpu")
    reenactor = Reenactor(pipeline, release, encoders, analyzer)
    reenactor.set_reference(frame_with(EYES))
    result = reenactor.image(frame_with(((140.0, 150.0), (240.0, 150.0))))
    assert result.picture.size == (128, 128) and np.asarray(result.pose).any()


def test_models_that_draw_by_mediapipes_landmarks_refuse_them(analyzer):
    pipeline, encoders, release = load("demo", device="cpu")
    reenactor = Reenactor(pipeline, release, encoders, analyzer, face_basis(release))
    with pytest.raises(HelloMemeError, match="draws faces by MediaPipe's landmarks: choose the face models"):
        reenactor.set_reference(frame_with(EYES))


def test_the_page_is_started_with_them(models, model_folder):
    state = State(str(model_folder), device="cpu", face_models=str(models))
    assert state.reenactor(str(model_folder)).analyzer is state.analyzer
    assert isinstance(state.analyzer, ReleasedFaceAnalyzer) and state.analyzer.folder == models


def test_the_page_tells_at_the_start_what_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(states, "STATE", states.STATE)
    with pytest.raises(SystemExit) as ended:
        app.main(["--face-models", str(tmp_path)])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"app.py: The face models in {tmp_path} lack hello_face_")


def refusal(*arguments):
    with pytest.raises(HelloMemeError) as caught:
        analyzer = face_analyzer(*arguments)
        analyzer.faces(frame_with(EYES))
    return str(caught.value)


def test_sentences(models, tmp_path, monkeypatch):
    assert f"The face models in {tmp_path} lack hello_face_landmark.onnx" in refusal(str(tmp_path))
    assert "songkey/hello_group_facemodel is not on this computer" in refusal("release")
    monkeypatch.setattr(onnx_models, "fetch", lambda *_, **__: models)
    assert "hello_face_landmark.onnx is another file than the one that is known" in refusal("release")
    other = write_face_models(tmp_path / "other")
    wrong = {"hello_3dmm.onnx": "hello_arkit_blendshape.onnx", "hello_face_det.onnx": "hello_3dmm.onnx"}
    for name, source in wrong.items():
        (other / name).write_bytes((models / source).read_bytes())
        assert f"{other / name} is damaged or another model" in refusal(str(other))
        (other / name).write_bytes((models / name).read_bytes())
    (other / "hello_face_landmark.onnx").write_bytes(b"no model")
    assert "hello_face_landmark.onnx is damaged or another model than its name says" in refusal(str(other))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "need a package more: pip install onnxruntime" in refusal(str(models))
