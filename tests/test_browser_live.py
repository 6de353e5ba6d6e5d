"""The Live tab in a real browser, with a clip in place of the camera."""

import threading

import numpy as np
import photos
import pytest
from browser import CHROMIUM, examples, needs_chromium, open_tab, served, visit  # noqa: F401  (fixtures)
from PIL import Image

from hellomeme.io import metadata
from hellomeme.io.ffmpeg import probe
from page import live_tab, state as states

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def url(model_folder, examples):  # noqa: F811
    yield from served(states.State(str(model_folder), device="cpu"), examples)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium with a camera before which a drawn head turns from side to side."""
    from playwright.sync_api import sync_playwright

    film = tmp_path_factory.mktemp("camera") / "head.mjpeg"
    with open(film, "wb") as file:
        for k in range(30):
            head = photos.toon(5, yaw=15 * np.sin(2 * np.pi * k / 30))
            Image.fromarray(head).save(file, "jpeg", quality=95)
    switches = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    switches += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        arguments = [*switches, f"--use-file-for-fake-video-capture={film}"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def new_picture(page):
    """Waits for another picture than the one that is shown."""
    before = page.evaluate("document.querySelector('#live-result img')?.src ?? null")
    page.wait_for_function(
        "before => ![null, before].includes(document.querySelector('#live-result img')?.src ?? null)",
        arg=before,
    )


def start(page):
    open_tab(page, "Live")
    page.locator("#live-camera").get_by_text("Open the camera").click()
    page.wait_for_function("document.querySelector('#live-camera video')?.videoWidth > 0")
    page.locator("#live-camera").get_by_text("Go live").click()


def test_the_portrait_follows_the_camera(visit, url, tmp_path):  # noqa: F811
    page = visit(url)
    open_tab(page, "Live")
    assert page.locator("#live-record").is_disabled()
    start(page)
    for _ in range(3):
        new_picture(page)
    assert page.evaluate("document.querySelector('#live-result img').naturalWidth") == 128
    assert page.evaluate("document.querySelector('#live-result img').src").startswith("data:")
    page.wait_for_function("document.querySelector('#live-about').innerText.includes(' fps')")

    page.click("#live-neutral")
    page.wait_for_function("!document.querySelector('#live-absolute').disabled")
    page.click("#live-record")
    page.wait_for_selector("#live-record >> text=Stop and save")
    for _ in range(3):
        new_picture(page)
    page.click("#live-record")
    page.wait_for_selector("#live-clip video")
    with page.expect_download() as download:
        page.locator("#live-clip").get_by_label("Download").click()
    download.value.save_as(tmp_path / "live.mp4")
    assert metadata.read(tmp_path / "live.mp4").labelled and probe(tmp_path / "live.mp4").frames >= 2

    page.get_by_text("Stop", exact=True).locator("visible=true").first.click()
    page.wait_for_function("document.querySelector('#live-record').disabled")
    page.wait_for_timeout(1500)  # the last pictures come
    before = page.evaluate("document.querySelector('#live-result img').src")
    page.wait_for_timeout(1500)
    assert page.evaluate("document.querySelector('#live-result img').src") == before
    visitors = states.STATE.live._sessions
    assert len(visitors) == 1
    page.close()
    for _ in range(100):  # they are forgotten
        if not visitors:
            break
        threading.Event().wait(0.1)
    assert not visitors


def test_whoever_leaves_without_a_stop_makes_room(visit, url):  # noqa: F811
    for _ in range(live_tab.VISITORS + 1):
        page = visit(url)
        start(page)
        new_picture(page)
        page.close()
