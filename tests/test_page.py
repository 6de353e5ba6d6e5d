"""The page without a browser: how it is built, and its events called as functions and over HTTP."""

import dataclasses
import logging

import gradio as gr
import numpy as np
import photos
import pytest

import app
from hellomeme import releases
from hellomeme.settings import Settings


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def studio(model_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "STUDIO", app.Studio(str(model_folder), device="cpu"))
        yield app.STUDIO


@pytest.fixture
def draw(studio, pictures):
    """Calls the event of the button with files of `pictures`, as Gradio does."""

    def draw(driver="face.png", reference="reference.png", **changes):
        values = dict(
            expression=1, head=1, guidance=1, steps=2, seed=0, reference_face=None, driver_face=None, prompt="", negative_prompt=""
        )
        files = (name and str(pictures / name) for name in (reference, driver))
        return app.make_image(studio.release, *files, **values | changes)

    return draw


def events(page):
    return {fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn is not None}


def test_a_picture(draw):
    picture, reference, driver, pose, line = draw(seed=7)
    assert picture.size == reference.size == driver.size == (128, 128)
    assert pose.size == (512, 512)
    assert "2 steps · guidance 1 · seed 7" in line


@pytest.mark.parametrize("name", photos.BAD)
def test_bad_pictures(draw, pictures, name):
    with pytest.raises(gr.Error) as error:
        draw(name)
    assert error.value.message == photos.BAD[name].format(path=pictures / name)


@pytest.mark.parametrize("name", photos.ODD)
def test_odd_pictures_count_as_what_they_show(draw, name):
    odd, plain = draw(name), draw(photos.ODD[name])
    np.testing.assert_array_equal(np.asarray(odd[0]), np.asarray(plain[0]))


def test_a_12000_x_9000_picture(draw):
    assert draw(photos.LARGE)[0].size == (128, 128)


@pytest.mark.parametrize("changes, sentence", [
    ({"reference": None}, "There is no reference picture yet: choose the portrait that should change."),
    ({"driver": None}, "There is no driver picture yet: upload a face, take a photo or pick one of the examples."),
    ({"reference": "no face.png"}, photos.NO_FACE.replace("driver", "reference")),
    ({"steps": 51}, "Steps must be a whole number from 1 to 50, not 51."),
    ({"seed": "x"}, "Seed must be a whole number from 0 to 2147483647, not 'x'."),
    ({"expression": float("nan")}, "Expression must be a number from 0 to 2, not nan."),
])  # fmt: skip
def test_what_is_missing_or_out_of_range(draw, changes, sentence):
    with pytest.raises(gr.Error) as error:
        draw(**changes)
    assert error.value.message == sentence


def test_a_fault_of_ours_is_logged_and_its_details_kept(draw, studio, monkeypatch, caplog):
    def broken(release):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(studio, "reenactor", broken)
    with caplog.at_level(logging.ERROR, "hellomeme.page"), pytest.raises(gr.Error) as error:
        draw()
    assert "Something broke on our side" in error.value.message and "secret" not in error.value.message
    assert "secret detail" in caplog.text


def test_stop_ends_the_run_of_the_same_session_only(draw, studio, monkeypatch):
    steps = []

    def progress(self, progress, **_):
        if isinstance(progress, tuple):
            steps.append(progress)
            studio.stop(pressed_by)

    monkeypatch.setattr(gr.Progress, "__call__", progress)
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    pressed_by = "somebody else"
    assert draw(steps=4)[0].size == (128, 128)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]

    steps.clear()
    pressed_by = None  # the session of a call without a browser
    assert all(update["__type__"] == "update" for update in draw(steps=4))
    assert steps == [(1, 4)]
    assert studio.stops == {}


def test_models_that_cannot_run_here_say_why(studio):
    assert studio.models[studio.release] == (f"{releases.find(studio.release).name}: your model folder", None)
    reason = studio.models["v1"][1]
    assert reason and reason == dict((name, why) for name, _, why in releases.available())["v1"]
    guidance, steps, words, note = app.choose_model("v1")
    assert (guidance, steps) == (releases.find("v1").guidance, releases.find("v1").steps)
    assert words["visible"] and note["visible"] and reason in note["value"]
    assert not app.choose_model(studio.release)[3]["visible"]


def test_the_page_is_built_from_the_settings(studio, monkeypatch, tmp_path):
    monkeypatch.setattr(app, "EXAMPLES", tmp_path)  # an empty folder: the page does without examples
    page = app.build()
    shown = {block.label: block for block in page.blocks.values() if isinstance(block, (gr.Slider, gr.Number, gr.Textbox))}
    row = releases.find(studio.release)
    for field in dataclasses.fields(Settings):
        if field.name != "translation":  # moves clips only
            block, facts = shown[field.metadata["label"]], field.metadata
            expected = getattr(row, field.name) if field.name in ("guidance", "steps") else field.default
            assert block.value == ("" if facts["kind"] is str else expected or 0) and block.info == facts["help"]
            if facts["kind"] is not str:
                assert (block.minimum, block.maximum) == (facts["min"], facts["max"])


def test_queue_and_names_of_the_events(studio):
    page = app.build()
    named = events(page)
    assert {"image", "stop", "model"} <= set(named)
    assert named["image"].concurrency_id == "model" and named["image"].concurrency_limit == 1
    assert page._queue.max_size == 20
    assert all(fn.api_name for fn in page.fns.values() if fn.fn is not None)


def test_over_http_files_arrive_as_they_are(studio, pictures, monkeypatch, tmp_path):
    """Gradio itself would fail on the text file without a word, and convert the others."""
    from gradio_client import Client, exceptions, handle_file

    monkeypatch.setattr(app, "EXAMPLES", tmp_path)
    page = app.build()
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", run_history=False)
    try:
        client = Client(url, verbose=False)

        def image(driver, **changes):
            files = {"reference": handle_file(pictures / "reference.png"), "driver": handle_file(pictures / driver)}
            return client.predict(**{"model": studio.release, **files, "steps": 1, "guidance": 1} | changes, api_name="/image")

        for name in ("text.png", "one pixel.png", "no face.png"):
            with pytest.raises(exceptions.AppError, match=photos.BAD[name].split(":")[0]):
                image(name)
        assert open(image("turned by exif.png")[0], "rb").read() == open(image("face.png")[0], "rb").read()
        with pytest.raises(exceptions.AppError):
            image("face.png", model="/etc")  # only what the drop-down offers can be loaded
    finally:
        page.close()
