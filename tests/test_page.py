"""The page without a browser: its components, and its events called as functions and over HTTP."""

import dataclasses
import logging
import os
import re
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import photos
import pytest
from gradio.context import LocalContext

import app
from hellomeme.face import edit
from hellomeme.face.arkit import ARKIT_NAMES
from hellomeme.face.motion import Motion
from hellomeme.io import metadata
from hellomeme.releases.load import available, find
from hellomeme.settings import ClipSettings, Settings
from page import (
    chinese,
    components,
    drawing,
    english,
    expression_tab,
    face_mix,
    face_picker,
    face_sliders,
    face_values,
    gallery_tab,
    gradio_patches,
    i18n,
    image_tab,
    restore,
    shared_settings,
    state as states,
    video_tab,
)
from page.face_mix import CALM, FaceMix
from page.runs import replaceable_runs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return photos.write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def state(model_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "STATE", states.State(str(model_folder), device="cpu"))
        yield states.STATE


@pytest.fixture(scope="module")
def toon_clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "driver.mp4")


def write_clip(path, *more):
    """A head that turns for four frames, and then more pictures."""
    from fractions import Fraction

    from hellomeme.io.ffmpeg import ClipWriter

    with ClipWriter(path, Fraction(12)) as writer:
        for picture in (*(photos.toon(5, yaw=4 * frame) for frame in range(4)), *more):
            writer.write(picture)
    return path


@pytest.fixture
def draw(state, pictures):
    """Calls the event of the button with files of `pictures`, as Gradio does."""

    def draw(driver="face.png", reference="reference.png", **changes):
        values = dict(
            expression=1,
            head=1,
            guidance=1,
            steps=2,
            seed=0,
            reference_face=None,
            driver_face=None,
            prompt="",
            negative_prompt="",
            paste=False,
            feather=0.5,
        )
        files = (name and str(pictures / name) for name in (reference, driver))
        return image_tab.make_image(state.release, *files, **values | changes)

    return draw


def events(page):
    return {
        fn.api_name: fn for fn in page.fns.values() if fn.api_visibility == "public" and fn.fn is not None
    }


def test_a_picture(draw):
    picture, reference, driver, pose, (before, after), whole, line, key = draw(seed=7)
    assert before.size == after.size == (128, 128) and whole is None
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


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"reference": None}, "There is no reference picture yet: choose the portrait that should change."),
        (
            {"driver": None},
            "There is no driver picture yet: upload a face, take a photo or pick one of the examples.",
        ),
        ({"reference": "no face.png"}, photos.NO_FACE.replace("driver", "reference")),
        ({"steps": 51}, "Steps must be a whole number from 1 to 50, not 51."),
        ({"seed": "x"}, "Seed must be a whole number from 0 to 2147483647, not 'x'."),
        ({"expression": float("nan")}, "Expression must be a number from 0 to 2, not nan."),
    ],
)
def test_what_is_missing_or_out_of_range(draw, changes, sentence):
    with pytest.raises(gr.Error) as error:
        draw(**changes)
    assert error.value.message == sentence


def test_an_internal_error_is_logged_and_its_details_are_not_shown(draw, state, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(state, "reenactor", broken)
    with caplog.at_level(logging.ERROR, "hellomeme.page"), pytest.raises(gr.Error) as error:
        draw()
    assert "Something broke on our side" in error.value.message and "secret" not in error.value.message
    assert "secret detail" in caplog.text


def test_stop_ends_the_run_of_the_same_session_only(draw, state, monkeypatch):
    steps = []

    def progress(self, progress, **_):
        if isinstance(progress, tuple):
            steps.append(progress)
            state.runs.stop(pressed_by)

    monkeypatch.setattr(gr.Progress, "__call__", progress)
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    pressed_by = "somebody else"
    assert draw(steps=4)[0].size == (128, 128)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]

    steps.clear()
    pressed_by = None  # the session of a call without a browser
    assert all(update["__type__"] == "update" for update in draw(steps=4))
    assert steps == [(1, 4)]
    assert state.runs.flags == {}


