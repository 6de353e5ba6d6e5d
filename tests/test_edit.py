"""A face edited by sliders: names, presets, the turn of the head, and what reaches the networks."""

import dataclasses
import json

import numpy as np
import pytest
from test_reenactor import ColourAnalyzer, picture, same

from hellomeme.errors import HelloMemeError
from hellomeme.face.arkit import ARKIT_NAMES, INDEX
from hellomeme.face.controls import FACE_CONTROLS, control_values
from hellomeme.face.edit import FORMAT, GROUPS, PRESETS, Edit, Turn, edited, preset, start, turn
from hellomeme.face.motion import Motion
from hellomeme.io import metadata
from hellomeme.pipeline import HelloMemePipeline
from hellomeme.reenactor import Reenactor
from hellomeme.releases import expressions
from hellomeme.releases.load import find, load
from hellomeme.settings import Settings

QUICK = Settings(steps=1)
OWN = Motion(
    np.linspace(0, 1, 51, dtype=np.float32)[None],
    Turn(10, -5, 3).matrix[None],
    np.array([[250.0, 260]]),
    np.array([55.0]),
    np.ones(1, bool),
)


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load(str(model_folder), device="cpu")


@pytest.fixture
def reenactor(loaded):
    reenactor = Reenactor(loaded[0], loaded[2], None, ColourAnalyzer())
    reenactor.set_reference(picture(0.4, 0.2))
    return reenactor


def test_every_coefficient_is_in_one_group():
    assert list(GROUPS) == ["brows", "eyes", "mouth", "jaw", "cheeks"]
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(ARKIT_NAMES)


def test_presets():
    assert list(PRESETS) == ["laugh", "wink", "shocked", "kiss", "sad", "sceptical"]
    for name in PRESETS:
        values = preset(name)
        assert list(values) == list(ARKIT_NAMES) and all(0 <= value <= 1 for value in values.values())
        np.testing.assert_allclose(edited(OWN, values).blendshapes[0], list(values.values()), atol=1e-6)
    wink = preset("wink")
    assert wink["eyeBlinkLeft"] > 0.8 and wink["eyeBlinkRight"] == 0
    with pytest.raises(HelloMemeError) as caught:
        preset("smirk")
    assert str(caught.value) == (
        "There is no preset called smirk: choose from laugh, wink, shocked, kiss, sad, sceptical."
    )


def test_controls_stand_for_coefficients():
    covered = [name for control in FACE_CONTROLS.values() for name in control.names]
    assert len(set(covered)) == len(covered) == 20 and set(covered) <= set(ARKIT_NAMES)
    for name, control in FACE_CONTROLS.items():
        for value in (-0.35, 0.0, 0.6):
            if value < control.lowest:
                continue
            changed = control.coefficients(value)
            assert list(changed) == list(control.names) and set(changed.values()) <= {abs(value), 0}
            expected = dict.fromkeys(FACE_CONTROLS, 0.0) | {name: value}
            assert control_values(dict.fromkeys(ARKIT_NAMES, 0.0) | changed) == expected
    uneven = dict.fromkeys(ARKIT_NAMES, 0.0) | {"mouthSmileLeft": 0.4, "mouthFrownRight": 0.1}
    assert control_values(uneven)["smile"] == 0.15
    gaze = FACE_CONTROLS["look_sideways"].coefficients(0.5)  # both eyes to the right of the picture
    assert gaze["eyeLookOutLeft"] == gaze["eyeLookInRight"] == 0.5 and gaze["eyeLookInLeft"] == 0


def test_names_left_out_keep_the_references_own():
    result = edited(OWN, {"jawOpen": 0.9, "browInnerUp": 0})
    for name, value in zip(ARKIT_NAMES, result.blendshapes[0], strict=True):
        expected = {"jawOpen": 0.9, "browInnerUp": 0}.get(name, OWN.blendshapes[0, INDEX[name]])
        assert value == pytest.approx(expected)
    assert OWN.blendshapes[0, INDEX["jawOpen"]] != 0.9  # not changed in place
    for field in ("rotation", "origin", "scale"):
        np.testing.assert_allclose(getattr(edited(OWN), field), getattr(OWN, field), atol=1e-12)
    np.testing.assert_allclose(
        edited(OWN, np.linspace(1, 0, 51)).blendshapes[0], np.linspace(1, 0, 51), atol=1e-6
    )


def test_start_values():
    assert start(OWN) == {
        name: round(float(value), 2) for name, value in zip(ARKIT_NAMES, OWN.blendshapes[0], strict=True)
    }
    np.testing.assert_allclose(edited(OWN, start(OWN)).blendshapes, OWN.blendshapes, atol=0.0051)


