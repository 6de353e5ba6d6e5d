import numpy as np
import pytest

from hellomeme.face.detect import Face
from hellomeme.face.overlay import CHOSEN, PLAIN, numbered


def face(x0, y0, x1, y1):
    return Face(
        np.zeros((478, 2), np.float32),
        np.zeros(51, np.float32),
        np.eye(3),
        np.zeros(2),
        10.0,
        np.array([x0, y0, x1, y1], float),
    )


FACES = [face(200, 100, 340, 260), face(20, 60, 90, 130)]


def changed(a, b):
    return (a != b).any(-1)


def test_each_face_has_a_box_and_its_own_number():
    frame = np.full((300, 400, 3), 120, np.uint8)
    one, two = numbered(frame, FACES[:1]), numbered(frame, FACES)
    assert (frame == 120).all() and two.shape == frame.shape and two.dtype == np.uint8
    assert not changed(one, frame)[:, :150].any() and changed(two, frame)[60:130, 15:95].any()
    # Rim and middle
    assert tuple(two[258, 270]) in {PLAIN, (0, 0, 0)} and tuple(two[180, 270]) == (120, 120, 120)
    same = numbered(frame, [FACES[1], FACES[0]])  # the other way round: only the numbers differ
    assert changed(two, same).any() and not changed(two, same)[180:, :].any()


def test_the_chosen_one_stands_out():
    frame = np.zeros((300, 400, 3), np.uint8)
    plain, chosen = numbered(frame, FACES), numbered(frame, FACES, chosen=1)
    assert (chosen == CHOSEN).all(-1).any() and not (plain == CHOSEN).all(-1).any()
    assert not changed(plain, chosen)[:, 150:].any()


@pytest.mark.parametrize(
    "box", [(-30, -40, 50, 60), (350, 250, 450, 350), (0, 0, 5, 5), (-50, -50, 500, 400)]
)
def test_faces_that_reach_over_the_edge_keep_their_number(box):
    frame = np.full((300, 400, 3), 120, np.uint8)
    shown = numbered(frame, [face(*box)])
    assert (shown == PLAIN).all(-1).sum() > 50


def test_no_face_no_box():
    frame = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    assert np.array_equal(numbered(frame, []), frame)
