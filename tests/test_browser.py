"""The page in a real browser: every tab, as visitors use it."""

import re
from fractions import Fraction

import clips
import photos
import pytest
from browser import (  # noqa: F401  (fixtures)
    browser,
    choose_clip,
    examples,
    film,
    needs_chromium,
    open_tab,
    result,
    served,
    set_number,
    url,
    visit,
)
from PIL import Image

from hellomeme.io.ffmpeg import ClipWriter
from hellomeme.releases.load import find
from hellomeme.releases.table import DEMO
from page import state as states

pytestmark = needs_chromium
PHONE = {"width": 390, "height": 844}
# Tab -> a part of it
TABS = {
    "Image": "#run",
    "Video": "#video-run",
    "Expression": "#save-face",
    "Live": "#live-record",
    "Gallery": "#gallery-run",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_example_is_chosen_run_and_seen(visit, url, scheme, tmp_path):
    page = visit(url, viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    for kind, label in (("driver", "Faces to try"), ("reference", "Portraits to try")):
        before = page.locator(f"#{kind} img").get_attribute("src")
        page.locator(".block", has_text=label).locator("button.gallery-item").nth(1).click()
        page.wait_for_function(
            f"before => document.querySelector('#{kind} img')?.getAttribute('src') != before", arg=before
        )
    page.click("#run")
    assert result(page) == [128, 128]
    page.wait_for_function("document.querySelector('#about').innerText.includes('seed 0')")
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    with Image.open(shot) as picture:
        assert picture.width == 1280 and len(picture.convert("RGB").getcolors(1 << 24)) > 1000


def choose_by_the_icon(page, place, path):
    """With the icon for a file below a picture or clip, which is not removed first."""
    with page.expect_file_chooser() as chooser:
        page.locator(f"{place} [data-testid=source-select] button").first.click()
    chooser.value.set_files(path)


def test_a_bad_picture_shows_its_sentence(visit, url, tmp_path):
    page = visit(url)
    page.locator(".block", has_text="Faces to try").locator("button.gallery-item").nth(1).click()
    page.wait_for_function("document.querySelector('#driver img')?.getAttribute('src').includes('6.png')")
    (tmp_path / "text.png").write_text("This is not a picture.")
    choose_by_the_icon(page, "#driver", tmp_path / "text.png")
    page.wait_for_function("document.querySelector('#driver img')?.getAttribute('src').includes('text.png')")
    page.click("#run")
    page.wait_for_selector("text=The picture to copy text.png is not a picture")


def test_a_picture_is_pasted_by_the_keys_for_it(visit, url):
    page = visit(url)
    page.locator("#reference").hover()
    page.evaluate("""async () => {
        const canvas = new OffscreenCanvas(64, 64);
        canvas.getContext("2d").fillRect(9, 9, 9, 9);
        const files = new DataTransfer();
        files.items.add(new File([await canvas.convertToBlob()], "pasted.png", {type: "image/png"}));
        const pasted = new ClipboardEvent("paste", {clipboardData: files, bubbles: true});
        document.activeElement.dispatchEvent(pasted);
    }""")
    page.wait_for_function(
        "document.querySelector('#reference img')?.getAttribute('src').includes('pasted.png')"
    )
    assert "pasted" not in page.locator("#driver img").get_attribute("src")


def click_at(page, place, x, y):
    """Clicks on the pixel (x, y) of the picture there, which is shown as large as it fits into its
    element."""
    position = page.locator(f"{place} img").evaluate(
        """async (img, [x, y]) => {
            await img.decode();
            const {width, height} = img.getBoundingClientRect();
            const scale = Math.min(width / img.naturalWidth, height / img.naturalHeight);
            const within = (room, natural, at) => (room - scale * natural) / 2 + scale * at;
            return {x: within(width, img.naturalWidth, x), y: within(height, img.naturalHeight, y)};
        }""",
        [x, y],
    )
    page.locator(f"{place} img").click(position=position)


def test_one_of_two_faces_is_chosen_by_a_click(visit, url, tmp_path):
    both = Image.new("RGB", (448, 256), "grey")
    both.paste(Image.fromarray(photos.toon(3)))
    both.paste(Image.fromarray(photos.toon(5)).resize((192, 192)), (256, 32))
    both.save(tmp_path / "both.png")
    page = visit(url)
    page.wait_for_selector("#driver img")
    assert not page.locator("#driver-faces").is_visible()
    page.set_input_files("#driver input[type=file]", tmp_path / "both.png")
    page.wait_for_selector("#driver-faces img")
    number = page.locator("#driver-face input")
    assert number.input_value() == "1"
    for x, chosen in ((352, "2"), (128, "1")):  # the middle of each, the smaller one first
        click_at(page, "#driver-faces", x, 140)
        page.wait_for_function(
            "chosen => document.querySelector('#driver-face input').value === chosen", arg=chosen
        )


NAMELESS = """() => {
    const seen = {visibilityProperty: true, opacityProperty: true};
    const all = [...document.querySelectorAll("input, textarea, select, button")];
    const shown = all.filter(one => one.checkVisibility(seen));
    const text = id => document.getElementById(id)?.textContent;
    const named = element => [
        element.ariaLabel, element.title, element.textContent,
        ...[...element.labels ?? []].map(label => label.textContent),
        ...(element.getAttribute("aria-labelledby") ?? "").split(" ").map(text),
        ...[...element.querySelectorAll("[alt], [aria-label]")].map(within => within.alt || within.ariaLabel),
    ].some(words => words?.trim());
    return [shown.length, shown.filter(element => !named(element)).map(element => element.outerHTML)];
}"""


def test_everything_to_press_or_to_fill_in_has_a_name(visit, url):
    page = visit(url)
    for name, shown in TABS.items():
        open_tab(page, name)
        page.wait_for_selector(shown)
        while closed := page.locator("button.label-wrap:not(.open):visible").element_handles():
            for each in closed:  # also within those that were opened before
                each.click()
            page.wait_for_timeout(300)
        count, nameless = page.evaluate(NAMELESS)
        assert count > 20 and nameless == [], name
    page.evaluate("document.querySelector('#gallery-run').innerHTML = '<svg></svg>'")
    assert len(page.evaluate(NAMELESS)[1]) == 1  # it would be found


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
    page.wait_for_selector("#facts >> text=the hub cannot be reached now, and up to 4.8 GB")


def test_a_phone_scrolls_down_only(visit, url):
    page = visit(url, viewport=PHONE, has_touch=True, is_mobile=True)
    page.wait_for_selector("#driver img")
    for name, shown in TABS.items():
        page.get_by_role("tab", name=name, exact=True).tap()
        page.wait_for_selector(shown)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], name
        if name == "Video":
            assert page.locator("#side-by-side").bounding_box()["width"] > PHONE["width"] / 2
    page.get_by_role("tab", name="Image", exact=True).tap()
    page.evaluate("scrollTo(0, 0)")
    for name in ("#run", "#reference img", "#driver img", "#image-tab-button"):  # all without a scroll
        box = page.locator(name).bounding_box()
        assert 0 <= box["y"] and box["y"] + box["height"] <= PHONE["height"], name
    page.touchscreen.tap(100, PHONE["height"] - 30)  # as a thumb does
    assert result(page) == [128, 128]


def test_a_result_dropped_back_restores_its_settings(visit, url, tmp_path):
    page = visit(url)
    page.get_by_text("Model and more settings").click()
    set_number(page, "Steps", 2)
    page.locator("#seed input").fill("77")
    page.locator("#seed input").press("Tab")
    page.click("#run")
    page.wait_for_selector("#about >> text=2 steps · guidance 1 · seed 77")  # not what was drawn before
    assert result(page) == [128, 128]
    with page.expect_download() as download:
        page.get_by_label("Download").locator("visible=true").first.click()
    assert download.value.suggested_filename == "3-5.png"  # the portrait, and the face that it copies
    download.value.save_as(tmp_path / "result.png")
    page.reload()
    page.get_by_text("Model and more settings").click()
    photos.write_pictures(tmp_path)
    page.set_input_files("#restore input[type=file]", tmp_path / "face.png")
    page.wait_for_selector("text=This file carries no settings of HelloMeme")
    page.get_by_label("Clear").locator("visible=true").last.click()
    page.set_input_files("#restore input[type=file]", tmp_path / "result.png")
    page.wait_for_selector("text=The settings are restored.")
    page.wait_for_function("document.querySelector('#seed input').value == '77'")
    assert page.get_by_label("number input for Steps").input_value() == "2"


def test_one_portrait_for_all_tabs(visit, url):
    page = visit(url)
    page.click("#run")  # the model is loaded
    assert result(page) == [128, 128]
    portrait = page.locator("#reference img")
    page.locator("#portrait button.gallery-item").nth(1).click()
    page.wait_for_function("document.querySelector('#reference img').src.includes('4.png')")
    for name, shown in TABS.items():
        open_tab(page, name)
        page.wait_for_selector(shown)
        assert "4.png" in portrait.get_attribute("src")
        assert portrait.is_visible() == (name != "Gallery"), name
    open_tab(page, "Expression")  # it is drawn when a tab is opened that shows it
    assert result(page, "#expression-result") == [128, 128]


COVERED = """() => {
    const labels = [...document.querySelectorAll("[data-testid=block-label]")];
    const shown = labels.filter(one => one.checkVisibility());
    const box = element => element.getBoundingClientRect();
    return shown.flatMap(label => [...label.parentElement.querySelectorAll("img, video")]
        .filter(picture => picture.checkVisibility() && box(picture).top < box(label).bottom));
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_tabs_are_of_one_width_and_legible_and_labels_cover_no_picture(visit, url, scheme):
    page = visit(url, color_scheme=scheme)
    page.wait_for_selector("#reference img")
    for name, shown in TABS.items():
        open_tab(page, name)
        page.wait_for_selector(shown)
        assert page.evaluate(COVERED) == [], name
        page.wait_for_timeout(300)  # the colour changes slowly
        widths, colours = page.get_by_role("tab").evaluate_all("""tabs => [
            tabs.map(tab => tab.getBoundingClientRect().width),
            [tabs.find(tab => tab.ariaSelected == "true"), document.body].map(
                (one, body) => getComputedStyle(one)[body ? "backgroundColor" : "color"]),
        ]""")
        assert max(widths) - min(widths) < 1
        assert contrast(*colours) >= 4.5, name


def contrast(*colours):
    """Of two colours as CSS writes them, 1 to 21, by WCAG 2."""
    luminances = []
    for colour in colours:
        levels = [int(level) / 255 for level in re.findall(r"\d+", colour)[:3]]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


def test_a_clip_is_made_and_plays(visit, url, tmp_path):
    page = visit(url)
    choose_clip(page, tmp_path, steps=1)
    page.click("#video-run")
    assert film(page) == [128, 128, None]
    page.wait_for_selector("#estimate >> text=It takes about")  # as this run was measured
    page.locator("#video-view").get_by_label("Whole picture").check()
    assert film(page, "#video-whole") == [256, 256, None]
    set_number(page, "Steps", 2)
    page.wait_for_selector("#video-result-view[data-outdated]")


def test_a_part_of_a_clip(visit, url, tmp_path):
    page = visit(url)
    open_tab(page, "Video")
    with ClipWriter(tmp_path / "driver.mp4", Fraction(4)) as writer:
        for frame in range(12):
            writer.write(photos.toon(5, yaw=frame))
    page.set_input_files("#video-driver input[type=file]", tmp_path / "driver.mp4")
    page.wait_for_selector("#estimate >> text=12 frames, 3.0 s at 4 a second.")
    choose_by_the_icon(page, "#video-driver", tmp_path / "driver.mp4")
    page.wait_for_selector("#video-driver video")
    page.wait_for_selector("#estimate >> text=12 frames, 3.0 s at 4 a second.")
    times = page.locator("#start textarea, #start input")
    page.get_by_label("First second").check()
    page.wait_for_selector("#estimate >> text=4 frames, 1.0 s")
    assert not times.is_visible()
    page.get_by_label("From … to …").check()
    times.wait_for()
    for name, value in (("start", "0.5"), ("end", "2")):
        page.locator(f"#{name} textarea, #{name} input").fill(value)
    page.wait_for_selector("#estimate >> text=6 frames, 1.5 s")
    page.get_by_label("Whole clip").check()
    page.wait_for_selector("#estimate >> text=12 frames, 3.0 s")
    assert not times.is_visible()


def test_a_clip_is_refused_as_a_portrait(visit, url, tmp_path):
    clips.clip(tmp_path / "me.mp4")
    page = visit(url)
    page.wait_for_selector("#reference img")
    page.set_input_files("#reference input[type=file]", tmp_path / "me.mp4")
    page.wait_for_selector("text=This is a clip, and a still is needed here")
    assert not page.get_by_text("Invalid file type").is_visible()
    assert page.locator("#reference img").count() == 1  # the one before


def test_a_cell_of_the_grid_opens_in_the_image_tab(visit, url):
    page = visit(url, viewport=PHONE)
    page.get_by_text("What the model was shown").click()
    page.click("#run")
    page.wait_for_function("document.querySelectorAll('#shown img').length == 3")
    page.get_by_text("Model and more settings").click()
    set_number(page, "Steps", 1)
    open_tab(page, "Gallery")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.click("#gallery-run")
    page.wait_for_selector("#gallery-about >> text=4 / 4")
    first = page.locator("#grid .caption-label").first
    assert first.evaluate("label => getComputedStyle(label).opacity") == "0"  # it would cover the chin
    page.get_by_label("Thumbnail 1 of 4").hover()
    assert first.evaluate("label => getComputedStyle(label).opacity") == "1"
    set_number(page, "Steps", 2)
    page.get_by_label("Thumbnail 4 of 4").click()
    assert result(page) == [128, 128]
    page.wait_for_function("document.querySelector('#reference img').src.includes('4.png')")
    page.wait_for_function(
        "document.querySelector('input[aria-label=\"number input for Steps\"]').value === '1'"
    )
    page.wait_for_function("!document.querySelector('#shown img')")  # what was there was of another result
    page.wait_for_function(
        "(box => 0 <= box.top && box.bottom <= innerHeight)"
        "(document.querySelector('#result').getBoundingClientRect())"
    )


def test_chinese(visit, url, tmp_path):
    page = visit(url, locale="zh-CN")
    assert page.locator("#run").inner_text() == "让它活起来"
    assert page.get_by_role("tab").all_inner_texts() == ["图片", "视频", "表情", "实时", "画廊"]
    page.click("#run")
    page.wait_for_selector("#about >> text=引导强度 1")
    (tmp_path / "text.png").write_text("This is not a picture.")
    page.set_input_files("#reference input[type=file]", tmp_path / "text.png")
    page.wait_for_function(
        "document.querySelector('#reference img')?.getAttribute('src').includes('text.png')"
    )
    page.click("#run")
    page.wait_for_selector("text=肖像 text.png 不是可读的图片：请选 PNG、JPEG 或 WebP 文件。")
    page.get_by_text("模型与更多设置").click()
    page.locator("#model input").click()
    page.get_by_role("option", name="HelloMeme v1：Stable Diffusion 1.5，512 像素（这里不可用）").click()
    page.wait_for_selector("#note >> text=无法在这里运行。")
    page.wait_for_selector("#note >> text=需要从 Hub 下载")
    page.wait_for_selector("#facts >> text=现在连不上 Hub，最多需要下载 4.8 GB")
    assert not page.locator("#demo-note").is_visible()
    page.locator("#model input").click()
    page.get_by_role("option", name="演示：卡通头像").click()
    page.wait_for_selector("#demo-note >> text=处理照片")


def test_chinese_while_it_runs(visit, url, tmp_path):
    page = visit(url, locale="zh-CN")
    open_tab(page, "视频")
    with ClipWriter(tmp_path / "driver.mp4", Fraction(12)) as writer:
        for frame in range(24):
            writer.write(photos.toon(5, yaw=frame))
    page.set_input_files("#video-driver input[type=file]", tmp_path / "driver.mp4")
    page.wait_for_selector("#estimate >> text=24 帧，2.0 秒，每秒 12 帧。")
    page.evaluate("""() => {
        window.said = "";
        const place = document.querySelector("#video-result");
        const keep = () => window.said += place.innerText;
        new MutationObserver(keep).observe(place, {childList: true, subtree: true, characterData: true});
    }""")
    page.click("#video-run")
    page.wait_for_selector("#video-about >> text=24 帧，每秒 12 帧")
    said = page.evaluate("window.said")
    assert "正在分析" in said and "正在绘制" in said and "Drawing" not in said


@pytest.mark.skipif(not DEMO.is_dir(), reason="the demo model is not in assets/demo")
def test_the_bundled_demo_draws_and_its_result_becomes_the_portrait_of_another_tab(visit, examples):
    side = find("demo").size
    for address in served(states.State(device="cpu"), examples):
        page = visit(address)
        page.click("#image-to-video")
        page.wait_for_selector("text=There is no result yet that could become the portrait.")
        assert page.locator("#run").is_visible()
        page.click("#run")
        assert result(page) == [side, side]
        drawn = page.locator("#result img").get_attribute("src")
        page.click("#image-to-expression")
        assert result(page, "#expression-result") == [side, side]  # of the new portrait
        assert page.locator("#reference img").get_attribute("src") == drawn
