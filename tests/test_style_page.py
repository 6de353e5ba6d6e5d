"""Styles and few steps on the page: offered where they make sense, drawn, recorded and restored."""

import gradio as gr
import numpy as np
import pytest
from hub import serve
from PIL import Image
from styled import CASE, use_hub, write_inputs, write_lora, write_release

import app
from hellomeme.errors import HelloMemeError
from hellomeme.io import metadata
from hellomeme.releases.few_steps import NAMES, PRESETS
from hellomeme.releases.load import find
from hellomeme.releases.styles import BASES, LORAS, Style
from hellomeme.settings import Settings
from page import components, image_tab, shared_settings, state as states, styles


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def row(folder):
    return write_release(folder)


@pytest.fixture
def state(row, folder, monkeypatch):
    """A page that was started with v1, at small widths, and a LoRA of the user's."""
    monkeypatch.setattr("hellomeme.releases.load.RELEASES", (find("demo"), row))
    style = Style(loras=(folder / "own.safetensors",))
    monkeypatch.setattr(states, "STATE", states.State("v1", style, device="cpu"))
    monkeypatch.setattr(components, "EXAMPLES", folder / "none")
    return states.STATE


def block(page, elem_id):
    return next(block for block in page.blocks.values() if block.elem_id == elem_id)


def test_the_lists_hold_the_presets_and_what_the_page_was_started_with(state, folder):
    page, own = app.build(), "own.safetensors"
    assert str(folder) not in str(page.config["components"])
    assert [value for _, value in block(page, "base").choices] == ["", *BASES]
    assert [value for _, value in block(page, "loras").choices] == [*LORAS, own]
    assert block(page, "loras").value == [own]
    assert [value for _, value in block(page, "few-steps").choices] == list(NAMES)
    assert block(page, "restyle").visible and not block(page, "base").allow_custom_value
    for release, visible in (("demo", False), ("v1", True)):
        *_, words, _ = shared_settings.choose_model(release)
        assert words["visible"] == visible
    state.release = "demo"
    assert not block(app.build(), "restyle").visible
    for name in NAMES[1:]:
        preset = next(preset for preset in PRESETS if preset.name == name)
        assert styles.choose_few_steps("v1", name) == (preset.guidance, preset.steps)
    assert styles.choose_few_steps("v1", "off") == (1.5, 2)


def test_the_style_of_the_components(state, folder):
    own, path = "own.safetensors", str(folder / "own.safetensors")
    chosen = {
        "model": "v1",
        "base": "toonyou_beta6",
        "vae": "official",
        "stylize": "x1",
        "lora_strength": 0.8,
    }
    assert styles.style_of(chosen | {"loras": ["Drawing:0.5", own]}) == Style(
        "toonyou_beta6", "official", ("Drawing:0.5", (path, 0.8)), "official"
    )
    assert styles.style_of({"model": "v1"}) == state.style  # of the API, without arguments for it
    assert styles.style_of({"model": "v1", "loras": []}) == Style()
    assert styles.style_of(chosen | {"model": "demo", "loras": []}) == Style()
    for values in ({"base": "some/model"}, {"vae": "/etc/passwd"}, {"loras": ["me/lora:0.3"]}):
        with pytest.raises(
            HelloMemeError, match=f"{next(iter(values.values()))[0][:2]}.*is not offered here"
        ):
            styles.style_of({"model": "v1", "loras": [], **values})
    state.is_local = True
    assert styles.style_of({"model": "v1", "loras": ["me/lora:0.3"]}).loras == (("me/lora", 0.3),)


