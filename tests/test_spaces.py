"""Hugging Face Spaces without their hardware: a stand-in for `spaces.GPU` that follows the rules of ZeroGPU.

A decorated function runs in a fork; arguments and results are pickled; `gr.Error` is returned whole, and of
any other exception only the name of its class; the duration is computed from the arguments of the call.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import gradio as gr
import numpy as np
import photos
import pytest
import torch
from PIL import Image

import app
from hellomeme.io.ffmpeg import ClipWriter, probe
from hellomeme.releases.load import find
from hellomeme.settings import ClipSettings, Settings
from page import drawing, image_tab, own_cores, spaces_gpu, state as states

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
calls = []  # (name of the function, its duration in s)
decorated = []  # names of functions


def gpu(duration):
    def decorate(task):
        decorated.append(task.__name__)

        @functools.wraps(task)
        def call(*args, **kwargs):
            calls.append((task.__name__, duration(*args, **kwargs)))
            context = multiprocessing.get_context("fork")
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(theirs, task, pickle.dumps((args, kwargs))))
            process.start()
            theirs.close()
            kind, value = pickle.loads(ours.recv_bytes())
            process.join()
            if kind == "result":
                return value
            raise value if kind == "error" else gr.Error(value)

        return call

    return decorate


def work(pipe, task, arguments):
    torch.set_num_threads(1)
    args, kwargs = pickle.loads(arguments)
    try:
        answer = "result", task(*args, **kwargs)
    except gr.Error as error:
        answer = "error", error
    except Exception as error:
        answer = "class", type(error).__name__
    pipe.send_bytes(pickle.dumps(answer))
    pipe.close()
    os._exit(0)


@pytest.fixture(scope="module")
def on_spaces(model_folder):
    """The page's drawing, as it is when imported on Spaces."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces_gpu.spaces, "GPU", gpu)
        patch.setattr(spaces_gpu, "ON_SPACES", True)
        patch.setattr(states, "STATE", states.State(str(model_folder), device="cpu"))
        importlib.reload(drawing)
        states.STATE.warm_up()
        yield states.STATE
    importlib.reload(drawing)


@pytest.fixture
def image(on_spaces, tmp_path):
    for name, seed in (("reference.png", 3), ("face.png", 5)):
        Image.fromarray(photos.toon(seed)).save(tmp_path / name)
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "no face.png")
    calls.clear()
    on_spaces.pace[on_spaces.release] = 10.0  # too slow for the Space's own cores
    on_spaces.measured_at[on_spaces.release] = time.monotonic()

    def image(driver="face.png", steps=2, seed=0):
        files = (str(tmp_path / name) for name in ("reference.png", driver))
        return image_tab.make_image(
            on_spaces.release, *files, 1, 1, 1.5, steps, seed, 0, 0, "", "", False, 0.5
        )

    return image


def test_elsewhere_nothing_is_refused_and_nothing_forked():
    assert drawing.clip_duration("v1", 1000, Settings(steps=50, guidance=2), ClipSettings()) > 1000
    assert not hasattr(drawing.draw_image, "__wrapped__")


def test_there_are_functions_for_the_gpu_without_which_a_space_does_not_start(on_spaces):
    assert set(decorated) == {"draw_image", "draw_expression", "draw_row", "draw_frames"}


def test_a_picture_is_drawn_in_another_process(image, on_spaces):
    picture, *_ = image()
    assert picture.size == (128, 128) and calls == [("draw_image", 8)]
    assert not on_spaces.references  # which the other process made, and kept to itself
    assert on_spaces.runs.flags == {}


def test_what_the_spaces_own_cores_draw_in_less_than_a_second_takes_no_gpu_time(image, on_spaces):
    slow, *_ = image()
    assert [name for name, _ in calls] == ["draw_image"] and not on_spaces.cpu_reenactors
    on_spaces.pace.clear()  # not measured yet
    own, *_ = image()
    assert len(calls) == 1 and np.abs(np.subtract(own, slow, dtype=float)).max() <= 1
    assert 0 < on_spaces.pace[on_spaces.release] and on_spaces.references
    for pace, at, takes in ((0.2, 0, 1), (0.4, 0, 2), (0.4, own_cores.TRIED_AGAIN + 1, 2)):
        on_spaces.pace[on_spaces.release] = pace  # with guidance and two steps, four predictions
        on_spaces.measured_at[on_spaces.release] = time.monotonic() - at
        image()
        assert len(calls) == takes, pace
    on_spaces.models["v1"] = ("HelloMeme v1", None)
    assert not own_cores.draws_here("v1", Settings())  # whose first picture would take minutes
    assert not own_cores.draws_here(on_spaces.release, Settings(upscale="2"))


