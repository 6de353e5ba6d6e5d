"""Embeddings of the eyes and the mouth: where the parts are cut out, and how they reach the control nets from
pictures, clips and motion files."""

import dataclasses
import tracemalloc
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from test_clip import ColourAnalyzer, driver, pictures  # noqa: F401  (a fixture)
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from hellomeme.errors import HelloMemeError, NoMemoryError
from hellomeme.expression import ExpressionEncoders, Reading
from hellomeme.face.detect import Face
from hellomeme.face.landmarks import MEDIAPIPE, RELEASED
from hellomeme.face.motion import Motion
from hellomeme.face.parts import PARTS_TEMPLATE, PartBoxes, clip_input, part_pictures, part_squares
from hellomeme.face.track import analyse
from hellomeme.io.ffmpeg import read_frames
from hellomeme.pipeline import Conditions
from hellomeme.reenactor import Reenactor
from hellomeme.releases.load import load
from hellomeme.settings import ClipSettings, Settings
from hellomeme.video import read_motion

QUICK = Settings(steps=1, guidance=1)
# Half extents of the parts in the frame below, px, and their centres. The mouth is wider than high.
CENTRES = np.array([(200.0, 190), (320, 190), (260, 360)])
HALVES = np.array([(30.0, 20), (30, 20), (45, 15)])


def face_with(landmarks):
    return Face(
        landmarks.astype(np.float32), np.zeros(51, np.float32), np.eye(3), np.zeros(2), 50.0, np.zeros(4)
    )


def drawn_face(open_mouth=0.0, landmark_set=MEDIAPIPE, count=478):
    """A face that lies on the template already, with each part's landmarks on an ellipse."""
    landmarks = np.full((count, 2), 256.0)
    for name, point in PARTS_TEMPLATE.points.items():
        landmarks[landmark_set.points[name]] = 512 * np.array(point)
    corners = set(landmark_set.points.values())
    halves = HALVES + [(0, 0), (0, 0), (0, open_mouth)]
    for indices, centre, half in zip(landmark_set.parts, CENTRES, halves, strict=True):
        for k, index in enumerate(index for index in indices if index not in corners):
            angle = k * np.pi / 2
            landmarks[index] = centre + half * [np.cos(angle), np.sin(angle)]
    return dataclasses.replace(face_with(landmarks), landmark_set=landmark_set)


def extent(*faces):
    """Low and high corners of each part over all faces, (3, 2) each."""
    parts = [[face.landmarks[list(indices)] for face in faces] for indices in faces[0].landmark_set.parts]
    return np.array([np.min(part, (0, 1)) for part in parts]), np.array(
        [np.max(part, (0, 1)) for part in parts]
    )


def ramps():
    """A frame whose red is x / 2 and whose green is y / 2."""
    x, y = np.meshgrid(np.arange(512), np.arange(512))
    return np.stack([x / 2, y / 2, np.zeros((512, 512))], 2).astype(np.uint8)


@pytest.mark.parametrize(("landmark_set", "count"), [(MEDIAPIPE, 478), (RELEASED, 222)])
def test_a_part_is_cut_by_one_square_out_of_the_whole_clip(landmark_set, count):
    shut, wide = (drawn_face(mouth, landmark_set, count) for mouth in (0, 60))
    boxes = [PartBoxes.of(face) for face in (shut, wide)]
    np.testing.assert_allclose(boxes[0].matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-3)
    squares = part_squares(boxes)
    low, high = extent(shut, wide)
    np.testing.assert_allclose(squares[:, 2], 1.2 * (high - low).max(1), rtol=1e-4)
    np.testing.assert_allclose(squares[:, :2] + squares[:, 2:] / 2, (low + high) / 2, atol=0.1)
    alone = part_squares(boxes[:1])[:, 2]
    assert squares[2, 2] > alone[2] + 10 and squares[:2, 2] == pytest.approx(alone[:2], abs=0.1)
    cut = part_pictures(ramps(), boxes[0].matrix, squares).astype(float)
    assert cut.shape == (3, 256, 256, 3)
    for picture, (left, top, side) in zip(cut, squares, strict=True):
        for pixel in (3, 128, 252):
            expected = np.array([left, top]) + side * pixel / 256
            np.testing.assert_allclose(2 * picture[pixel, pixel, :2], expected, atol=2)