def test_stop_while_the_faces_are_looked_for(draw, state, monkeypatch):
    steps, found = [], state.portrait

    def portrait(*arguments):
        state.runs.stop(None)
        return found(*arguments)

    monkeypatch.setattr(state, "portrait", portrait)
    monkeypatch.setattr(
        gr.Progress, "__call__", lambda self, done, **_: isinstance(done, tuple) and steps.append(done)
    )
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    assert all(update["__type__"] == "update" for update in draw(steps=4))
    assert steps == [(1, 4)]


def test_stop_during_a_download_ends_the_run_without_an_error(state):
    with state.run(None):
        states._show_download("me/net", 1, 2)
        assert state.runs.stop(None) is True
        states._show_download("me/net", 2, 2)
        pytest.fail("the run continued")
    assert state.runs.flags == {} and state.runs.stop(None) is False
    states._show_download("me/net", 2, 2)  # outside a run


def test_stop_ends_all_runs_of_a_visitor_and_none_of_others(state):
    with state.run("another") as others, state.run("me") as drawing:
        with state.run("me") as pasting:  # ends before the first, as a clip that is pasted back does
            pass
        assert state.runs.stop("me") is True
        assert os.path.exists(drawing) and not os.path.exists(others) and not os.path.exists(pasting)
        with replaceable_runs(), state.run("another") as replaceable:
            state.runs.replace("another")
            assert os.path.exists(replaceable) and not os.path.exists(others)
    assert state.runs.flags == {}


def test_stop_between_the_queue_and_the_run(draw, state, monkeypatch):
    steps = []
    monkeypatch.setattr(
        gr.Progress, "__call__", lambda self, done, **_: isinstance(done, tuple) and steps.append(done)
    )
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    monkeypatch.setattr(state.runs, "stopped_events", {"this event"})
    for event, expected in (("another", 4), ("this event", 1), ("this event", 4)):
        steps.clear()
        token = LocalContext.event_id.set(event)
        draw(steps=4)
        LocalContext.event_id.reset(token)
        assert len(steps) == expected


def test_time_left_and_frames_without_a_face_are_shown(state, pictures, monkeypatch, tmp_path):
    """While a clip is analysed for its motion alone, analysed and drawn, and drawn as on Spaces."""
    seen, said = [], []
    monkeypatch.setattr(gr.Progress, "__call__", lambda self, done, desc=None, **_: seen.append(desc))
    monkeypatch.setattr(gr, "Info", lambda text, **_: said.append(text))

    def left(phase):
        found = [desc for desc in seen if desc.startswith(phase)]
        seen.clear()
        return found[0] == phase and all(desc.endswith(" s left") for desc in found[-2:])

    chosen = ClipSettings()
    driver = str(write_clip(tmp_path / "driver.mp4", np.full_like(photos.toon(5), 255)))
    saved = video_tab.save_motion(state.release, driver, None, *vars(chosen).values())
    assert left("Analysing")
    motion = Motion.load(saved.value["path"])
    assert said == ["In 1 of 5 frames the driver shows no face: its motion around them will be used."]
    assert motion.valid.tolist() == [True, True, True, True, False]
    reference = state.portrait(state.release, str(pictures / "reference.png"), "reference", None)
    settings = Settings(steps=2, guidance=1)
    with state.run(None) as flag:
        frames = drawing.draw_frames(state.release, reference, motion, settings, chosen, flag)
        assert len(frames) == 5 and left("Drawing")
    values = 1, 1, 0, 1, 2, 0, None, None, "", "", *vars(chosen).values()
    video_tab.make_video(state.release, str(pictures / "reference.png"), *values, driver)
    drawn = [desc for desc in seen if desc.startswith("Drawing")]
    assert drawn[0].endswith(" s left") or drawn[1].endswith(" s left")  # from the first moment
    assert drawn[-1].endswith(" s left") and left("Analysing")
    assert state.clip_paces.drawing((state.release, "off"), 5, 10) > 0


