"""A result of the Expression tab, dropped back, sets the sliders that it was drawn with."""

import gradio as gr
import numpy as np
import photos
import pytest
from PIL import Image, PngImagePlugin

import app
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.edit import TURNS, Edit
from hellomeme.io import metadata
from hellomeme.settings import Settings
from page import components, expression_tab, state as states

SLIDERS = (*TURNS, *ARKIT_NAMES)
VALUES = {"yaw": 14, "roll": -7.5, "jawOpen": 0.73, "eyeBlinkLeft": 1, "mouthPucker": 0.01}


@pytest.fixture(scope="module")
def page(model_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "STATE", states.State(str(model_folder), device="cpu"))
        patch.setattr(
            components, "EXAMPLES", tmp_path_factory.mktemp("none")
        )  # the page does without examples
        yield app.build()


@pytest.fixture
def restore(page):
    """Calls the page's event with a file; returns the values that it sets, by the name of the component."""
    event = next(fn for fn in page.fns.values() if fn.api_name == "restore")
    names = [
        (block.elem_id or str(block.label)).removeprefix("slider-").removeprefix("turn-")
        for block in event.outputs
    ]

    def restore(file):
        return {
            name: value for name, value in zip(names, event.fn(str(file)), strict=True) if not skipped(value)
        }

    return restore


def skipped(value):
    return isinstance(value, dict) and value == gr.skip()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "reference.png"
    Image.fromarray(photos.toon(3)).save(path)
    return str(path)


def downloaded(picture):
    """The file of a picture as a visitor gets it."""
    with gr.Blocks():
        return gr.Image(format="png").postprocess(picture).path


def test_a_dropped_expression_is_drawn_again_the_same(page, restore, reference):
    def draw(seed, **values):
        values = [values.get(name, 0) for name in SLIDERS]
        return expression_tab.make_expression(states.STATE.release, reference, 0, 1, 2, seed, *values, None)[
            0
        ]

    picture = draw(11, **VALUES)
    found = restore(downloaded(picture))
    assert {name: found[name] for name in SLIDERS} == dict.fromkeys(SLIDERS, 0) | VALUES
    assert found["seed"] == 11 and found["model"] == states.STATE.release
    again = draw(found["seed"], **{name: found[name] for name in SLIDERS})
    np.testing.assert_array_equal(np.asarray(again), np.asarray(picture))
    assert np.any(np.asarray(picture) != np.asarray(draw(11)))  # the sliders do show in it


def test_a_result_with_a_driver_leaves_the_sliders_alone(restore, tmp_path):
    settings = Settings(guidance=1, steps=2, seed=5)
    for edit, expected in ((None, set()), (Edit(), set(SLIDERS))):
        path = tmp_path / f"{edit is None}.png"
        metadata.save(Image.new("RGB", (8, 8)), path, metadata.Stamp(settings, "demo", edit=edit))
        found = restore(path)
        assert (
            found["seed"] == 5 and found["video-driver-face"] == 1 and set(SLIDERS) & set(found) == expected
        )


@pytest.mark.parametrize(
    "values", ['{"jaw": 0.5}', '{"jawOpen": 2}', '{"jawOpen": NaN}', '{"yaw": "5"}', "[]"]
)
def test_damaged_sliders_get_one_sentence(restore, tmp_path, values):
    info = PngImagePlugin.PngInfo()
    info.add_text(metadata.KEY, f'{{"hellomeme": 1, "release": "demo", "settings": {{}}, "edit": {values}}}')
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(gr.Error) as error:
        restore(tmp_path / "a.png")
    assert (
        error.value.message
        == "The settings in this file are damaged or of another version: set them by hand."
    )
