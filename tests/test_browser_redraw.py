"""Results that follow their inputs, in a real browser: drawn at once, dimmed, and pasted back."""

import numpy as np
import photos
import pytest
from browser import browser, examples, needs_chromium, open_tab, result, url, visit  # noqa: F401  (fixtures)
from PIL import Image

from page import drawing, redraw, state as states

pytestmark = needs_chromium


@pytest.fixture
def drawn(monkeypatch):
    """The settings of the pictures that are drawn."""
    drawn, draw = [], drawing.draw_image

    def watched(release, reference, driver, settings, *more):
        drawn.append(settings)
        return draw(release, reference, driver, settings, *more)

    monkeypatch.setattr(drawing, "draw_image", watched)
    return drawn


@pytest.fixture
def page(visit, url, monkeypatch):
    """Opens the page, with a model that counts as fast, or as slow."""

    def page(fast):
        monkeypatch.setattr(states.STATE, "pace", {states.STATE.release: 0.1})
        monkeypatch.setattr(states.STATE, "record_pace", lambda *_: None)
        monkeypatch.setattr(redraw, "FAST", 1e6 if fast else 0)
        return visit(url)

    return page


def choose(page, label, number):
    """Clicks on an example."""
    page.locator(".block", has_text=label).locator("button.gallery-item").nth(number).click()


def wait_for_run(page, seed=0):
    """Waits until the line says so."""
    page.wait_for_function(
        "text => document.querySelector('#about').innerText.includes(text)", arg=f"seed {seed}"
    )


def wait_until_dimmed(page, dimmed=True):
    page.wait_for_selector(f"#result-view{'[data-outdated]' if dimmed else ':not([data-outdated])'}")


def set_strength(page, value):
    """By the keys, at the ends of the range."""
    page.get_by_label("range slider for Expression").focus()
    page.keyboard.press("End" if value else "Home")


def test_a_fast_model_draws_what_is_chosen(page, drawn):
    page = page(fast=True)
    choose(page, "Portraits with a face to try", 1)  # both at once
    assert result(page) == [128, 128]
    for place, name in (("#reference", "4.png"), ("#driver", "6.png")):
        assert name in page.locator(f"{place} img").get_attribute("src")
    wait_for_run(page)
    assert page.locator("#run").inner_text() == "Draw again"
    before = page.locator("#result img").get_attribute("src")
    set_strength(page, 0)
    page.wait_for_function("before => document.querySelector('#result img').src != before", arg=before)
    wait_until_dimmed(page, False)
    assert [settings.expression for settings in drawn] == [1, 0]

    # Without the other picture nothing is drawn, nor is that an error; nor while another tab is open
    page.locator("#driver").get_by_label("Remove Image").click()
    wait_until_dimmed(page)
    choose(page, "Portraits to try", 0)
    page.wait_for_timeout(500)
    assert not page.locator(".toast-body").count() and len(drawn) == 2
    open_tab(page, "Video")
    page.wait_for_timeout(300)
    choose(page, "Portraits to try", 1)
    page.wait_for_timeout(500)
    open_tab(page, "Image")
    choose(page, "Faces to try", 0)
    wait_until_dimmed(page, False)
    assert len(drawn) == 3


def test_a_slow_model_draws_when_it_is_asked_to(page, drawn, tmp_path):
    page = page(fast=False)
    page.click("#run")
    wait_for_run(page)
    wait_until_dimmed(page, False)
    assert page.locator("#run").inner_text() == "Bring it to life"
    set_strength(page, 0)
    wait_until_dimmed(page)
    choose(page, "Faces to try", 1)
    page.wait_for_timeout(500)
    assert len(drawn) == 1 and page.locator("#result img").count() == 1
    page.click("#run")
    wait_until_dimmed(page, False)
    assert [settings.expression for settings in drawn] == [1, 0]

    (tmp_path / "text.png").write_text("This is not a picture.")
    page.set_input_files("#driver input[type=file]", tmp_path / "text.png")
    page.wait_for_function("document.querySelector('#driver img')?.getAttribute('src').includes('text.png')")
    page.click("#run")
    page.wait_for_selector("text=The picture to copy text.png is not a picture")
    page.wait_for_function("document.querySelector('#about').innerText.trim() == ''")
    wait_until_dimmed(page)
    choose(page, "Faces to try", 1)  # the inputs of the result that is still shown
    wait_until_dimmed(page)


