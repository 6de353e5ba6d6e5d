"""What a visitor gets before the first click: few requests and bytes, and results of the demo model."""

import itertools
import sys
from fractions import Fraction
from pathlib import Path

import httpx
import numpy as np
import pytest
from browser import browser, needs_chromium, open_tab, result, served, visit  # noqa: F401  (fixtures)
from PIL import Image

from examples import results
from hellomeme import ClipSettings, Reenactor
from hellomeme.face import edit
from hellomeme.io import metadata
from hellomeme.io.ffmpeg import read_frames
from hellomeme.releases.load import find
from hellomeme.releases.styles import Style
from page import components, gradio_assets, opening, state as states, thumbnails

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from first_load import requests_of  # noqa: E402

SIDE = find("demo").size
EQUAL = 8  # levels of 255: pictures of other faces, and frames that are far apart, differ by 20 and more
REQUESTS, BYTES = 60, 1_000_000  # the requests without the result


@pytest.fixture(scope="module")
def shipped_url():
    """The page as it is shipped, with the demo model, which nothing here loads."""
    yield from served(states.State("demo", device="cpu"), components.EXAMPLES)


@needs_chromium
def test_the_first_load_is_small(browser, shipped_url):
    context = browser.new_context()
    asked = requests_of(context.new_page(), shipped_url)
    context.close()
    results = [request for request in asked if request.url.endswith("/june-laugh.webp")]
    assert len(results) == 1 and 20 < len(asked) - len(results) <= REQUESTS
    assert 200_000 < sum(request.size for request in asked) <= BYTES


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_results_are_there_before_a_click(visit, shipped_url, scheme):
    page = visit(shipped_url, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    assert result(page) == [SIDE, SIDE]
    assert page.locator("#about").inner_text() == "june · laugh"
    names = page.locator("button.gallery-item").evaluate_all("all => all.map(each => each.ariaLabel)")
    assert {"laugh", "sad", "june", "tariq"} < set(names)
    open_tab(page, "Video")
    film = page.wait_for_selector("#video-result video")
    page.wait_for_function("film => !film.paused && film.currentTime > 0.1", arg=film)
    open_tab(page, "Expression")
    assert result(page, "#expression-result") == [SIDE, SIDE]
    smile = edit.Edit.load(results.RESULTS / "june-own.json").coefficients["mouthSmileLeft"]
    page.get_by_text("All 51 coefficients").click()
    page.locator("#all-sliders").get_by_text("Mouth", exact=True).click()
    shown = page.wait_for_selector("#slider-mouthSmileLeft input")
    assert shown.input_value() == str(smile) and smile > 0.3
    offered = page.locator("#sliders button[id^=preset]:visible").all_inner_texts()
    assert offered == ["Laugh", "Wink", "Shocked", "Kiss", "Sad", "Sceptical"]
    open_tab(page, "Gallery")
    page.wait_for_function("document.querySelectorAll('#grid img').length == 64")
    height = "grid => grid.clientHeight == grid.scrollHeight"
    assert page.locator("#grid .grid-wrap").evaluate(height), "the grid is cut off"
    page.locator("#grid img").nth(9).click()
    page.wait_for_selector("#about >> text=iris · asleep")


def test_what_is_replaced_in_the_script_of_gradio():
    (script,) = gradio_assets.ASSETS.glob("core-*.js")
    own = script.read_text(encoding="utf-8")
    assert [own.count(old) for old in gradio_assets.REPLACED] == [1, 1, 1, 1]
    lazy = gradio_assets.lazy_script(script)
    assert own != lazy
    assert lazy.count(gradio_assets.LOAD) == 2  # at the end, and for a part that is rendered again
    assert f"{gradio_assets.HIDE},{gradio_assets.LOAD}]" in lazy


def test_what_is_sent_is_compressed_and_kept(shipped_url):
    name, text, bundled = gradio_assets.styles()
    assert len(bundled) > 20
    assert all((gradio_assets.ASSETS / style).read_text(encoding="utf-8") in text for style in bundled)
    (script,) = (path.name for path in gradio_assets.ASSETS.glob("core-*.js"))
    (first,) = (path.name for path in gradio_assets.ASSETS.glob("index-*.css"))
    kept = gradio_assets.FOREVER["Cache-Control"]
    for path, age in (
        ("", None),
        (f"assets/{name}", kept),
        (f"assets/{first}", kept),
        (f"assets/{script}", "no-cache"),
    ):
        answer = httpx.get(shipped_url + path)
        assert answer.headers.get("cache-control") == age
        assert answer.headers["content-encoding"] in ("br", "gzip")
        assert int(answer.headers["content-length"]) < len(answer.content) / 2
    assert name in httpx.get(f"{shipped_url}assets/{script}").text
    assert httpx.get(f"{shipped_url}assets/missing.js").status_code == 404
    assert httpx.get(f"{shipped_url}assets/core-missing.js").status_code == 404
    picture = httpx.get(f"{shipped_url}favicon.ico")
    assert "content-encoding" not in picture.headers


def test_shipped_results_are_those_of_the_model(tmp_path):
    reenactor = Reenactor.from_release("demo", device="cpu")
    for path in results.pictures(reenactor, tmp_path, ["june", "nova"], ["laugh", "sad"]):
        shipped = results.RESULTS / path.name
        assert metadata.read(path) == metadata.read(shipped)
        assert distance(*(np.asarray(Image.open(each).convert("RGB")) for each in (path, shipped))) < EQUAL
    for path in results.own_faces(reenactor, tmp_path, ["june", "nova"]):
        read, shipped = (edit.Edit.load(folder / path.name).values for folder in (tmp_path, results.RESULTS))
        assert all(abs(read[name] - shipped[name]) < 0.05 for name in read)
    results.own_picture(reenactor, tmp_path / "own.webp")
    own, shipped = (Image.open(path) for path in (tmp_path / "own.webp", results.RESULTS / "june-own.webp"))
    assert distance(*(np.asarray(picture.convert("RGB")) for picture in (own, shipped))) < EQUAL
    results.clip(reenactor, tmp_path / "clip.mp4", frames=12, start=0.0)
    shipped = results.RESULTS / f"{results.REFERENCE}-{results.CLIP}.mp4"
    assert metadata.read(shipped).clip == ClipSettings()
    both = zip(*(read_frames(path, Fraction(24)) for path in (tmp_path / "clip.mp4", shipped)), strict=False)
    for drawn, kept in itertools.islice(both, 8):  # the last frames were smoothed with others that follow
        assert distance(drawn, kept) < EQUAL


def distance(one, other):
    """Root of the mean squared difference, levels of 255."""
    return np.sqrt(np.mean((one.astype(float) - other) ** 2))


def test_shipped_results_are_shown_for_their_model_only(monkeypatch, model_folder):
    references, drivers = components.examples("references"), components.examples("drivers")
    assert len(opening.shipped_grid(references, drivers)) == 64
    assert sum(file.stat().st_size for file in results.RESULTS.iterdir()) < 700_000
    assert opening.shipped(references[0], drivers[0]).endswith("june-laugh.webp")
    assert opening.shipped(references[0], None) is None
    assert opening.shipped(references[0], opening.OWN).endswith("june-own.webp")
    assert any(opening.own_face(references[0])) and not any(opening.own_face(None))
    monkeypatch.setattr(states, "STATE", states.State("demo", face_models="other"))  # reads other values
    assert not any(opening.own_face(references[0]))
    for other in (states.State(str(model_folder)), states.State("demo", style=Style(base="some"))):
        monkeypatch.setattr(states, "STATE", other)
        assert opening.shipped(references[0], drivers[0]) is None
        assert opening.shipped_grid(references, drivers) == []


def test_thumbnails_are_small_and_named():
    for path in components.examples("references") + components.examples("clips", "mp4"):
        address = thumbnails.thumbnail(path)
        assert address.startswith(f"data:image/webp;name={Path(path).stem};base64,") and len(address) < 9000
