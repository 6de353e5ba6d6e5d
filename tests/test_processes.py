"""Two processes that draw a clip together over gloo, and the launcher that starts several."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WIDTHS
from diffusers import MotionAdapter
from photos import toon
from PIL import Image

from hellomeme.cli import launch, main
from hellomeme.face.motion import Motion

ROOT = Path(__file__).parent.parent


@pytest.fixture
def command(tmp_path, model_folder):
    """command(output, *options): a clip of 28 frames with a motion module, in four windows."""
    import shutil

    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    torch.manual_seed(1)
    adapter = MotionAdapter(
        block_out_channels=WIDTHS,
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    )
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    adapter.save_pretrained(model / "motion")
    Image.fromarray(toon(3)).save(tmp_path / "reference.png")
    t = np.linspace(0, 0.4, 28)
    cos, sin, zero, one = np.cos(t), np.sin(t), np.zeros(28), np.ones(28)
    rotation = np.stack([cos, zero, sin, zero, one, zero, -sin, zero, cos], 1).reshape(28, 3, 3)
    blendshapes = np.tile(t[:, None], 51).astype(np.float32)
    Motion(blendshapes, rotation, np.full((28, 2), 256.0), np.full(28, 90.0), np.ones(28, bool)).save(
        tmp_path / "turn.npz"
    )
    quick = "--release", model, "--device", "cpu", "--dtype", "float32", "--steps", 2, "--guidance", 1.5

    def command(output, *options):
        inputs = tmp_path / "reference.png", tmp_path / "turn.npz"
        return [*map(str, ("video", *inputs, tmp_path / output, *quick, *options))]

    return command


def test_two_processes_write_the_clip_of_one_and_end_together(command, tmp_path, capfd):
    kept, short = ("--reuse", "2"), ("--no-motion", "--frames", "12", "--start", "0", "--steps", "1")
    assert main.main(command("one.mp4", *kept)) == 0
    expected = capfd.readouterr().out.replace("one.mp4", "both.mp4")
    runs = [["", "both.mp4"], ["first", "a.mp4"], ["second", "b.mp4"], ["internal", "c.mp4"]]
    runs += [["interrupted", "d.mp4"]]
    arguments = json.dumps(
        [[launch._free_port(), fails, command(name, *(short if fails else kept))] for fails, name in runs]
    )
    places = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests")))}
    children = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "two_processes.py", arguments],
            env=os.environ | places | paths | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        told = [child.communicate(timeout=900) for child in children]
    finally:
        for child in children:
            child.kill()
    statuses = [json.loads(out.splitlines()[-1]) for out, _ in told]
    assert statuses == [[0, 2, 2, 2, 2], [0, 2, 2, "ZeroDivisionError('of a test')", 130]]
    assert told[0][0].startswith(expected) and told[1][0].count("\n") == 1  # the first one prints the path
    ended = (
        "hellomeme: Another process has ended before the work was done: look at its message, and start again."
    )
    full, failed = "The disk of the first process is full.", "The second process failed."
    assert told[0][1].splitlines() == [f"hellomeme: {full}", f"hellomeme: {failed}", ended, ended]
    assert told[1][1] == ""
    clips = [path for path in tmp_path.iterdir() if path.suffix in (".mp4", ".part")]
    assert sorted(path.name for path in clips) == ["both.mp4", "one.mp4"]
    assert (tmp_path / "both.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()


@pytest.fixture
def started(monkeypatch):
    """Lets the launcher start `code` in place of the package, and gives the processes that it has started."""
    started, popen = [], subprocess.Popen
    monkeypatch.setattr(launch, "PATIENCE", 0.5)
    # Ignored where the tests run in the background of a script
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(command, env):
        assert command == [sys.executable, "-m", "hellomeme", "batch", "x"]
        started.append(popen([sys.executable, "-c", code.pop() if len(code) > 1 else code[0]], env=env))
        return started[-1]

    code = []
    monkeypatch.setattr(launch.subprocess, "Popen", start)
    yield lambda *programs: code.extend(programs[::-1]) or started
    signal.signal(signal.SIGINT, kept)
    assert all(process.returncode is not None for process in started)


WAIT = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: exit(130)"


def test_the_launcher_tells_each_process_its_place(started, monkeypatch, tmp_path):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.chdir(tmp_path)
    names = "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS"
    started(f"import os; open('own-' + os.environ['RANK'], 'w').write(str([os.environ[n] for n in {names}]))")
    assert launch.launched(2, ["batch", "x"]) == 0
    for rank in "01":
        told = (tmp_path / f"own-{rank}").read_text()
        assert told == str([rank, rank, "2", "127.0.0.1", "5"])


def test_the_launcher_ends_all_when_one_fails(started):
    children = started("exit(3)", WAIT)
    assert launch.launched(2, ["batch", "x"]) == 3
    assert [child.returncode for child in children] == [3, 130]


@pytest.mark.parametrize(
    "how, in_background", [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)]
)
def test_the_launcher_ends_all_with_ctrl_c(started, how, in_background):
    if in_background:  # of a script: Ctrl-C is for others
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    children = started(WAIT)

    def interrupt():
        while len(children) < 2:
            time.sleep(0.05)
        time.sleep(0.5)  # until they wait
        os.kill(os.getpid(), how)

    threading.Thread(target=interrupt).start()
    before = signal.getsignal(signal.SIGTERM)
    assert launch.launched(2, ["batch", "x"]) == 130
    assert [child.returncode for child in children] == [-signal.SIGTERM if in_background else 130] * 2
    assert signal.getsignal(signal.SIGTERM) == before