def test_the_last_request_wins(page, drawn):
    """The first one waits while somebody else draws."""
    page = page(fast=True)
    with states.STATE.drawing_lock:
        set_strength(page, 0)
        for _ in range(200):
            if states.STATE.runs.flags:
                break
            page.wait_for_timeout(100)
        for value in (2, 0, 2):
            set_strength(page, value)
            page.wait_for_timeout(300)
        assert len(drawn) <= 1
    wait_for_run(page)
    wait_until_dimmed(page, False)
    assert [settings.expression for settings in drawn][-1] == 2 and len(drawn) <= 2
    assert not page.locator(".toast-body").count() and not states.STATE.runs.flags


def test_the_result_is_pasted_back_without_a_new_run(page, drawn, tmp_path):
    wide = Image.new("RGB", (640, 256), "grey")
    wide.paste(Image.fromarray(photos.toon(3)), (192, 0))
    wide.save(tmp_path / "wide.png")
    page = page(fast=True)
    page.set_input_files("#reference input[type=file]", tmp_path / "wide.png")
    assert result(page) == [128, 128]
    wait_for_run(page)
    page.get_by_label("Whole picture").check()
    assert result(page, "#whole") == [640, 256] and not page.locator("#result").is_visible()
    soft = page.locator("#whole img").get_attribute("src")
    page.get_by_label("range slider for Soft edge").focus()
    page.keyboard.press("Home")
    page.wait_for_function("before => document.querySelector('#whole img').src != before", arg=soft)
    with page.expect_download() as download:
        page.locator("#whole").get_by_label("Download").click()
    download.value.save_as(tmp_path / "whole.png")
    with Image.open(tmp_path / "whole.png") as whole:
        changed = np.any(np.asarray(whole) != np.asarray(wide), axis=2)
        assert changed[:, 200:440].mean() > 0.5 and not changed[:, :64].any()
        assert '"feather": 0.0' in whole.info["hellomeme"]
    page.get_by_label("Before/after").check()
    page.wait_for_function("""() => {
        const both = [...document.querySelectorAll("#compare img")];
        return both.length === 2 && both.every(img => img.naturalWidth === 640 && img.checkVisibility());
    }""")
    assert len(drawn) == 1

    after = page.locator("#compare img").last.get_attribute("src")
    set_strength(page, 0)  # the view stays
    page.wait_for_function(
        "before => [...document.querySelectorAll('#compare img')].at(-1)?.src != before", arg=after
    )
    states.STATE.kept.end(next(iter(states.STATE.kept._results.values()))[0])
    page.get_by_label("Whole picture").check()
    page.wait_for_selector("text=This result is no longer kept here: draw it again.")
    assert result(page) == [128, 128] and len(drawn) == 2


def test_an_edited_face_is_pasted_back_and_drawn_anew(page):
    page = page(fast=True)
    open_tab(page, "Expression")
    page.wait_for_selector("#preset-laugh")
    page.click("#preset-laugh")
    assert result(page, "#expression-result") == [128, 128]
    page.locator("#expression-view").get_by_label("Whole picture").check()
    assert result(page, "#expression-whole") == [256, 256]
    before = page.locator("#expression-whole img").get_attribute("src")
    page.get_by_text("Model and more settings").click()
    page.locator("#seed input").fill("7")
    page.wait_for_function(
        "before => (document.querySelector('#expression-whole img')?.src ?? before) != before", arg=before
    )
    assert "seed 7" in page.locator("#expression-about").inner_text()