def test_only_a_page_for_this_computer_takes_paths(monkeypatch):
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    assert app.is_local(app.parse([]))
    for options in (["--share"], ["--host", "0.0.0.0"], ["--root-path", "/hellomeme"]):
        assert not app.is_local(app.parse(options))
    for name, value in (("SPACE_ID", "me/mine"), ("GRADIO_SERVER_NAME", "0.0.0.0")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert not app.is_local(app.parse([]))


def test_a_style_is_drawn_recorded_and_restored(state, folder, monkeypatch, tmp_path):
    repositories = {"songkey/toonyou_beta6": CASE / "checkpoint", "songkey/loras_sd_1_5": tmp_path / "loras"}
    write_lora(tmp_path / "loras" / "Drawing.safetensors", 2)
    said = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: said.append(text))
    page = app.build()
    events = {fn.api_name: fn for fn in page.fns.values() if fn.fn is not None}
    names = {one._id: name for name, one in page_components(page).items()}

    def draw(**values):
        given = (str(folder / "reference.png"), 1, 1, 0, 0, "", "", False, 0.5, "off")
        rest = [values.get(name) for name in styles.NAMES]
        picture, *_ = image_tab.restyle("v1", *given, *rest)
        with gr.Blocks():
            return gr.Image(format="png").postprocess(picture).path, np.asarray(picture)

    def restore(file):
        found = dict(
            zip(
                [names.get(one._id) for one in events["restore"].outputs],
                events["restore"].fn(file),
                strict=True,
            )
        )
        return {name: found[name] for name in styles.NAMES}

    with serve(repositories) as (endpoint, _):
        use_hub(monkeypatch, endpoint, tmp_path / "cache")
        chosen = {"base": "toonyou_beta6", "stylize": "x1", "loras": ["Drawing:0.5", "own.safetensors"]}
        file, picture = draw(**chosen)
        plain, _ = draw(loras=[])
    stamp = metadata.read(file)
    assert stamp.style == Style("toonyou_beta6", None, ("Drawing:0.5", "own.safetensors"), "official")
    found = restore(file)
    assert found == chosen | {"vae": "base", "lora_strength": 1.0} and said == ["The settings are restored."]
    assert np.array_equal(draw(**found)[1], picture)
    assert restore(plain) == {"base": "", "vae": "base", "stylize": "x2", "loras": [], "lora_strength": 1.0}

    other = tmp_path / "other.png"
    stamp = metadata.Stamp(Settings(), "v1", style=Style("me/model", loras=("a.safetensors", "Drawing")))
    metadata.save(Image.new("RGB", (8, 8)), other, stamp)
    said.clear()
    assert (restore(str(other))["base"], restore(str(other))["loras"]) == ("", ["Drawing"])
    assert said[0] == "The settings are restored, but not me/model, a.safetensors."


def test_a_dropped_file_learns_nothing_of_the_disk(state, folder, monkeypatch):
    """The names in it are anybody's: whether such a file exists here, and where, is not told."""
    monkeypatch.setenv("HOME", str(folder))
    for name in ("own", "none"):
        facts = {"loras": [[f"~/{name}.safetensors", 1.0], [f"{folder}/{name}.safetensors", 1.0]]}
        _, missing = styles.restored(Style.from_facts(facts))
        assert missing == ([] if name == "own" else [f"{name}.safetensors"] * 2)


def page_components(page):
    """The style's components by the name of their argument."""
    ids = {"base": "base", "vae": "vae", "stylize": "stylize", "loras": "loras"}
    found = {name: block(page, elem_id) for name, elem_id in ids.items()}
    strength = styles.STRENGTH["label"]
    found["lora_strength"] = next(
        one for one in page.blocks.values() if getattr(getattr(one, "label", None), "key", None) == strength
    )
    return found


def test_what_a_style_needs_is_downloaded_before_the_lock_is_taken(state, folder, monkeypatch, tmp_path):
    write_lora(tmp_path / "loras" / "Drawing.safetensors", 2)
    repositories = {"songkey/toonyou_beta6": CASE / "checkpoint", "songkey/loras_sd_1_5": tmp_path / "loras"}
    given = (str(folder / "reference.png"), 1, 1, 0, 0, "", "", False, 0.5, "off")
    load, seen = states.State.drawing_reenactor, []
    with serve(repositories) as (endpoint, asked):
        use_hub(monkeypatch, endpoint, tmp_path / "cache")

        def watched(self, *arguments):
            seen.append(len(asked))
            return load(self, *arguments)

        monkeypatch.setattr(states.State, "drawing_reenactor", watched)
        image_tab.restyle("v1", *given, "toonyou_beta6", None, None, ["Drawing"], None)
        assert seen == [len(asked)] and len(asked) > 5
