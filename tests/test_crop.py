"""The crop rule of the released adapters."""

import numpy as np
import pytest
import skimage.data

from hellomeme.errors import NoFaceError
from hellomeme.face.crop import Crop
from hellomeme.face.detect import Face, FaceAnalyzer


def face_at(x0, y0, x1, y1):
    landmarks = np.tile(np.float32([(x0 + x1) / 2, (y0 + y1) / 2]), (478, 1))
    return Face(
        landmarks,
        np.zeros(51, np.float32),
        np.eye(3),
        np.array([(x0 + x1) / 2, y0 + 10.0]),
        30.0,
        np.array([x0, y0, x1, y1], float),
    )


def test_the_rule():
    crop = Crop.of([face_at(500, 400, 600, 480)], (1000, 1200, 3))
    assert (crop.left, crop.top, crop.side) == pytest.approx((550 - 150, 440 - 150 - 0.115 * 300, 300))
    crop = Crop.of([face_at(500, 400, 580, 500)], (1000, 1200), scale=1.95)
    assert (crop.left, crop.top, crop.side) == pytest.approx((540 - 97.5, 450 - 97.5 - 0.115 * 195, 195))


def test_a_clip_has_one_crop():
    """The mean of the extents, the middle of the union."""
    faces = [face_at(500, 400, 600, 480), face_at(560, 400, 640, 520)]
    crop = Crop.of(faces, (1000, 1200))
    assert (crop.left, crop.top, crop.side) == pytest.approx((570 - 165, 460 - 165 - 0.115 * 330, 330))


@pytest.mark.parametrize(
    "box, corner",
    [
        ((0, 0, 100, 100), (0, 0)),
        ((1100, 0, 1200, 100), (900, 0)),
        ((0, 900, 100, 1000), (0, 700)),
        ((1100, 900, 1200, 1000), (900, 700)),
        ((-50, -50, 50, 50), (0, 0)),
    ],
)
def test_shifted_to_lie_inside(box, corner):
    crop = Crop.of([face_at(*box)], (1000, 1200))
    left, top = 900 if corner[0] else 0, 700 if corner[1] else 0
    raised = min(top, (box[1] + box[3]) / 2 - 150 - 34.5) if top else 0
    assert (crop.left, crop.top, crop.side) == pytest.approx((left, raised, 300))


@pytest.mark.parametrize("shape, side", [((200, 400), 199), ((400, 150), 149)])
def test_never_larger_than_the_picture(shape, side):
    crop = Crop.of([face_at(20, 20, 140, 140)], shape)
    assert crop.side == side
    assert 0 <= crop.left <= shape[1] - side and 0 <= crop.top <= shape[0] - side


def test_no_face():
    with pytest.raises(NoFaceError):
        Crop.of([], (100, 100))


def test_what_it_shows():
    frame = np.zeros((100, 120, 3), np.uint8)
    frame[20:60, 30:70] = 255
    seen = Crop(30, 20, 40).apply(frame, 64)
    assert seen.shape == (64, 64, 3) and (seen[4:-4, 4:-4] == 255).all() and seen.min() > 127
    ramp = np.tile(np.arange(120, dtype=np.uint8)[:, None], (100, 1, 3))
    ramp = np.ascontiguousarray(ramp)
    half = Crop(10.5, 7.25, 80).apply(ramp, 40)  # pixel i covers 10.5 + 2 i to 10.5 + 2 i + 2
    np.testing.assert_allclose(half[20, 2:-2, 0], 10.5 + 2 * np.arange(2, 38) + 1 - 0.5, atol=0.51)


def test_shrinking_does_not_skip_pixels():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = Crop(0, 0, 512).apply(stripes, 64)
    assert np.abs(small[:, 4:-4].astype(int) - 127).max() <= 2


def test_a_face_moves_with_its_crop():
    crop = Crop(100, 50, 256)
    face = crop.face(face_at(200, 100, 260, 180), 512)
    assert face.box.tolist() == [200, 100, 320, 260] and face.origin.tolist() == [260, 120]
    assert face.scale == 60 and face.extent == 160 and face.landmarks[0].tolist() == [260, 180]


def test_the_astronaut():
    """The figures of the released camera on this photograph (tolerances: two detections differ by 1 or 2
    %)."""
    frame = skimage.data.astronaut()
    with FaceAnalyzer() as analyzer:
        face = analyzer.face(frame)
    crop = Crop.of([face], frame.shape)
    seen = crop.face(face, 512)
    assert crop.apply(frame, 512).shape == (512, 512, 3)
    np.testing.assert_allclose(seen.box[2:] - seen.box[:2], (171, 172), rtol=0.02)
    assert seen.scale == pytest.approx(56.1, rel=0.02)
    np.testing.assert_allclose(seen.origin, (256, 221), atol=5)
    assert -241.43 / seen.scale == pytest.approx(-4.30, rel=0.02)
