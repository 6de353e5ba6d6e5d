"""How `app.py` launches the page: limits of uploads, which files can be read, error messages, and options."""

import errno
import subprocess
import sys
from pathlib import Path

import gradio as gr
import httpx
import pytest
from gradio import networking
from huggingface_hub import constants

import app
from hellomeme.releases import hub
from page import state as states


@pytest.mark.parametrize("version, works", [(None, False), ("2.3.0", False), ("1.30.0", True)])
def test_mcp_without_its_package_is_one_sentence(monkeypatch, capsys, version, works):
    def installed(name):
        if version is None:
            raise app.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(app.importlib.metadata, "version", installed)
    assert app.supports_mcp() is works
    if not works:
        with pytest.raises(SystemExit) as exit:
            app.main(["--mcp"])
        said = capsys.readouterr()
        assert exit.value.code == 2 and said.out == ""
        assert said.err == "app.py: --mcp needs a package more, of version 1: pip install 'mcp>=1.21,<2'.\n"


def test_options_of_the_environment_come_before_those_of_the_command_line(monkeypatch):
    monkeypatch.setenv("HELLOMEME_OPTIONS", "--release v1 --auth 'ann:a secret'")
    monkeypatch.setattr(sys, "argv", ["app.py", "--release", "v2", "--share"])
    options = app.parse(None)
    assert (options.release, options.auth, options.share) == ("v2", "ann:a secret", True)
    assert app.parse([]).release == "demo"


def test_offline_downloads_nothing_while_the_page_is_open(monkeypatch):
    seen = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(app, "serve", lambda options: seen.append(constants.HF_HUB_OFFLINE))
    for options in ([], ["--offline"]):
        app.main(options)
    assert seen == [False, True] and constants.HF_HUB_OFFLINE is False


@pytest.fixture
def launch(model_folder, monkeypatch):
    """Launches the page as `app.main` does, but for uploads of 100 KB at most, and without a first run; its
    address."""
    launched = []
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: launched.append(page))
    monkeypatch.setattr(app, "warm_up", lambda: None)
    monkeypatch.setattr(app, "MAX_UPLOAD", "100kb")
    monkeypatch.setattr(states, "STATE", states.STATE)

    def launch(*options):
        app.main(["--release", str(model_folder), "--device", "cpu", "--host", "127.0.0.1", *options])
        return launched[0].local_url

    yield launch
    for page in launched:
        page.close()


@pytest.fixture
def url(launch):
    return launch()


def answer(url, event, data):
    """What the event says in the end."""
    called = httpx.post(f"{url}gradio_api/call/{event}", json={"data": data}, timeout=30).json()
    return httpx.get(f"{url}gradio_api/call/{event}/{called['event_id']}", timeout=30).text


def upload(url, size, name="a.png"):
    return httpx.post(f"{url}gradio_api/upload", files={"files": (name, bytes(size))}, timeout=30)


def test_uploads_are_limited_and_no_other_file_can_be_read(url, model_folder, tmp_path):
    (mine,) = upload(url, 50_000).json()
    assert httpx.get(f"{url}gradio_api/file={mine}").content == bytes(50_000)
    assert upload(url, 200_000).status_code == 413
    (tmp_path / "other.png").write_text("not uploaded")
    inside = [
        app.__file__,
        model_folder / "unet" / "config.json",
        hub.__file__,
        f"{mine}/../../../../../etc/passwd",
    ]
    for path in ("/etc/passwd", tmp_path / "other.png", "..%2f..%2fetc%2fpasswd", *inside):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404), path


def test_a_name_and_a_password_are_asked_for(launch):
    url = launch("--auth", "ann:se:cret")
    config = f"{url}config"
    assert httpx.get(config).status_code == 401 and "gallery-run" not in httpx.get(url).text
    assert httpx.post(f"{url}gradio_api/call/model", json={"data": ["demo"]}).status_code == 401
    with httpx.Client(timeout=30) as visitor:
        assert visitor.post(f"{url}login", data={"username": "ann", "password": "se"}).status_code == 400
        assert visitor.get(config).status_code == 401
        assert visitor.post(f"{url}login", data={"username": "ann", "password": "se:cret"}).json() == {
            "success": True
        }
        assert visitor.get(config).json()["components"] and "gallery-run" in visitor.get(url).text


def test_a_page_below_a_path(launch):
    url = launch("--root-path", "/hellomeme")
    config = httpx.get(f"{url}config", timeout=30).json()
    assert config["root"] == f"{url}hellomeme" and "/hellomeme" in httpx.get(url, timeout=30).text


KIND = "A value was sent that is not of the kind its parameter takes"
FILE = {"meta": {"_type": "gradio.FileData"}}
LINK = "A file was named by its address on the web"
SHAPES = {  # of what should be an uploaded file
    "a number": (5, KIND),
    "text": ("face.mp4", KIND),
    "a list": ([1, 2], KIND),
    "a path that is a number": ({"path": 5}, KIND),
    "a path that is an object": ({"path": {"a": 1}}, KIND),
    "a file never uploaded": ({"path": "/etc/passwd", **FILE}, "A file that was sent is not here"),
    "an address": ({"path": "http://127.0.0.1:9/x.png", **FILE}, LINK),
    "an address within": ([{"x": {"path": "https://127.0.0.1:9/x.png", **FILE}}], LINK),
    "an address alone": ({"url": "http://127.0.0.1:9/x.png", **FILE}, LINK),
}


