"""Downloads from a stand-in for the hub that cuts, stalls, lies and refuses: what came stays, and each
failure is one sentence with the choice that remains."""

import collections
import json
import os
import shutil

import hub as stand_in
import pytest
from hub import COMMIT, STALL, cut, instead, reset
from huggingface_hub import constants

from hellomeme.errors import HelloMemeError
from hellomeme.releases import hub, tensors
from hellomeme.releases.load import available, find, load
from hellomeme.releases.table import Source, reference

WEIGHTS = "diffusion_pytorch_model.safetensors"
FILE = f"resolve/{COMMIT}/{WEIGHTS}"
REST = "give a local folder, or choose another model (the bundled demo model needs no network)."
GOES_ON = f"try again, it goes on from there, or {REST}"
DAMAGED = f"{WEIGHTS} of me/net arrived damaged and was thrown away: try again, or {REST}"
CONTENT = bytes(range(256)) * 400  # 102,400 bytes


@pytest.fixture
def net(tmp_path):
    """The folder of a network on the hub, whose weights nobody opens."""
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / WEIGHTS).write_bytes(CONTENT)
    return folder


def received(source="me/net", **arguments):
    with pytest.raises(HelloMemeError) as caught:
        hub.fetch(source, **arguments)
    return str(caught.value)


def ranges(asked):
    """Where each request for the content of the weights began, HEAD requests, which come first, left out."""
    return [path.partition(" ")[2] for path in asked if path.partition(" ")[0].endswith(FILE)]


def kept(tmp_path):
    return sorted(path.stat().st_size for path in tmp_path.glob("cache/*/blobs/*.incomplete"))


def test_a_download_is_told_and_kept(net, online, tmp_path):
    calls = []
    with stand_in.serve({"me/net": net}) as (endpoint, asked):
        online(endpoint)
        folder = hub.fetch("me/net", progress=lambda *call: calls.append(call))
        assert (folder / WEIGHTS).read_bytes() == CONTENT and (folder / "config.json").is_file()
        assert calls[-1] == ("me/net", len(CONTENT), len(CONTENT)) and calls == sorted(calls)
        before = len(asked)
        assert hub.fetch("me/net") == folder and len(asked) == before  # what is whole is not asked for
    online(None)
    assert hub.fetch("me/net") == folder and hub.cached("me/net") and kept(tmp_path) == []


def test_after_a_cut_the_rest_is_asked_for(net, online, tmp_path):
    calls = []
    with stand_in.serve({"me/net": net}, {FILE: [cut(60_000), reset(15_000)]}) as (endpoint, asked):
        online(endpoint)
        folder = hub.fetch("me/net", progress=lambda *call: calls.append(call))
    assert ranges(asked)[:3] == ["", "bytes=60000-", "bytes=70000-"]
    assert (folder / WEIGHTS).read_bytes() == CONTENT
    assert calls == sorted(calls) and calls[-1] == ("me/net", len(CONTENT), len(CONTENT))


def test_the_next_attempt_goes_on_where_the_last_was_given_up(net, online, tmp_path):
    calls = []
    with stand_in.serve({"me/net": net}, {FILE: [cut(60_000), *[cut(0)] * 11]}) as (endpoint, asked):
        online(endpoint)
        assert received() == f"The download of me/net was cut off at 59% of {WEIGHTS}: {GOES_ON}"
        assert kept(tmp_path) == [60_000] and not hub.cached("me/net")
        asked.clear()  # and by now the faults are over
        folder = hub.fetch("me/net", progress=lambda *call: calls.append(call))
        assert ranges(asked)[0] == "bytes=60000-"
    assert (folder / WEIGHTS).read_bytes() == CONTENT and kept(tmp_path) == []
    assert calls[0] == ("me/net", 70_000, len(CONTENT))  # what was there already counts


def test_a_stop_keeps_what_came(net, online, tmp_path):
    def stop(source, done, total):
        if done > 10_000:
            raise KeyboardInterrupt

    with stand_in.serve({"me/net": net}) as (endpoint, asked):
        online(endpoint)
        with pytest.raises(KeyboardInterrupt):
            hub.fetch("me/net", progress=stop)
        assert not hub.cached("me/net") and kept(tmp_path) == [10_000]
        assert (hub.fetch("me/net") / WEIGHTS).read_bytes() == CONTENT
        assert ranges(asked)[-1] == "bytes=10000-"