def test_models_that_cannot_run_here_say_why(state):
    assert state.models[state.release] == (f"{find(state.release).name}: your model folder", None)
    reason = state.models["v1"][1]
    assert reason and reason == dict((name, why) for name, _, why in available())["v1"]
    guidance, steps, few, words, note = shared_settings.choose_model("v1")
    assert (guidance, steps, few) == (find("v1").guidance, find("v1").steps, "off")
    assert words["visible"] and note["visible"] and reason in note["value"]
    _, steps, _, words, note = shared_settings.choose_model(state.release)
    assert (
        steps == 1
        and not words["visible"]
        and note["visible"]
        and note["value"].key == shared_settings.ONE_STEP
    )


def test_the_page_is_built_from_the_settings(state, monkeypatch, tmp_path):
    monkeypatch.setattr(components, "EXAMPLES", tmp_path)  # an empty folder: the page does without examples
    page = app.build()
    kinds = (gr.Slider, gr.Number, gr.Textbox, gr.Checkbox, gr.Dropdown)
    shown = {
        str(getattr(block.label, "key", block.label)): block
        for block in page.blocks.values()
        if isinstance(block, kinds)
    }
    row = find(state.release)
    for field in (*dataclasses.fields(Settings), *dataclasses.fields(ClipSettings)):
        block, facts = shown[field.metadata["label"]], field.metadata
        if field.name.endswith("_face"):  # counted from 1 on the page
            assert (block.value, block.minimum, block.maximum) == (1, 1, facts["max"] + 1)
            continue
        expected = getattr(row, field.name) if field.name in ("guidance", "steps") else field.default
        assert (
            block.value == expected
            or (expected is None and block.value in (0, ""))
            and block.info.key == facts["help"]
        )
        if isinstance(block, (gr.Slider, gr.Number)):
            assert (block.minimum, block.maximum) == (facts["min"], facts["max"])
        if isinstance(block, gr.Dropdown):
            assert [value for _, value in block.choices] == list(facts["choices"])
    assert {name for name in ARKIT_NAMES if name in shown} == set(ARKIT_NAMES)


def test_every_text_has_a_translation_and_every_translation_a_text(state):
    app.build()
    assert i18n.REQUESTED == set(chinese.CHINESE)
    # Gradio cannot read braces or empty texts
    assert all(text and "{" not in text and "}" not in text for text in chinese.CHINESE)
    assert set(english.ENGLISH) <= i18n.REQUESTED
    terms = [text for text in i18n.EN.values() if re.search("reference|driver|denois", text, re.IGNORECASE)]
    assert terms == []  # of the paper


def test_pasted_back_with_its_settings_and_restored_from_it(draw, state, pictures, tmp_path):
    picture, *_, (before, after), whole, _, _ = draw(seed=5, expression=0.5, feather=0.25, paste=True)
    assert before.size == after.size == whole.size == (256, 256) and picture.size == (128, 128)
    with gr.Blocks():
        file = gr.Image(format="png").postprocess(whole).path  # as a visitor downloads it
        inputs = {"expression": gr.Slider(), "seed": gr.Number(), "feather": gr.Slider()}
        restored = restore.connect(gr.File(), {"model": gr.Dropdown(), **inputs}).fn
    assert metadata.read(file).labelled
    assert restored(file) == [state.release, 0.5, 5, 0.25]
    with pytest.raises(gr.Error, match="carries no settings"):
        restored(str(pictures / "face.png"))


def test_patches_are_written_for_the_pinned_gradio():
    requirements = (Path(app.__file__).parent / "requirements.txt").read_text().splitlines()
    assert f"gradio=={gradio_patches.WRITTEN_FOR}" in requirements


