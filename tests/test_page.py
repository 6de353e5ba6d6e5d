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
from page_calls import draw, events, pictures, state, toon_clip, write_clip  # noqa: F401  (fixtures)

import app
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
    face_picker,
    gallery_tab,
    gradio_patches,
    i18n,
    restore,
    shared_settings,
    video_tab,
)


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


def test_time_left_and_frames_without_a_face_are_shown(state, pictures, monkeypatch, tmp_path):
    """While a clip is analysed for its motion alone, analysed and drawn, and drawn as on Spaces."""
    seen, said = [], []
    monkeypatch.setattr(gr.Progress, "__call__", lambda self, done, desc=None, **_: seen.append(desc))
    monkeypatch.setattr(gr, "Info", lambda text, **_: said.append(text))

    def left(phase):
        found = [desc for desc in seen if desc.startswith(phase)]
        seen.clear()
        return found[0] == phase and found[-1].endswith(" s left")

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
        "estimate": f"model guidance steps {clip} driver motion_file upscale reuse guidance_end",
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
