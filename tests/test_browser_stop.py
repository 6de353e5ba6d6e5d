"""Stop, in a real browser: what is drawn, what waits for its turn, and a clip."""

import time

from browser import browser, choose_clip, examples, film, needs_chromium, result, set_number, url, visit  # noqa: F401  (fixtures)

from hellomeme.face.paste import paste
from hellomeme.sampling.image import sample
from page import state as states

pytestmark = needs_chromium


def unhurried(denoise, *more, **options):
    """`sample`, a second a step: the tiny model would be done before a busy browser has clicked."""
    return sample(lambda *state: (time.sleep(1), denoise(*state))[1], *more, **options)


def wait_until_stopped(page, place):
    """Waits until the page says so, and shows a run no longer, nor an error."""
    page.wait_for_selector("text=Stopped.")
    page.wait_for_function(
        "place => !/steps|frames|Drawing|Error/.test(document.querySelector(place).innerText)", arg=place
    )
    assert not states.STATE.runs.flags


def test_progress_and_stop(visit, url, monkeypatch):
    monkeypatch.setattr("hellomeme.pipeline.sample", unhurried)
    page = visit(url)
    page.get_by_text("Model and more settings").click()
    set_number(page, "Steps", 50)
    assert page.locator("#stop").is_disabled()
    page.click("#run")
    page.wait_for_function("/\\d+\\/50 steps/.test(document.querySelector('#result').innerText)")
    page.click("#stop")
    wait_until_stopped(page, "#result")
    page.wait_for_selector("#stop:disabled")
    assert page.locator("#result img").count() == 0
    set_number(page, "Steps", 1)  # the slot is free again
    page.click("#run")
    assert result(page) == [128, 128]


def test_stop_ends_what_waits_for_its_turn(visit, url, examples, monkeypatch):
    """While somebody else draws, who is not stopped by it."""
    from gradio_client import Client, handle_file

    monkeypatch.setattr("hellomeme.pipeline.sample", unhurried)
    page = visit(url)
    other, picture = Client(url, verbose=False), handle_file(examples / "drivers" / "5.png")
    drawing = other.submit(reference=picture, driver=picture, steps=50, api_name="/image")
    for _ in range(600):
        if states.STATE.runs.flags or drawing.done():
            break
        page.wait_for_timeout(100)
    page.click("#run")
    page.wait_for_function("/queue/.test(document.querySelector('#result').innerText)")
    page.click("#stop")
    page.wait_for_selector("text=Stopped.")
    page.wait_for_function("!/queue|Error/.test(document.querySelector('#result').innerText)")
    assert states.STATE.runs.flags and not drawing.done()
    other.predict(api_name="/stop")
    assert drawing.result(timeout=60)[0] is None or "__type__" in drawing.result()[0]
    assert page.locator("#result img").count() == 0 and not states.STATE.runs.flags


def test_stop_ends_a_clip(visit, url, tmp_path, monkeypatch):
    page = visit(url)
    choose_clip(page, tmp_path, steps=50)
    with monkeypatch.context() as patch:
        patch.setattr("hellomeme.sampling.windows.sample", unhurried)
        page.click("#video-run")
        page.wait_for_function("/Drawing/.test(document.querySelector('#video-result').innerText)")
        page.click("#video-stop")
        wait_until_stopped(page, "#video-result")
        page.wait_for_selector("#video-stop:disabled")
        assert page.locator("#video-result video").count() == 0
    set_number(page, "Steps", 1)  # the slot is free again
    page.click("#video-run")
    assert film(page) == [128, 128, None]
    page.wait_for_selector("#video-stop:disabled")
    page.wait_for_selector("text=Stopped.", state="detached")
    monkeypatch.setattr("hellomeme.pasted_clip.paste", lambda *given: (time.sleep(1), paste(*given))[1])
    page.locator("#video-view").get_by_label("Whole picture").check()
    page.wait_for_function("/Pasting/.test(document.querySelector('#video-result').innerText)")
    page.click("#video-stop")
    wait_until_stopped(page, "#video-result")
    page.wait_for_selector("#video-stop:disabled")
    assert page.locator("#video-view").get_by_label("Face").is_checked()