def test_the_head_turns_as_the_sliders_say():
    nose, top = np.array([0, 0, 1]), np.array([0, 1, 0])
    assert (Turn(yaw=30).matrix @ nose)[0] == pytest.approx(0.5)  # to the right of the picture
    assert (Turn(pitch=30).matrix @ nose)[1] == pytest.approx(-0.5)  # down
    assert (Turn(roll=30).matrix @ top)[0] == pytest.approx(-0.5)  # counter-clockwise
    turned = edited(OWN, turn=Turn(20, 10, -15))
    np.testing.assert_allclose(turned.rotation[0] @ turned.rotation[0].T, np.eye(3), atol=1e-12)
    found = turn(turned, OWN)
    assert (found.yaw, found.pitch, found.roll) == (20, 10, -15)
    far = dataclasses.replace(OWN, rotation=Turn(60).matrix @ Turn(50).matrix @ OWN.rotation)
    assert -60 <= turn(far, OWN).yaw <= 60


@pytest.mark.parametrize(
    "coefficients, sentence",
    [
        ({"jaw": 0.5}, "There is no ARKit coefficient called jaw: names are like jawOpen or mouthSmileLeft."),
        ({7: 0.5}, "There is no ARKit coefficient called 7: names are like jawOpen or mouthSmileLeft."),
        ({"jawOpen": 1.2}, "jawOpen must be a number from 0 to 1, not 1.2."),
        ({"jawOpen": -0.1}, "jawOpen must be a number from 0 to 1, not -0.1."),
        ({"jawOpen": float("nan")}, "jawOpen must be a number from 0 to 1, not nan."),
        ({"jawOpen": None}, "jawOpen must be a number from 0 to 1, not None."),
        ({"jawOpen": "0.5"}, "jawOpen must be a number from 0 to 1, not 0.5."),
        ({"jawOpen": 10**400}, f"jawOpen must be a number from 0 to 1, not 1{'0' * 39}."),
        (
            np.zeros(52),
            "The coefficients are an array of shape (52,): give 51 numbers, or values by their ARKit names.",
        ),
        ([], "The coefficients are an array of shape (0,): give 51 numbers, or values by their ARKit names."),
        (np.full(51, np.inf), "browDownLeft must be a number from 0 to 1, not inf."),
        (["a"] * 51, "browDownLeft must be a number from 0 to 1, not a."),
    ],
)
def test_bad_coefficients(coefficients, sentence):
    with pytest.raises(HelloMemeError) as caught:
        edited(OWN, coefficients)
    assert str(caught.value) == sentence


def test_bad_turns():
    for name, value in (("yaw", 61), ("pitch", float("nan")), ("roll", "left")):
        with pytest.raises(HelloMemeError, match=f"^{name.title()} must be a number from -"):
            Turn(**{name: value})


def test_the_edit_is_drawn(reenactor, monkeypatch):
    received = []
    draw = reenactor.pipeline.__class__.__call__

    def listen(self, reference, condition, **arguments):
        received.append((condition, arguments["drive_coeff"][0, 0].numpy()))
        return draw(self, reference, condition, **arguments)

    monkeypatch.setattr(reenactor.pipeline.__class__, "__call__", listen)
    calls = []
    result = reenactor.expression({"jawOpen": 0.9}, settings=QUICK, progress=lambda *step: calls.append(step))
    assert result.picture.size == (128, 128) and result.driver is None and calls == [(1, 1)]
    assert result.original_size().size == (200, 160) and result.release == reenactor.release.name
    assert received[0][1][INDEX["jawOpen"]] == pytest.approx(0.9) and received[0][1][0] == pytest.approx(
        0.4, abs=0.05
    )
    assert same(result, reenactor.expression({"jawOpen": 0.9}, settings=QUICK))
    assert not same(result, reenactor.expression({"jawOpen": 0.1}, settings=QUICK))
    assert not same(result, reenactor.expression({"jawOpen": 0.9}, Turn(yaw=30), QUICK))
    # what the sliders begin with gives the reference as its own driver
    own = reenactor.expression(settings=QUICK)
    assert same(own, reenactor.image(picture(0.4, 0.2), QUICK))
    # half the strength is half the edit
    reenactor.expression({"jawOpen": 0.9}, settings=Settings(steps=1, expression=0.5))
    assert received[-1][1][INDEX["jawOpen"]] == pytest.approx(
        (0.9 + received[-2][1][INDEX["jawOpen"]]) / 2, abs=1e-6
    )