def test_a_stalled_download(net, online, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    with stand_in.serve({"me/net": net}, {FILE: [cut(60_000), *[STALL] * 20]}) as (endpoint, asked):
        online(endpoint)
        assert received() == f"The download of me/net was cut off at 59% of {WEIGHTS}: {GOES_ON}"
    assert kept(tmp_path) == [60_000]


def test_a_stalled_hub(net, online, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    with stand_in.serve({"me/net": net}, {"api/models/me/net": [STALL]}) as (endpoint, _):
        online(endpoint)
        assert (
            received()
            == f"me/net is not on this computer and the hub cannot be reached: connect to a network, {REST}"
        )
        assert hub.fetch("me/net").is_dir()


@pytest.mark.parametrize(
    "wrong", [bytes(len(CONTENT)), CONTENT[:-1], CONTENT + b"x", b""], ids="sum short long empty".split()
)
def test_wrong_content_is_thrown_away(net, online, tmp_path, wrong):
    with stand_in.serve({"me/net": net}, {FILE: [instead(wrong)]}) as (endpoint, asked):
        online(endpoint)
        assert received() == DAMAGED
        assert not hub.cached("me/net") and sum(kept(tmp_path)) == 0
        folder = hub.fetch("me/net")
        assert ranges(asked)[1] == "" and (folder / WEIGHTS).read_bytes() == CONTENT


def test_a_rest_of_another_file_is_thrown_away(net, online, tmp_path):
    """A cut, and then a hub that has nothing from there on: its file is shorter than it announced."""
    with stand_in.serve({"me/net": net}, {FILE: [cut(60_000), 416]}) as (endpoint, asked):
        online(endpoint)
        assert "error 416" in received()
        assert sum(kept(tmp_path)) == 0
        assert (hub.fetch("me/net") / WEIGHTS).read_bytes() == CONTENT


REFUSED = f"The hub refuses me/net to you: run `hf auth login` with a token that may read it, or {REST}"


@pytest.mark.parametrize("place", ["api/models/me/net", FILE])
@pytest.mark.parametrize(
    "status, sentence",
    [
        (401, REFUSED),
        (403, REFUSED),
        (404, f"The hub answered the request for me/net with error 404: try again later, {REST}"),
        (500, f"The hub answered the request for me/net with error 500: try again later, {REST}"),
        (503, f"The hub answered the request for me/net with error 503: try again later, {REST}"),
    ],
)
def test_refusals(net, online, tmp_path, place, status, sentence):
    with stand_in.serve({"me/net": net}, {place: [status]}) as (endpoint, _):
        online(endpoint)
        assert received() == sentence
        assert hub.fetch("me/net").is_dir()


def test_no_server_no_network_and_no_hub_behind_it(net, online):
    sentence = f"me/net is not on this computer and the hub cannot be reached: connect to a network, {REST}"
    online(None)
    assert received() == sentence
    online("http://127.0.0.1:9")  # nobody listens there
    assert received() == sentence
    online("http://no-such-host.invalid")
    assert received() == sentence
    (net / "page.html").write_text("<html>Log in to the hotel's network</html>")
    with stand_in.serve({"me/net": net}) as (endpoint, _):
        online(f"{endpoint}/me/net/resolve/{COMMIT}/page.html?")
        assert received() == sentence


def test_no_room_is_told_before_anything_comes(net, online, tmp_path, monkeypatch):
    disk = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk(1, 1, 1000))
    with stand_in.serve({"me/net": net}) as (endpoint, asked):
        online(endpoint)
        assert received() == (
            f"me/net needs 0.0 GB more, and {tmp_path / 'cache'} has 0.0 GB left: make room, or set HF_HOME "
            "to another disk."
        )
        assert ranges(asked) == []


def test_a_cache_that_cannot_be_made(net, online, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with stand_in.serve({"me/net": net}) as (endpoint, _):
        online(endpoint)
        assert received().startswith("me/net could not be saved to the cache of the hub: ")


def test_a_damaged_file_in_the_cache_can_be_had_anew(net, online, tmp_path):
    with stand_in.serve({"me/net": net}) as (endpoint, _):
        online(endpoint)
        folder = hub.fetch("me/net")
        blob = os.path.realpath(folder / WEIGHTS)
        with pytest.raises(HelloMemeError) as caught:  # these bytes are no weights
            tensors.check_weights(folder / WEIGHTS)
        assert str(caught.value) == (
            f"The weights {folder / WEIGHTS} are damaged or incomplete: delete {blob} and try "
            "again, it will be downloaded anew."
        )
        os.unlink(blob)
        assert not hub.cached("me/net")
        assert (hub.fetch("me/net") / WEIGHTS).read_bytes() == CONTENT


def test_half_a_base_model_is_not_taken_for_a_whole_one(online, tmp_path):
    base = tmp_path / "base"
    for part in hub.PARTS:
        (base / part).mkdir(parents=True)
        (base / part / "config.json").write_text("{}")
        (base / part / WEIGHTS).write_bytes(part.encode())
    (base / "model_index.json").write_text("{}")
    with stand_in.serve({"me/base": base}, {f"vae/{WEIGHTS}": [500]}) as (endpoint, asked):
        online(endpoint)
        assert "error 500" in received("me/base", files=hub.BASE_FILES)
        assert not hub.cached("me/base", hub.BASE_FILES) and hub.cached("me/base", hub.CONFIG_FILES)
        assert hub.fetch("me/base", hub.BASE_FILES).is_dir() and hub.cached("me/base", hub.BASE_FILES)
        # GET once, HEAD with each attempt
        assert len([path for path in asked if path.endswith(f"unet/{WEIGHTS}")]) == 2 + 1


def test_the_page_can_open_without_asking_anybody(online, monkeypatch):
    with stand_in.serve({}) as (endpoint, asked):
        online(endpoint)
        assert not any(reason for *_, reason in available())
        assert asked == []
    online(None)
    assert available()[1][2] == (
        "Needs 4.8 GB from the hub, which cannot be reached from here (HF_HUB_OFFLINE); "
        "the bundled demo model needs no network."
    )


def test_bars_and_callbacks_reach_the_hub_from_a_release(net, online, monkeypatch):
    """From `load` down to the last download."""
    import dataclasses

    (net / "config.json").write_text(json.dumps({"_class_name": "HMReferenceAdapter"}))
    calls = []
    row = dataclasses.replace(find("v1"), reference=reference(Source.of("me/net")))
    with stand_in.serve({"me/net": net}) as (endpoint, _):
        online(endpoint)
        with pytest.raises(HelloMemeError, match="damaged or incomplete"):
            load(row, device="cpu", progress=lambda *call: calls.append(call))
    assert calls[-1] == ("me/net", len(CONTENT), len(CONTENT))