def test_parts_of_a_turned_and_smaller_face_are_the_same():
    face, frame = (
        drawn_face(),
        cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8), (0, 0), 6),
    )
    turned = cv2.getRotationMatrix2D((256, 256), 20, 0.8)
    moved = face_with(face.landmarks @ turned[:, :2].T + turned[:, 2])
    first, second = (
        part_pictures(picture, box.matrix, part_squares([box]))
        for picture, box in (
            (frame, PartBoxes.of(face)),
            (cv2.warpAffine(frame, turned, (512, 512), flags=cv2.INTER_CUBIC), PartBoxes.of(moved)),
        )
    )
    assert np.abs(first.astype(int) - second)[:, 8:-8, 8:-8].mean() < 1.5 < first.std()


def test_parts_are_blurred_over_five_pixels():
    """By OpenCV's Gaussian of that size: weights 1, 4, 6, 4, 1 of 16."""
    frame, square = np.zeros((512, 512, 3), np.uint8), np.array([[100.0, 80, 256]])  # a px of it is a px
    frame[200, 220] = 255
    (part,) = part_pictures(frame, np.eye(2, 3), square)
    weights = np.array([1, 4, 6, 4, 1]) / 16
    np.testing.assert_allclose(part[118:123, 118:123, 0], 255 * np.outer(weights, weights), atol=1.5)
    part[118:123, 118:123] = 0
    assert not part.any()


def test_clip_input():
    grey = clip_input(np.full((2, 256, 256, 3), 128, np.uint8))
    assert grey.shape == (2, 3, 224, 224) and grey.dtype == np.float32
    mean, spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    np.testing.assert_allclose(
        grey[0, :, 100, 100], (128 / 255 - np.array(mean)) / np.array(spread), atol=1e-5
    )


def image_encoder():
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            patch_size=56,
            projection_dim=1024,
        )
    ).eval()


@pytest.fixture(scope="module")
def reenactor(model_folder):
    """The tiny model, whose control nets take ARKit coefficients, with an image encoder."""
    pipeline, _, release = load(str(model_folder), device="cpu")
    torch.manual_seed(1)
    for net in pipeline.controls:
        for parameter in net.face_proj.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    encoders = ExpressionEncoders(face_parts=image_encoder())
    reenactor = Reenactor(pipeline, release, encoders, ColourAnalyzer())
    reenactor.set_reference(frame_of(110, 3))
    return reenactor


def frame_of(red, seed):
    noise = np.random.default_rng(seed).integers(-60, 60, (96, 96, 3))
    return np.clip(np.array([red, 60, 60]) + noise, 0, 255).astype(np.uint8)


def embeddings_of(encoders, frame, face, squares=None):
    box = PartBoxes.of(face)
    squares = part_squares([box]) if squares is None else squares
    with torch.no_grad():
        inputs = torch.from_numpy(clip_input(part_pictures(frame, box.matrix, squares)))
        return encoders.face_parts(inputs).image_embeds.numpy()


def test_a_picture_is_drawn_with_the_embeddings_of_its_driver(reenactor, monkeypatch):
    received = []
    inputs = Conditions.inputs

    def listen(self, expression_type):
        received.append(self.face_parts)
        return inputs(self, expression_type)

    monkeypatch.setattr(Conditions, "inputs", listen)
    frame = frame_of(120, 7)
    guided = dataclasses.replace(QUICK, guidance=2.0)
    result = reenactor.image(frame, guided)
    expected = embeddings_of(reenactor.encoders, frame, reenactor.analyzer.face(frame))
    assert received[0].shape == (1, 1, 3, 1024) and np.abs(expected).max() > 0.1
    np.testing.assert_allclose(received[0][0, 0].numpy(), expected, atol=1e-5)
    # At strength 0 they are the reference's own, as they are for an edited face
    reenactor.image(frame, dataclasses.replace(QUICK, expression=0.0))
    own = torch.from_numpy(reenactor.reference.motion.face_parts)[None]
    torch.testing.assert_close(received[-1], own)
    reenactor.expression({"jawOpen": 0.7}, settings=QUICK)
    torch.testing.assert_close(received[-1], own)
    # They matter to the picture, and the negative half of guidance has zeros in their place
    alone = reenactor.encoders.arguments
    monkeypatch.setattr(
        reenactor.encoders, "arguments", lambda *a: {**alone(*a), "face_parts": torch.zeros(1, 1, 3, 1024)}
    )
    assert not np.array_equal(np.asarray(reenactor.image(frame, guided).picture), np.asarray(result.picture))
    sent = Conditions(torch.zeros(1, 3, 1, 8, 8), torch.zeros(1, 1, 51), own)
    assert inputs(sent, "drive_coeff")["face_parts"][1] == 0.0


