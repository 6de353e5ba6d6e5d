"""The page in a real browser: Chromium, as Debian packages it, driven by Playwright."""

import shutil

import photos
import pytest
from PIL import Image

import app
from hellomeme import releases

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: on Debian, apt-get install chromium")
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    for kind, seeds in (("references", (3, 4)), ("drivers", (5, 6))):
        (folder / kind).mkdir()
        for seed in seeds:
            Image.fromarray(photos.toon(seed, yaw=10 * (seed - 4))).save(folder / kind / f"{seed}.png")
    return folder


def served(studio, examples):
    """Yields the address of the page, in another thread of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "STUDIO", studio)
        patch.setattr(app, "EXAMPLES", examples)
        page = app.build()
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", run_history=False, **app.LOOKS)
        yield url
        page.close()


@pytest.fixture(scope="module")
def url(model_folder, examples):
    yield from served(app.Studio(str(model_folder), device="cpu"), examples)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=switches)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, request):
    """Opens the page; anything it asks of another host, and any error in its console, fails the test."""
    contexts, wrong = [], []

    def visit(url, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or wrong.append(asked.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#run")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def set_number(page, label, value):
    box = page.get_by_label(f"number input for {label}")
    box.fill(str(value))
    box.press("Tab")


def result(page):
    """The result's size in pixels of the picture, once it is there."""
    picture = page.wait_for_selector("#result img")
    return picture.evaluate("async img => { await img.decode(); return [img.naturalWidth, img.naturalHeight] }")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_example_is_chosen_run_and_seen(visit, url, scheme, tmp_path):
    page = visit(url, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    for kind, label in (("driver", "Faces to try"), ("reference", "Portraits to try")):
        before = page.locator(f"#{kind} img").get_attribute("src")
        page.locator(".block", has_text=label).locator("button.gallery-item").nth(1).click()
        page.wait_for_function(f"before => document.querySelector('#{kind} img')?.getAttribute('src') != before", arg=before)
    page.click("#run")
    assert result(page) == [128, 128]
    page.wait_for_function("document.querySelector('#about').innerText.includes('seed 0')")
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    with Image.open(shot) as picture:
        assert picture.width == 1280 and len(picture.convert("RGB").getcolors(1 << 24)) > 1000


def test_progress_and_stop(visit, url):
    page = visit(url)
    page.get_by_text("Model and more settings").click()
    set_number(page, "Steps", 50)
    page.click("#run")
    page.wait_for_function("/\\d+\\/50 steps/.test(document.querySelector('#result').innerText)")
    page.click("#stop")
    page.wait_for_function("!document.querySelector('#result').innerText.includes('steps')")
    assert page.locator("#result img").count() == 0
    set_number(page, "Steps", 1)  # the slot is free again
    page.click("#run")
    assert result(page) == [128, 128]


def test_a_bad_picture_shows_its_sentence(visit, url, tmp_path):
    page = visit(url)
    (tmp_path / "text.png").write_text("This is not a picture.")
    page.set_input_files("#driver input[type=file]", tmp_path / "text.png")
    page.wait_for_function("document.querySelector('#driver img')?.getAttribute('src').includes('text.png')")
    page.click("#run")
    page.wait_for_selector(f"text={photos.BAD['text.png']}")


def test_dice(visit, url):
    page = visit(url)
    page.get_by_text("Model and more settings").click()
    seed = page.locator("#seed input")
    assert seed.input_value() == "0"
    page.click("#dice")
    page.wait_for_function("document.querySelector('#seed input').value != '0'")
    assert 0 < int(seed.input_value()) < 2**31


def test_a_model_that_cannot_run_here_says_why(visit, url):
    page = visit(url)
    page.get_by_text("Model and more settings").click()
    page.locator("#model input").click()
    page.get_by_role("option", name="HelloMeme v1").click()
    page.wait_for_selector("#note >> text=Cannot run here.")


def test_a_phone_scrolls_down_only(visit, url):
    page = visit(url, viewport=PHONE, has_touch=True, is_mobile=True)
    page.wait_for_selector("#driver img")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator("#run").tap()
    assert result(page) == [128, 128]


@pytest.mark.skipif(not releases.DEMO.is_dir(), reason="the demo model is not in assets/demo")
def test_the_bundled_demo_draws(visit, examples):
    for url in served(app.Studio(device="cpu"), examples):
        page = visit(url)
        page.click("#run")
        assert result(page) == [128, 128]