@pytest.mark.parametrize("event, parameter", [("video", "driver"), ("image", "driver"), ("restore", "file")])
def test_wrong_shapes_get_a_sentence(url, event, parameter):
    """Gradio by itself would answer with an error without a message."""
    takes = httpx.get(f"{url}gradio_api/info", timeout=30).json()["named_endpoints"][f"/{event}"][
        "parameters"
    ]
    for name, (value, sentence) in SHAPES.items():
        data = [
            value if one["parameter_name"] == parameter else one.get("parameter_default") for one in takes
        ]
        said = answer(url, event, data)
        assert "event: error" in said and sentence in said, name


@pytest.mark.parametrize(
    "event, changes, sentence",
    [
        ("model", {"model": None}, "A model is named by a text, not NoneType"),
        ("image", {"steps": 99}, "Steps must be a whole number from 1 to 50, not 99."),
        ("image", {"seed": -1}, "Seed must be a whole number from 0 to"),
        ("image", {"expression": "much"}, "Expression must be a number from 0 to 2, not 'much'."),
        (
            "image",
            {"reference_face": 101},
            "Face in the reference must be a whole number from 1 to 100, not 101.",
        ),
        ("expression", {"yaw": 90}, "Yaw must be a number from -60 to 60, not 90."),
        ("expression", {"jawOpen": -1}, "jawOpen must be a number from 0 to 1"),
    ],
)
def test_errors_name_the_value_that_is_out_of_range(url, event, changes, sentence):
    """As a program may send them; Gradio's own words would not say which of the many it was."""
    takes = httpx.get(f"{url}gradio_api/info", timeout=30).json()["named_endpoints"][f"/{event}"][
        "parameters"
    ]
    said = answer(
        url, event, [changes.get(one["parameter_name"], one.get("parameter_default")) for one in takes]
    )
    assert "event: error" in said and sentence in said


def test_a_file_that_was_deleted_since(url):
    """A page left open for longer than uploads are kept, as the visitor's browser would ask again."""
    (mine,) = upload(url, 10, "a.png").json()
    Path(mine).unlink()
    said = answer(url, "restore", [{"path": mine, **FILE}])
    assert "event: error" in said and "upload it first, or again, as uploads are kept for an hour" in said


def test_files_named_by_a_program_must_be_its_own_uploads(url, tmp_path):
    """What gradio_client would upload first, named by its path on this machine instead; and a kind that is
    not asked for."""
    (tmp_path / "other.png").write_text("not uploaded")
    (text,) = upload(url, 10, "a.txt").json()
    for path in ("/etc/passwd", str(tmp_path / "other.png"), app.__file__, text):
        said = answer(url, "restore", [{"path": path, **FILE}])
        assert "event: error" in said and "restored" not in said, path


FAULT, GONE = "Something broke on our side", "A file that was sent is not here"
FULL = "The result could not be written: the server's disk is full or not writable."


@pytest.mark.parametrize(
    "component, does, error, sentence",
    [
        (gr.Dropdown, "preprocess", OSError(errno.EIO, "secret detail"), FAULT),
        (gr.Dropdown, "preprocess", MemoryError("secret detail"), FAULT),
        (gr.Dropdown, "preprocess", OSError(errno.ENOENT, "secret detail"), GONE),
        (gr.Dropdown, "preprocess", OSError("secret detail"), KIND),  # as Pillow's of a damaged picture
        (gr.Slider, "postprocess", OSError(errno.ENOSPC, "secret detail"), FULL),
        (gr.Slider, "postprocess", RuntimeError("secret detail"), FAULT),
    ],
)
def test_errors_of_components_are_told_apart(url, monkeypatch, caplog, component, does, error, sentence):
    """Wrong input, a full disk, and internal errors, while a component converts a value."""

    def broken(*_):
        raise error

    monkeypatch.setattr(component, does, broken)
    said = answer(url, "model", ["v1"])
    assert "event: error" in said and sentence in said and "secret" not in said
    assert "Traceback" in caplog.text and "secret detail" in caplog.text


def test_two_visitors_who_come_before_anything_is_imported():
    """diffusers is imported for both at once: see `imports.import_networks`."""
    program = """
import threading
from hellomeme.errors import HelloMemeError
from hellomeme.settings import ClipSettings
from page import estimate, imports

def length():
    try:
        estimate.length("nothing.mp4", ClipSettings())
    except HelloMemeError:
        pass

threads = [threading.Thread(target=target) for target in (length, imports.import_networks, length)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(app.__file__).parent,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_only_a_page_that_answers_is_there(monkeypatch):
    def head(url, **options):
        if url == "closed":
            raise httpx.ConnectError("refused")
        assert options["timeout"] > 3  # Gradio's own, too short for a busy computer
        return httpx.Response(int(url))

    monkeypatch.setattr(httpx, "head", head)
    found = {url: networking.url_ok(url) for url in ("200", "307", "401", "404", "500", "closed")}
    assert [url for url, there in found.items() if there] == ["200", "307", "401"]


def test_the_page_is_there_before_what_draws_is_imported():
    program = "import app, sys; print(*{'torch', 'diffusers', 'mediapipe', 'scipy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=app.components.EXAMPLES.parent, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.split() == [], done.stderr
