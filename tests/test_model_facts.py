"""What is said of a model when it is chosen, before it draws."""

import socket

import pytest

from hellomeme.releases.files import RemoteFile
from page import model_facts as facts, state as states
from page.messages import in_chinese

KNOWN = (
    "no GPU here: on the CPU a picture takes minutes, not measured · about 0.7 s a picture on an H100, not "
    "measured here · licence creativeml-openrail-m of the base model, MIT of the adapters"
)


@pytest.fixture(autouse=True)
def state(monkeypatch):
    monkeypatch.setattr(states, "STATE", states.State(device="cpu"))
    return states.STATE


def test_a_model_that_is_here_asks_nobody(state, monkeypatch):
    monkeypatch.setattr(facts, "listed", None)
    line = "nothing to download · needs no GPU · {} · licence mit"
    assert list(facts.model_facts("demo")) == [line.format("less than a second a picture")]
    state.pace["demo"] = 0.25
    assert list(facts.model_facts("demo")) == [line.format("0.2 s a picture here, as measured")]


def test_what_is_still_to_download(online, monkeypatch):
    online(None)
    asked = []

    def listed(part, timeout):
        asked.append((part.source, timeout))
        return [
            RemoteFile("config.json", 1000, False),
            RemoteFile("model.safetensors", 500_000_000, False),
        ] + ([RemoteFile("here.safetensors", 10**12, True)])

    monkeypatch.setattr(facts, "listed", listed)
    first, last = facts.model_facts("v1")
    assert first == f"asking the hub what is still to download · {KNOWN}"
    assert last == f"{0.5 * len(asked):.1f} GB to download · {KNOWN}"
    names = {"stable-diffusion-v1-5", "hm_reference", "hm_control2", "pd_fgc_motion"}
    assert {source.removeprefix("songkey/") for source, _ in asked} == names
    assert {timeout for _, timeout in asked} == {facts.TIMEOUT}


UNREACHABLE = f"the hub cannot be reached now, and up to 4.8 GB are to be downloaded · {KNOWN}"


def test_a_hub_that_cannot_be_reached(online):
    online(None)
    assert list(facts.model_facts("v1"))[-1] == UNREACHABLE
    assert not any(part.isascii() for part in in_chinese(UNREACHABLE).split(" · "))


def test_a_hub_that_does_not_answer_is_not_waited_for(online, monkeypatch):
    monkeypatch.setattr(facts, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        online(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert list(facts.model_facts("v1"))[-1] == UNREACHABLE
