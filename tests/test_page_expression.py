"""The events of the Expression tab, called as functions."""

import json
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from page_calls import pictures, state  # noqa: F401  (fixtures)

from hellomeme.face import edit
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.releases import expressions
from hellomeme.releases.load import find
from page import expression_tab, face_mix, face_sliders, face_values, state as states
from page.face_mix import CALM, FaceMix


@pytest.fixture
def move(state, pictures):
    """Calls an event of the Expression tab: `values` are turns and coefficients by name."""

    def move(event=expression_tab.make_expression, steps=2, **values):
        numbers = [values.get(name, 0) for name in (*edit.TURNS, *ARKIT_NAMES)]
        return event(state.release, str(pictures / "reference.png"), 0, 1, steps, 3, *numbers, None)

    return move


def test_an_expression_without_a_driver(move):
    calm, line, _ = move()
    assert calm.size == (128, 128) and "2 steps · guidance 1 · seed 3" in line
    assert np.any(np.asarray(calm) != np.asarray(move(jawOpen=1)[0]))
    assert np.any(np.asarray(calm) != np.asarray(move(yaw=40)[0]))
    with pytest.raises(gr.Error, match="jawOpen must be a number from 0 to 1"):
        move(jawOpen=2)
    with pytest.raises(gr.Error, match="Yaw must be"):
        move(yaw=90)


def test_a_preview_is_only_drawn_where_it_is_wanted_and_there_is_a_reference(state, pictures):
    def look(reference, live):
        return expression_tab.preview(state.release, reference, 0, 1, 2, 3, *[0] * 54, live, None)

    reference = str(pictures / "reference.png")
    assert look(reference, True)[1].startswith("2 steps", 8)  # the picture itself, not a preview of it
    fine = expression_tab.preview(state.release, reference, 0, 2, 3, 3, *[0] * 54, True, None)
    assert fine[1].startswith("Preview") and "2 steps · guidance 1" in fine[1]
    assert look(reference, False) == look(None, True) == [gr.skip()] * 3


def test_values_that_are_set_on_the_sliders(state, pictures):
    own = face_values.own_face(state.release, str(pictures / "reference.png"))
    assert len(own) == 3 + 51 and own[:3] == [0, 0, 0] and any(own)
    assert face_values.own_face(state.release, str(pictures / "no face.png")) == [0] * 54
    driver = face_values.driver_face(
        state.release, str(pictures / "reference.png"), str(pictures / "face.png")
    )
    assert driver[0] == pytest.approx(12, abs=6)  # that head is turned
    another = (state.release, str(pictures / "face.png"), 0)
    chosen = list(another[1:])
    shown, initial, mix, share, *faces = face_values.change_portrait("expression", *another, None, own, *own)
    assert shown == chosen and initial == faces[7:] == face_values.own_face(*another) != own
    assert share == 1 and mix.chosen == mix.shown == tuple(initial) and mix.before == CALM
    nothing = [gr.skip()] * (2 + 2 + 7 + 54)
    for tab, before in (("image", None), ("expression", chosen)):
        assert face_values.change_portrait(tab, *another, before, own, *own) == nothing
    moved = [own[0] + 1, *own[1:]]
    kept = face_values.change_portrait("expression", *another, None, own, *moved)
    assert kept == [chosen, *nothing[1:]]
    laugh = face_values.preset("laugh")
    assert laugh.__name__ == "preset_laugh" and laugh()[3 + ARKIT_NAMES.index("jawOpen")] > 0.5


def test_the_own_face_is_read_without_the_model(state, pictures, monkeypatch):
    own = face_values.own_face(state.release, str(pictures / "reference.png"))
    empty = states.State(state.release, device="cpu")
    empty.analyzer = state.analyzer
    monkeypatch.setattr(states, "STATE", empty)
    assert face_values.own_face(state.release, str(pictures / "reference.png")) == own
    shown, initial, *_ = face_values.show_portrait(
        "image", state.release, str(pictures / "reference.png"), 0, None, list(CALM), *CALM
    )
    assert shown == gr.skip() and initial == own  # the sliders are set, and nothing is drawn
    assert not empty.reenactors


def test_faces_are_mixed_and_what_is_moved_by_hand_stays(tmp_path):
    names = list(face_mix.NAMES)
    jaw, smile, yaw = (names.index(name) for name in ("jawOpen", "mouthSmileLeft", "yaw"))

    def face(**values):
        return tuple(values.get(name, 0.0) for name in names)

    mix = FaceMix.choose(face(jawOpen=0.8, yaw=20), face(mouthSmileLeft=0.6))
    assert mix.mixed(1, mix.shown).shown == face(jawOpen=0.8, yaw=20)
    assert mix.mixed(0, mix.shown).shown == face(mouthSmileLeft=0.6)
    quarter = mix.mixed(0.25, mix.shown)
    assert quarter.shown == face(jawOpen=0.2, yaw=5, mouthSmileLeft=0.45)
    moved = list(quarter.shown)
    moved[smile], moved[yaw] = 0.65, 60
    assert quarter.mixed(0.25, moved).shown[smile] == 0.65
    assert quarter.mixed(0, moved).shown == face(mouthSmileLeft=0.8, yaw=55)
    most = quarter.mixed(1, moved).shown
    assert most == face(jawOpen=0.8, mouthSmileLeft=0.2, yaw=60)  # not further than it can turn
    mix, share, *shown = face_values.mix_faces(quarter, 1, *moved)
    assert mix.shown == most and share == 1 and shown[7:] == list(most)
    assert shown[0] == 0.1  # the plain smile, a mean of both sides
    assert quarter.mixed(1, quarter.shown).shown[jaw] == 0.8


def test_a_face_is_saved_and_loaded(tmp_path):
    moved = [14, 0, -7.5, *[0.25] * 51]
    saved = face_values.saved_face(*moved)
    assert Path(saved).name == "expression.json" and face_values.loaded_face(saved) == moved
    (tmp_path / "other.json").write_text('{"jawOpen": 1}')
    with pytest.raises(gr.Error, match="other.json is not an expression of HelloMeme or is damaged"):
        face_values.loaded_face(str(tmp_path / "other.json"))


def test_a_fine_run_is_offered_where_it_differs(state):
    offered = expression_tab.has_fine_run
    assert not offered("demo", 1, 1) and not offered("demo", 1, 2) and offered("demo", 1, 1, live=False)
    for differing in (("demo", 1, 3), ("demo", 1.5, 1), ("demo", 1, 1, "off", "2"), ("v1", 1.5, 25)):
        assert offered(*differing), differing
    assert not offered("v1", 1, 2, "off", "off") and offered("v1", 1, 8, "hyper-8")


def test_presets_that_a_model_cannot_draw_are_not_offered(state, monkeypatch):
    def names(model):
        offered = face_sliders.offered_presets(model)
        return [name for name, update in zip(edit.PRESETS, offered, strict=True) if update["visible"]]

    assert names("demo") == list(edit.PRESETS)
    shares = json.loads((find("demo").root / expressions.FILE).read_text())["presets"]
    weakest = min(shares, key=shares.get)
    monkeypatch.setattr(expressions, "LEAST", shares[weakest] + 0.001)
    assert names("demo") == [name for name in edit.PRESETS if name != weakest]
    assert names("v1") == names(state.release) == list(edit.PRESETS)