def test_the_edit_in_full():
    edit = Edit.of(edited(OWN, {"jawOpen": 0.7, "jawLeft": 0}), Turn(yaw=5))
    assert list(edit.values) == ["yaw", "pitch", "roll", *ARKIT_NAMES]
    assert edit.values["yaw"] == 5 and edit.values["jawOpen"] == 0.7 and edit.values["jawLeft"] == 0
    assert edit.values["noseSneerRight"] == 1  # the reference's own, as it was left out
    assert Edit.parse(edit.values) == edit and Edit.parse({}) == Edit()
    np.testing.assert_array_equal(  # to the last bit
        edited(OWN, edit.coefficients).blendshapes, edited(OWN, {"jawOpen": 0.7, "jawLeft": 0}).blendshapes
    )
    for values in ({"jaw": 0.5}, {"jawOpen": 2}, {"yaw": 90}):
        with pytest.raises(HelloMemeError):
            Edit.parse(values)


def test_edits_are_mixed_saved_and_loaded(tmp_path):
    one, other = Edit(Turn(yaw=10), {"jawOpen": 0.5}), Edit(Turn(yaw=-20, roll=4), {"mouthPucker": 1})
    assert one.mixed(other, 0) == one and one.mixed(other, 1) == other
    values = one.mixed(other, 0.25).values
    assert (values["yaw"], values["roll"], values["jawOpen"], values["mouthPucker"]) == (2.5, 1, 0.375, 0.25)
    one.mixed(other, 0.3).save(tmp_path / "a.json")
    assert Edit.load(tmp_path / "a.json") == one.mixed(other, 0.3)
    Edit().save(tmp_path / "a.json")
    assert Edit.load(tmp_path / "a.json") == Edit()
    with pytest.raises(HelloMemeError, match="could not be written"):
        one.save(tmp_path / "missing" / "a.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"laugh",
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b" " * 70_000,
        json.dumps([]).encode(),
        json.dumps({"format": FORMAT}).encode(),
        json.dumps({"format": FORMAT, "values": []}).encode(),
        json.dumps({"format": "hellomeme expression 2", "values": {}}).encode(),
        json.dumps({"format": FORMAT, "values": {"jaw": 0.5}}).encode(),
        json.dumps({"format": FORMAT, "values": {"jawOpen": 1.5}}).encode(),
        json.dumps({"format": FORMAT, "values": {"yaw": "left"}}).encode(),
    ],
)
def test_bad_files_of_an_expression(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(HelloMemeError) as caught:
        Edit.load(tmp_path / "a.json")
    assert str(caught.value) == (
        "a.json is not an expression of HelloMeme or is damaged: save one again in the Expression tab."
    )
    with pytest.raises(HelloMemeError, match="^There is no expression at "):
        Edit.load(tmp_path / "b.json")


def test_presets_that_come_over_as_measured(tmp_path):
    row = dataclasses.replace(find("demo"), root=tmp_path)
    assert expressions.drawn_presets(row) == expressions.drawn_presets(find("v1")) == tuple(PRESETS)
    path = expressions.write_measured(tmp_path, {"laugh": 0.9, "kiss": 0.6, "sad": 0.59, "wink": -1.0}, 16)
    assert expressions.drawn_presets(row) == ("laugh", "shocked", "kiss", "sceptical")
    for damaged in (b"", b"\0" * 99, b"[]", b'{"format": "hellomeme presets 1", "presets": {"laugh": "no"}}'):
        path.write_bytes(damaged)
        assert expressions.drawn_presets(row) == tuple(PRESETS)
    assert expressions.drawn_presets(find("demo")) == tuple(PRESETS)
    assert (find("demo").root / path.name).exists()  # because all come over, not because none was measured


def test_drawn_again_from_its_file(reenactor, tmp_path):
    changes = {"jawOpen": 0.7, "browInnerUp": 1 / 3}  # the other coefficients are the reference's own
    result = reenactor.expression(changes, Turn(20, -7.5), Settings(steps=1, seed=3, expression=0.8))
    metadata.save(result.picture, tmp_path / "a.png", result.stamp)
    stamp = metadata.read(tmp_path / "a.png")
    assert stamp == result.stamp and stamp.edit.turn == Turn(20, -7.5)
    assert same(result, reenactor.expression(stamp.edit.coefficients, stamp.edit.turn, stamp.settings))
    assert reenactor.image(picture(0.9), QUICK).stamp.edit is None


def test_sentences(loaded, reenactor, monkeypatch):
    with pytest.raises(HelloMemeError, match="^There is no reference picture yet"):
        Reenactor(loaded[0], loaded[2], None, ColourAnalyzer()).expression({})
    monkeypatch.setattr(HelloMemePipeline, "expression_types", {"pd_fpg"})
    with pytest.raises(
        HelloMemeError, match="^These control nets take no ARKit coefficients: load the release with"
    ):
        reenactor.expression({})
