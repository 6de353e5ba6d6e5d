"""How `app.py` launches the page: what may be uploaded, which files can be read, and what `--mcp` asks for."""

import subprocess
import sys
from pathlib import Path

import gradio as gr
import httpx
import pytest

import app
from hellomeme import hub
from page import studio as studios


@pytest.mark.parametrize("version, works", [(None, False), ("2.3.0", False), ("1.30.0", True)])
def test_mcp_without_its_package_is_one_sentence(monkeypatch, capsys, version, works):
    def installed(name):
        if version is None:
            raise app.importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(app.importlib.metadata, "version", installed)
    assert app.speaks_mcp() is works
    if not works:
        with pytest.raises(SystemExit) as exit:
            app.main(["--mcp"])
        said = capsys.readouterr()
        assert exit.value.code == 2 and said.out == ""
        assert said.err == "app.py: --mcp needs a package more, of version 1: pip install 'mcp>=1.21,<2'.\n"


@pytest.fixture
def url(model_folder, monkeypatch):
    """The page as `app.main` launches it, but for uploads of 100 KB at most, and without a first run."""
    launched = []
    monkeypatch.setattr(gr.Blocks, "block_thread", lambda page: launched.append(page))
    monkeypatch.setattr(app, "warm_up", lambda: None)
    monkeypatch.setattr(app, "LARGEST_UPLOAD", "100kb")
    monkeypatch.setattr(studios, "STUDIO", studios.STUDIO)
    app.main(["--release", str(model_folder), "--device", "cpu", "--host", "127.0.0.1"])
    yield launched[0].local_url
    launched[0].close()


def upload(url, size, name="a.png"):
    return httpx.post(f"{url}gradio_api/upload", files={"files": (name, bytes(size))}, timeout=30)


def test_uploads_are_limited_and_only_they_can_be_read(url, model_folder, tmp_path):
    (mine,) = upload(url, 50_000).json()
    assert httpx.get(f"{url}gradio_api/file={mine}").content == bytes(50_000)
    assert upload(url, 200_000).status_code == 413
    (tmp_path / "other.png").write_text("not uploaded")
    inside = [app.__file__, model_folder / "unet" / "config.json", hub.__file__, f"{mine}/../../../../../etc/passwd"]
    for path in ("/etc/passwd", tmp_path / "other.png", "..%2f..%2fetc%2fpasswd", *inside):
        assert httpx.get(f"{url}gradio_api/file={path}").status_code in (403, 404), path


KIND = "A value was sent that is not of the kind its parameter takes"
SHAPES = {  # of what should be an uploaded file
    "a number": (5, KIND),
    "text": ("face.mp4", KIND),
    "a list": ([1, 2], KIND),
    "a path that is a number": ({"path": 5}, KIND),
    "a path that is an object": ({"path": {"a": 1}}, KIND),
    "a file never uploaded": ({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "A file was named that was not uploaded"),
}


@pytest.mark.parametrize("event, parameter", [("video", "driver"), ("image", "driver"), ("restore", "file")])
def test_wrong_shapes_get_a_sentence(url, event, parameter):
    """Gradio by itself would answer with an error that says nothing."""
    takes = httpx.get(f"{url}gradio_api/info", timeout=30).json()["named_endpoints"][f"/{event}"]["parameters"]
    for name, (value, sentence) in SHAPES.items():
        data = [value if one["parameter_name"] == parameter else one.get("parameter_default") for one in takes]
        called = httpx.post(f"{url}gradio_api/call/{event}", json={"data": data}, timeout=30).json()
        answer = httpx.get(f"{url}gradio_api/call/{event}/{called['event_id']}", timeout=30).text
        assert "event: error" in answer and sentence in answer, name


def test_files_named_by_a_program_must_be_its_own_uploads(url, tmp_path):
    """What gradio_client would upload first, named by its path on this machine instead; and a kind that is not asked for."""
    (tmp_path / "other.png").write_text("not uploaded")
    (text,) = upload(url, 10, "a.txt").json()
    for path in ("/etc/passwd", str(tmp_path / "other.png"), app.__file__, text):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        event = httpx.post(f"{url}gradio_api/call/restore", json={"data": [file]}, timeout=30)
        answer = httpx.get(f"{url}gradio_api/call/restore/{event.json()['event_id']}", timeout=30).text
        assert "event: error" in answer and "restored" not in answer, path


def test_two_visitors_who_come_before_anything_is_imported():
    """diffusers is imported for both at once: see `studio.import_networks`."""
    program = """
import threading
from hellomeme.errors import HelloMemeError
from hellomeme.settings import ClipSettings
from page import studio, video_tab

def length():
    try:
        video_tab._length("nothing.mp4", ClipSettings())
    except HelloMemeError:
        pass

threads = [threading.Thread(target=target) for target in (length, studio._reenactor_class, length)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(app.__file__).parent)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
