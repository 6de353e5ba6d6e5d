"""How long a clip will take, and how long it still takes: from the runs of clips that were measured."""

import clips
import pytest

from hellomeme.settings import ClipSettings, Settings
from page import drawing, estimate as estimates, first_runs, state as states
from page.paces import ClipPaces, ClipWork, TimeLeft

KIND = ("demo", "off")


def test_a_frame_costs_a_time_of_its_own_and_one_for_each_pass():
    paces = ClipPaces()
    assert paces.drawing(KIND, 10, 10) is None and paces.whole(KIND, ClipWork(0, 10, 10)) is None
    paces.record_drawing(KIND, 10, 20, 3.0)
    assert paces.drawing(KIND, 10, 40) == pytest.approx(6, rel=0.01)  # of one kind: the passes alone
    paces.record_drawing(KIND, 10, 100, 7.0)
    paces.record_analysis(KIND, 10, 0.5)
    assert paces.drawing(KIND, 40, 160) == pytest.approx(40 * 0.2 + 160 * 0.05, rel=1e-3)
    assert paces.whole(KIND, ClipWork(20, 40, 160)) == pytest.approx(17, rel=1e-3)
    assert paces.drawing(("v1", "off"), 1, 1) is None
    paces.record_drawing(KIND, 10, 100, 14.0)
    assert paces.drawing(KIND, 10, 100) == pytest.approx(10.5, rel=0.5)  # a slower run counts half


def test_time_left():
    fresh, known = TimeLeft(None), TimeLeft(10.0)
    assert fresh.seconds(0.25, 100) is None and fresh.seconds(0.5, 101) == pytest.approx(2)
    assert known.seconds(0, 100) == pytest.approx(10)  # from the first moment
    assert 5 < known.seconds(0.5, 110) < 10  # twice as slow as expected: between that and the measured
    assert known.seconds(1, 120) == 0


@pytest.fixture
def estimate(model_folder, monkeypatch, tmp_path):
    """Calls the event for a clip of two seconds at 12 frames a second; its arguments are fields of
    ClipSettings."""
    monkeypatch.setattr(states, "STATE", states.State(str(model_folder), device="cpu"))
    driver = clips.clip(tmp_path / "driver.mp4", rate=12, seconds=2)

    def estimate(driver=str(driver), motion_file=None, **chosen):
        chosen = vars(ClipSettings(**chosen)).values()
        return list(estimates.estimate(states.STATE.release, 1, 1, *chosen, driver, motion_file))

    return estimate


def test_what_is_said_before_a_clip_is_made(estimate, monkeypatch):
    page = states.STATE
    page.record_pace(page.release, Settings(steps=1, guidance=1), 100)  # of a picture: it does not count
    unknown = "How long it takes here is known after the first clip with this model."
    assert estimate() == [f"24 frames, 2.0 s at 12 a second. {unknown}"]
    assert estimate(end=1.0) == [f"12 frames, 1.0 s at 12 a second. {unknown}"]
    page.clip_paces.record_analysis((page.release, "off"), 10, 1)
    page.clip_paces.record_drawing((page.release, "off"), 10, 10, 4)
    assert estimate() == ["24 frames, 2.0 s at 12 a second. It takes about 12 s here."]
    assert estimate(start=1.5, frames=1) == ["1 frame, 0.1 s at 12 a second. It takes about 0 s here."]
    assert estimate(driver=None) == [""]
    assert estimate(start=9) == [
        "The start of 9 s is beyond the end of the driver, which lasts 2.00 s: choose an earlier one."
    ]


def test_an_estimate_waits_for_the_first_measurement(estimate, monkeypatch):
    page = states.STATE
    page.warm.clear()

    def wait(seconds):
        page.clip_paces.record_drawing((page.release, "off"), 24, 24, 6)
        page.warm.set()

    monkeypatch.setattr(page.warm, "wait", wait)
    said = [line.partition(". ")[2] for line in estimate()]
    assert said == ["How long it takes is being measured.", "It takes about 6 s here."]


def test_clips_are_measured_at_the_start_if_that_is_soon_done(estimate, monkeypatch):
    page, drawn = states.STATE, []
    monkeypatch.setattr(page, "portrait", lambda *_: None)

    def make_clip(release, portrait, driver, output, settings, clip, flag, style):
        passes = drawing.clip_plan(release, 12, settings, clip).passes
        drawn.append((settings.steps, clip.end))
        page.clip_paces.record_drawing((release, "off"), 12, passes, passes * pace)

    monkeypatch.setattr(first_runs, "make_clip", make_clip)
    driver = estimate.__defaults__[0]
    first_runs.draw_first_clips("reference.png", driver)  # how fast it draws is not known at all
    for pace in (60, 2, 0.1):
        page.pace[page.release] = pace
        first_runs.draw_first_clips("reference.png", driver)
        page.clip_paces = ClipPaces()
    assert drawn == [(1, 0.5), (1, 0.5), (5, 0.5)]
