"""The Expression tab in a real browser: sliders that follow each other, mixtures, files, and the result."""

import json

import pytest
from browser import browser, examples, needs_chromium, open_tab, result, set_number, url, visit  # noqa: F401  (fixtures)

pytestmark = needs_chromium
PICTURE = "#expression-result img"


def source(page):
    """The address of the result; None where there is none yet."""
    return page.locator(PICTURE).get_attribute("src") if page.locator(PICTURE).count() else None


def until_drawn(page, act):
    """Calls `act`, and returns once another picture is there."""
    before = source(page)
    act()
    page.wait_for_function(
        "([place, before]) => (document.querySelector(place)?.src ?? before) != before", arg=[PICTURE, before]
    )


def until_it_is(page, slider, value):
    page.wait_for_function(
        "([slider, value]) => document.querySelector(`#${slider} input`)?.value == value", arg=[slider, value]
    )


def load(page, path):
    with page.expect_file_chooser() as chooser:
        page.click("#load-face")
    chooser.value.set_files(path)


def press(page, slider, key):
    """As from the keyboard."""
    page.locator(f"#{slider} input[type=range]").focus()
    page.keyboard.press(key)


def test_plain_sliders_and_all_follow_each_other(visit, url):
    page = visit(url)
    open_tab(page, "Expression")
    until_drawn(page, lambda: page.click("#preset-laugh"))
    until_it_is(page, "control-smile", "0.95")
    until_it_is(page, "control-mouth_open", "0.6")
    page.get_by_text("All 51 coefficients").click()
    page.locator("#all-sliders").get_by_text("Mouth", exact=True).click()
    until_it_is(page, "slider-mouthSmileRight", "0.95")
    until_drawn(page, lambda: press(page, "control-smile", "Home"))  # to -1
    until_it_is(page, "slider-mouthFrownLeft", "1")
    until_it_is(page, "slider-mouthSmileRight", "0")
    until_drawn(page, lambda: press(page, "slider-mouthFrownLeft", "Home"))
    until_it_is(page, "control-smile", "-0.5")
    until_drawn(page, lambda: press(page, "turn-yaw", "Home"))
    until_it_is(page, "turn-yaw", "-60")
    until_it_is(page, "slider-mouthFrownRight", "1")  # the last event has left it alone
    until_drawn(page, lambda: press(page, "control-mouth_open", "End"))  # sets one coefficient alone


def test_faces_are_mixed_saved_and_loaded(visit, url, tmp_path):
    page = visit(url)
    open_tab(page, "Expression")
    until_drawn(page, lambda: page.click("#reset-face"))
    until_drawn(page, lambda: page.click("#preset-shocked"))
    until_it_is(page, "control-mouth_open", "0.75")
    until_drawn(page, lambda: set_number(page, "Turn", 20))
    until_drawn(page, lambda: press(page, "mix", "Home"))  # the face before, but for what was moved by hand
    until_it_is(page, "control-mouth_open", "0")
    until_it_is(page, "turn-yaw", "20")
    until_drawn(page, lambda: press(page, "mix", "End"))
    until_it_is(page, "control-mouth_open", "0.75")
    with page.expect_download() as download:
        page.click("#save-face")
    assert download.value.suggested_filename == "expression.json"
    download.value.save_as(tmp_path / "mine.json")
    values = json.loads((tmp_path / "mine.json").read_text())["values"]
    assert (values["yaw"], values["jawOpen"], values["eyeWideLeft"]) == (20, 0.75, 0.9)

    until_drawn(page, lambda: page.click("#preset-kiss"))
    until_it_is(page, "turn-yaw", "0")
    until_drawn(page, lambda: load(page, tmp_path / "mine.json"))
    until_it_is(page, "turn-yaw", "20")
    until_it_is(page, "control-brows", "0.87")
    (tmp_path / "bad.json").write_text("{}")
    load(page, tmp_path / "bad.json")
    page.wait_for_selector("text=bad.json is not an expression of HelloMeme or is damaged")
    until_it_is(page, "turn-yaw", "20")


def test_what_the_sliders_show_goes_with_another_portrait(visit, url):
    page = visit(url)
    page.click("#run")  # the model is loaded
    assert result(page) == [128, 128]
    open_tab(page, "Expression")
    assert result(page, "#expression-result") == [128, 128]
    portraits = page.locator("#portrait button.gallery-item")

    def smile(button):
        """Clicks, and returns how far the mouth smiles once a picture of that is there."""
        until_drawn(page, button.click)
        return page.locator("#control-smile input").first.input_value()

    own = smile(portraits.nth(1))
    assert own != "0"
    shown = [smile(page.locator("#preset-laugh")), smile(portraits.nth(0)), smile(portraits.nth(1))]
    assert shown == ["0.95"] * 3
    assert smile(page.locator("#own-face")) == own
    assert smile(portraits.nth(0)) not in (own, "0.95")


def test_the_fine_run_is_there_where_it_differs(visit, url):
    page = visit(url)
    open_tab(page, "Expression")
    page.wait_for_selector("#save-face")
    assert not page.locator("#expression-run").is_visible()  # the model draws in one step
    page.get_by_text("Model and more settings").click()
    set_number(page, "Steps", 3)
    page.wait_for_selector("#expression-run")
    until_drawn(page, lambda: page.click("#preset-laugh"))
    page.wait_for_selector("#expression-about >> text=Preview · ")
    until_drawn(page, lambda: page.click("#expression-run"))
    page.wait_for_selector("#expression-about >> text=3 steps")
    set_number(page, "Steps", 1)
    page.wait_for_selector("#expression-run", state="hidden")
    page.get_by_label("Live preview").uncheck()
    page.wait_for_selector("#expression-run")


@pytest.mark.parametrize(
    "size", [{"width": 1280, "height": 800}, {"width": 390, "height": 844}], ids=["desktop", "phone"]
)
def test_the_result_stays_in_sight(visit, url, size):
    page = visit(url, viewport=size)
    open_tab(page, "Expression")
    page.get_by_text("All 51 coefficients").click()
    page.locator("#all-sliders").get_by_text("Mouth", exact=True).click()
    last = page.locator("#slider-mouthRight")
    last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 100)
    page.wait_for_function("scrollY > 500")
    box = page.locator("#expression-result").bounding_box()
    assert 0 <= box["y"] < 20 and box["height"] < size["height"] / 2
    if size["width"] < 500:
        assert box["height"] < size["height"] / 4
    else:
        assert box["x"] < last.bounding_box()["x"]
    seen = "box => document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)"
    assert page.evaluate(f"{seen.replace('=> ', '=> !!')}.closest('#expression-result')", box)