def test_the_parts_of_a_clip_are_cut_in_a_second_pass(reenactor, driver, tmp_path):  # noqa: F811
    received = []
    motion, _, selection = read_motion(
        driver,
        QUICK,
        ClipSettings(frames=6),
        reenactor.analyzer,
        reenactor.release.crop_scale,
        reenactor.encoders,
        lambda *step: received.append(step),
    )
    assert motion.face_parts.shape == (6, 3, 1024) and motion.face_parts.dtype == np.float32
    assert [step for step in received if step[0] != "analysing"] == [
        ("reading eyes and mouth", k, 6) for k in range(1, 7)
    ]
    frames = list(read_frames(driver, selection.driver_rate, selection.start, selection.count))
    faces = [next(iter(reenactor.analyzer.faces(frame)), None) for frame in frames]
    squares = part_squares([PartBoxes.of(face) for face in faces if face is not None])
    for t, (frame, face) in enumerate(zip(frames, faces, strict=True)):
        if face is not None:
            expected = embeddings_of(reenactor.encoders, frame, face, squares)
            np.testing.assert_allclose(motion.face_parts[t], expected, atol=1e-5)
    # The clip and its motion file give the same result, and a file without embeddings is refused
    first = reenactor.video(driver, tmp_path / "a.mp4", QUICK, ClipSettings(frames=6))
    motion.save(tmp_path / "driver.npz")
    again = reenactor.video(tmp_path / "driver.npz", tmp_path / "b.mp4", QUICK)
    np.testing.assert_array_equal(pictures(first.path, first.rate), pictures(again.path, again.rate))
    dataclasses.replace(motion, face_parts=None).save(tmp_path / "old.npz")
    with pytest.raises(HelloMemeError) as caught:
        reenactor.video(tmp_path / "old.npz", tmp_path / "c.mp4", QUICK)
    assert str(caught.value) == (
        "The motion file holds no embeddings of eyes and mouth, which tiny needs: make it again from the "
        "driver with this release."
    )


def test_frames_without_a_face_follow_the_one_before():
    class Constant(ExpressionEncoders):
        def part_embeddings(self, pictures):
            return np.full((1, 3, 1024), pictures.mean(), np.float32)

    reading = Reading(Constant(face_parts=image_encoder()))
    shades, valid = [0, 10, 0, 40, 0], np.array([False, True, False, True, False])
    frames = [np.full((512, 512, 3), shade, np.uint8) for shade in shades]
    for frame, shown in zip(frames, valid, strict=True):
        if shown:
            reading.see(frame, drawn_face())
    motion = Motion(
        np.zeros((5, 51), np.float32), np.tile(np.eye(3), (5, 1, 1)), np.zeros((5, 2)), np.ones(5), valid
    )
    filled = reading.complete(motion, lambda: iter(frames)).face_parts[:, 0, 0]
    np.testing.assert_allclose(filled, [10, 10, 10, 40, 40], atol=0.1)


def test_no_frame_is_kept_between_the_passes(reenactor):
    """60 frames as pictures would be 36 MB."""

    def frames():
        return (np.full((448, 448, 3), (120, 60, 60), np.uint8) for _ in range(60))

    encoders = ExpressionEncoders(face_parts=image_encoder())
    encoders.part_embeddings = lambda pictures: np.zeros((1, 3, 1024), np.float32)
    tracemalloc.start()
    try:
        reading = Reading(encoders)
        motion, _ = analyse(frames(), Fraction(25), reenactor.analyzer, 2.0, see=reading.see)
        motion = reading.complete(motion, frames)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert motion.face_parts.shape == (60, 3, 1024) and peak < 12e6


def test_a_second_attempt_when_the_memory_runs_out(reenactor, monkeypatch):
    encode, calls = reenactor.encoders.face_parts.forward, []

    def full(pixels, times):
        calls.append(pixels)
        if len(calls) <= times:
            raise torch.OutOfMemoryError
        return encode(pixels)

    frame = frame_of(120, 7)
    monkeypatch.setattr(reenactor.encoders.face_parts, "forward", lambda pixels: full(pixels, 1))
    assert reenactor.portrait(frame).motion.face_parts.shape == (1, 3, 1024) and len(calls) == 2
    monkeypatch.setattr(reenactor.encoders.face_parts, "forward", lambda pixels: full(pixels, 99))
    with pytest.raises(NoMemoryError):
        reenactor.portrait(frame)
