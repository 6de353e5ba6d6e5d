"""Stop: which runs it ends, and when."""

import os

import gradio as gr
import pytest
from gradio.context import LocalContext
from page_calls import draw, pictures, state  # noqa: F401  (fixtures)

from page import state as states
from page.runs import replaceable_runs


def test_stop_ends_the_run_of_the_same_session_only(draw, state, monkeypatch):
    steps = []

    def progress(self, progress, **_):
        if isinstance(progress, tuple):
            steps.append(progress)
            state.runs.stop(pressed_by)

    monkeypatch.setattr(gr.Progress, "__call__", progress)
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    pressed_by = "somebody else"
    assert draw(steps=4)[0].size == (128, 128)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]

    steps.clear()
    pressed_by = None  # the session of a call without a browser
    assert all(update["__type__"] == "update" for update in draw(steps=4))
    assert steps == [(1, 4)]
    assert state.runs.flags == {}


def test_stop_while_the_faces_are_looked_for(draw, state, monkeypatch):
    steps, found = [], state.portrait

    def portrait(*arguments):
        state.runs.stop(None)
        return found(*arguments)

    monkeypatch.setattr(state, "portrait", portrait)
    monkeypatch.setattr(
        gr.Progress, "__call__", lambda self, done, **_: isinstance(done, tuple) and steps.append(done)
    )
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    assert all(update["__type__"] == "update" for update in draw(steps=4))
    assert steps == [(1, 4)]


def test_stop_during_a_download_ends_the_run_without_an_error(state):
    with state.run(None):
        states._show_download("me/net", 1, 2)
        assert state.runs.stop(None) is True
        states._show_download("me/net", 2, 2)
        pytest.fail("the run continued")
    assert state.runs.flags == {} and state.runs.stop(None) is False
    states._show_download("me/net", 2, 2)  # outside a run


def test_stop_ends_all_runs_of_a_visitor_and_none_of_others(state):
    with state.run("another") as others, state.run("me") as drawing:
        with state.run("me") as pasting:  # ends before the first, as a clip that is pasted back does
            pass
        assert state.runs.stop("me") is True
        assert os.path.exists(drawing) and not os.path.exists(others) and not os.path.exists(pasting)
        with replaceable_runs(), state.run("another") as replaceable:
            state.runs.replace("another")
            assert os.path.exists(replaceable) and not os.path.exists(others)
    assert state.runs.flags == {}


def test_stop_between_the_queue_and_the_run(draw, state, monkeypatch):
    steps = []
    monkeypatch.setattr(
        gr.Progress, "__call__", lambda self, done, **_: isinstance(done, tuple) and steps.append(done)
    )
    monkeypatch.setattr(gr, "Info", lambda *_, **__: None)
    monkeypatch.setattr(state.runs, "stopped_events", {"this event"})
    for event, expected in (("another", 4), ("this event", 1), ("this event", 4)):
        steps.clear()
        token = LocalContext.event_id.set(event)
        draw(steps=4)
        LocalContext.event_id.reset(token)
        assert len(steps) == expected