def test_a_clip_drawn_on_the_spaces_own_cores(on_spaces, tmp_path):
    calls.clear()
    on_spaces.pace.clear()
    Image.fromarray(photos.toon(3)).save(tmp_path / "reference.png")
    with ClipWriter(tmp_path / "driver.mp4", Fraction(12)) as writer:
        for frame in range(3):
            writer.write(photos.toon(5, yaw=4 * frame))
    portrait = on_spaces.portrait(on_spaces.release, str(tmp_path / "reference.png"), "reference", None)
    settings = Settings(steps=1, guidance=1).resolved(find(on_spaces.release))
    made = tmp_path / "made.mp4", settings, ClipSettings(), str(tmp_path / "stop")
    report = drawing.make_clip(on_spaces.release, portrait, str(tmp_path / "driver.mp4"), *made)
    assert report.frames == 3 and calls == [] and probe(made[0]).frames == 3
    on_spaces.pace[on_spaces.release] = 10.0
    on_spaces.measured_at[on_spaces.release] = time.monotonic()
    again = tmp_path / "again.mp4", *made[1:]
    drawing.make_clip(on_spaces.release, portrait, str(tmp_path / "driver.mp4"), *again)
    assert [name for name, _ in calls] == ["draw_frames"] and probe(again[0]).frames == 3


def test_a_picture_without_a_face_costs_no_time_on_the_gpu(image):
    with pytest.raises(gr.Error, match="No face found in the driver picture"):
        image("no face.png")
    assert calls == []


def test_a_fault_shows_no_details(image, on_spaces, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(on_spaces, "reference", broken)
    with pytest.raises(gr.Error) as error:
        image()
    assert "secret" not in error.value.message


def test_stop_reaches_the_other_process(image, on_spaces, monkeypatch):
    @contextlib.contextmanager
    def pressed(session, start=on_spaces.runs.start):
        with start(session) as flag:
            on_spaces.runs.stop(session)
            yield flag

    shown = []
    monkeypatch.setattr(gr, "Info", lambda text, **_: shown.append(text))
    monkeypatch.setattr(on_spaces.runs, "start", pressed)
    assert all(update["__type__"] == "update" for update in image())
    assert shown == ["Stopped."] and calls


@pytest.mark.parametrize("frames, steps, allowed", [(12, 4, True), (60, 25, False)])
def test_what_takes_too_long_is_refused_with_what_to_lower(on_spaces, frames, steps, allowed):
    settings, clip = Settings(steps=steps, guidance=1.5), ClipSettings()
    if allowed:
        assert 8 < drawing.clip_duration("v1", frames, settings, clip) <= 80
    else:
        with pytest.raises(ValueError, match="80 is the most here: lower the number of frames or the steps"):
            drawing.clip_duration("v1", frames, settings, clip)


def test_a_worker_forked_during_a_run_does_not_wait_for_it():
    state = states.State()

    def take_a_turn(free):
        # In a thread of its own, as Spaces' workers do: an RLock lets in the thread that forked
        thread = threading.Thread(target=lambda: free.put(state.drawing_lock.acquire(timeout=1)))
        thread.start()
        thread.join()

    context = multiprocessing.get_context("fork")
    free = context.SimpleQueue()
    with state.drawing_lock:
        worker = context.Process(target=take_a_turn, args=(free,))
        worker.start()
        worker.join()
    assert free.get() is True


ANOTHER_MODEL = """
import sys, threading

import torch

torch.version.cuda = torch.version.cuda or "12.8"  # a build for the CPU lacks what the package looks at
if not hasattr(torch._C, "_cuda_init"):
    torch._C._cuda_init = lambda: None
from spaces.zero.torch import patching

patching.patch()  # as at import on Spaces: the main thread sees a GPU, the others do not
import photos
from hellomeme.settings import Settings
from page import spaces_gpu
from page.state import State

spaces_gpu.ON_SPACES = True
state = State(sys.argv[1])
assert state.reenactor(sys.argv[1]).pipeline.unet.device.type == "cuda"
visitor = threading.Thread(target=state.reenactor, args=(sys.argv[2],))
visitor.start()
visitor.join()
(waiting,) = (reenactor for (name, _), reenactor in state.reenactors.items() if name == sys.argv[2])
print(waiting.pipeline.unet.device, waiting.pipeline.unet.dtype)

patching.unpatch()  # as in the process that is lent the GPU, for which the CPU stands here
state.device = "cpu"
spaces_gpu.PAGE_PROCESS = None
reenactor = state.drawing_reenactor(sys.argv[2])
reenactor.set_reference(photos.toon(3))
print(reenactor is waiting, reenactor.image(photos.toon(5), Settings(steps=1)).picture.size)
"""


def test_another_model_than_the_first_is_loaded_for_a_visitor(model_folder, tmp_path):
    """With the real package's stand-in for a GPU."""
    other = shutil.copytree(model_folder, tmp_path / "other")
    paths = [str(Path(app.__file__).parent), str(Path(__file__).parent)]
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER_MODEL, str(model_folder), str(other)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["cpu torch.float16", "True (128, 128)"]