def test_undocumented_gradio_is_used_in_one_file_only():
    undocumented = re.compile(
        r"gradio\.(context|processing_utils|server_messages)|LocalContext|\.(_queue|_id|preprocess)\b"
    )
    files = Path(gradio_patches.__file__).parent.glob("*.py")
    found = {path.name for path in files if undocumented.search(path.read_text(encoding="utf-8"))}
    assert found == {"gradio_patches.py"}


def test_several_faces_are_numbered(state, pictures, tmp_path):
    from PIL import Image

    face = Image.open(pictures / "face.png").convert("RGB")
    both = Image.new("RGB", (640, 300), "white")
    both.paste(face.resize((300, 300)), (0, 0))
    both.paste(face.resize((200, 200)), (400, 50))
    both.save(tmp_path / "two.png")
    shown, places = face_picker.numbered(str(tmp_path / "two.png"), "driver")
    assert len(places) == 2 and shown.size == both.size
    assert places[0][2] < 320 < places[1][0]  # the larger one first
    assert len(face_picker.numbered(str(pictures / "face.png"), "driver")[1]) == 1


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


def test_presets_that_a_model_cannot_draw_are_not_offered(state):
    def names(model):
        offered = face_sliders.offered_presets(model)
        return [name for name, update in zip(edit.PRESETS, offered, strict=True) if update["visible"]]

    assert names("demo") == ["laugh", "shocked"]
    assert names("v1") == names(state.release) == list(edit.PRESETS)


def test_a_grid_is_drawn_row_by_row_and_kept(state, monkeypatch):
    arguments = (state.release, ["mila", "otto"], ["sad", "wink"], 1, 1, 1, 1, 0)
    states = list(gallery_tab.make_gallery(*arguments))
    assert [line for _, line in states] == ["2 / 4", "4 / 4"]
    captions = [caption for _, caption in states[-1][0]["value"]]
    assert captions == ["mila · sad", "mila · wink", "otto · sad", "otto · wink"]
    monkeypatch.setattr(state, "portrait", None)  # fails if anything is drawn again
    assert len(list(gallery_tab.make_gallery(*arguments))) == 2
    for characters, sentence in (
        ([], "The grid is empty"),
        (["/etc/passwd"], "There is no example called /etc/passwd"),
    ):
        with pytest.raises(gr.Error, match=sentence):
            list(gallery_tab.make_gallery(state.release, characters, ["sad"], 1, 1, 1, 1, 0))
    again = list(gallery_tab.make_gallery(state.release, ["mila"] * 5000, ["sad"] * 5000, *arguments[3:]))
    assert len(again) == len(again[0][0]["value"]) == 1

    # A click opens a cell with all that drew it
    ((cell, caption),) = again[0][0]["value"]
    path = gradio_patches.save_pil_to_cache(cell, gradio_patches.upload_folder(), format="png")
    (open_cell,) = (fn for fn in app.build().fns.values() if fn.name == "open_cell")
    click, visitor = SimpleNamespace(index=0), SimpleNamespace(session_hash="me")
    opened = dict(zip(open_cell.outputs, open_cell.fn([(path, caption)], click, visitor), strict=True))
    found = {component.elem_id: value for component, value in opened.items()}
    assert found["model"] == state.release and found["base"] == "" and found["seed"] == 0
    assert (Path(found["reference"]).stem, Path(found["driver"]).stem) == ("mila", "sad")


