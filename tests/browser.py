"""The page in a real browser, Chromium as Debian packages it, driven by Playwright: fixtures, and what a
visitor does."""

import shutil
from fractions import Fraction

import photos
import pytest
from PIL import Image

import app
from hellomeme.io.ffmpeg import ClipWriter
from page import components, state as states

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine: on Debian, apt-get install chromium"
)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    for kind, seeds in (("references", (3, 4)), ("drivers", (5, 6))):
        (folder / kind).mkdir()
        for seed in seeds:
            Image.fromarray(photos.toon(seed, yaw=10 * (seed - 4))).save(folder / kind / f"{seed}.png")
    return folder


def served(state, examples):
    """Yields the address of the page, in another thread of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "STATE", state)
        patch.setattr(components, "EXAMPLES", examples)
        page = app.build()
        _, url, _ = page.launch(
            prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", run_history=False, **app.LOOKS
        )
        yield url
        page.close()


@pytest.fixture(scope="module")
def url(model_folder, examples):
    yield from served(states.State(str(model_folder), device="cpu"), examples)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    switches = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
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
        page.on(
            "request", lambda asked: asked.url.startswith((url, "data:", "blob:")) or wrong.append(asked.url)
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        page.wait_for_selector("#run")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert wrong == []


def set_number(page, label, value):
    """Types a number beside a slider, and again where a page that is still busy with itself did not take
    it."""
    box, slider = (page.get_by_label(f"{kind} for {label}") for kind in ("number input", "range slider"))
    for _ in range(20):
        box.fill(str(value))
        box.press("Tab")
        page.wait_for_timeout(300)
        if box.input_value() == slider.input_value() == str(value):
            return
    raise AssertionError(f"{label} did not become {value}")


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def result(page, place="#result"):
    """The result's size in pixels of the picture, once it is there."""
    picture = page.wait_for_selector(f"{place} img")
    return picture.evaluate(
        "async img => { await img.decode(); return [img.naturalWidth, img.naturalHeight] }"
    )


def choose_clip(page, folder, steps):
    """Opens the Video tab with a clip of 4 frames and this many steps."""
    with ClipWriter(folder / "driver.mp4", Fraction(12)) as writer:
        for frame in range(4):
            writer.write(photos.toon(5, yaw=4 * frame))
    page.get_by_text("Model and more settings").click()
    set_number(page, "Steps", steps)
    open_tab(page, "Video")
    page.set_input_files("#video-driver input[type=file]", folder / "driver.mp4")
    page.wait_for_selector("#estimate >> text=4 frames")


def film(page, place="#video-result"):
    """The size of the clip that was made, once it can be seen, and its error."""
    shown = page.wait_for_selector(f"{place} video")
    page.wait_for_function("film => film.readyState >= 2", arg=shown)
    return shown.evaluate("film => [film.videoWidth, film.videoHeight, film.error]")