def test_arguments_of_the_api(state):
    endpoints = app.build().get_api_info()["named_endpoints"]
    clip = " ".join(field.name for field in dataclasses.fields(ClipSettings))
    faces, prompts = "reference_face driver_face", "prompt negative_prompt"
    run = "guidance steps seed"
    style = "few_steps base vae stylize loras lora_strength upscale reuse guidance_end"
    expected = {
        "image": f"model reference driver expression head {run} {faces} {prompts} paste feather {style}",
        "restyle": f"model reference {run} reference_face {prompts} paste feather {style}",
        "video": f"model reference expression head translation {run} {faces} {prompts} {clip} "
        f"driver motion_file {style}",
        "motion": f"model driver driver_face {clip}",
        "estimate": f"model guidance steps {clip} driver motion_file upscale",
        "expression": f"model reference reference_face {run} yaw pitch roll {' '.join(ARKIT_NAMES)} {style}",
        "gallery": f"model characters faces expression head {run} {style}",
        "restore": "file",
        "model": "model",
        "stop": "",
    }
    found = {
        name: " ".join(one["parameter_name"] for one in endpoints[f"/{name}"]["parameters"])
        for name in expected
    }
    assert found == expected


def test_queue_and_names_of_the_events(state):
    page = app.build()
    named = events(page)
    assert all(
        fn.fn.__name__.isidentifier() and fn.fn.__doc__ and "partial" not in fn.fn.__doc__
        for fn in named.values()
    )
    assert {
        "image",
        "video",
        "expression",
        "gallery",
        "stop",
        "model",
        "estimate",
        "motion",
        "restore",
    } <= set(named)
    for name in ("image", "video", "motion", "expression", "preview", "gallery"):
        assert named[name].concurrency_id == "model" and named[name].concurrency_limit == 1
    assert page._queue.max_size == 20
    assert all(fn.api_name for fn in page.fns.values() if fn.fn is not None)


def test_over_http_files_arrive_as_they_are(state, pictures, toon_clip, monkeypatch, tmp_path):
    """Gradio itself would fail on the text file without a message, and convert the others."""
    from gradio_client import Client, exceptions, handle_file

    monkeypatch.setattr(components, "EXAMPLES", tmp_path)
    page = app.build()
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", run_history=False)
    try:
        client = Client(url, verbose=False)

        def image(driver, **changes):
            files = {
                "reference": handle_file(pictures / "reference.png"),
                "driver": handle_file(pictures / driver),
            }
            return client.predict(
                **{"model": state.release, **files, "steps": 1, "guidance": 1} | changes, api_name="/image"
            )

        for name in ("text.png", "one pixel.png", "no face.png"):
            with pytest.raises(exceptions.AppError, match=photos.BAD[name].split(":")[0]):
                image(name)
        assert open(image("turned by exif.png")[0], "rb").read() == open(image("face.png")[0], "rb").read()
        with pytest.raises(exceptions.AppError):
            image("face.png", model="/etc")  # only what the drop-down offers can be loaded
        reference = handle_file(pictures / "reference.png")
        drawn = client.predict(
            reference=reference, steps=1, guidance=1, jawOpen=0.7, yaw=10, api_name="/expression"
        )
        assert metadata.read(drawn[0]).settings.steps == 1
        clip = handle_file(toon_clip)
        line = client.predict(driver=clip, steps=1, frames=2, api_name="/estimate")
        assert line.startswith("2 frames")
        film, line = client.predict(
            reference=reference, driver=clip, steps=1, guidance=1, frames=2, api_name="/video"
        )
        stamp = metadata.read(film["video"] if isinstance(film, dict) else film)
        assert stamp.clip.frames == 2 and "2 frames" in line
        saved = client.predict(driver=clip, frames=3, api_name="/motion")
        saved = saved["value"] if isinstance(saved, dict) else saved
        assert len(Motion.load(saved)) == 3
        line = client.predict(motion_file=handle_file(saved), steps=1, api_name="/estimate")
        assert line.startswith("3 frames")
        film, line = client.predict(
            reference=reference,
            motion_file=handle_file(saved),
            steps=1,
            guidance=1,
            frames=0,
            api_name="/video",
        )
        assert os.path.getsize(film["video"] if isinstance(film, dict) else film) and "3 frames" in line
    finally:
        page.close()
