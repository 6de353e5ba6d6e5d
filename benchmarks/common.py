"""What the benchmarks share: the machine they ran on, and a model for where the bundled one is not there."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the tests make clips and tiny models


def machine() -> str:
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        name = next(
            (line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line),
            name,
        )
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}, torch {torch.__version__}"
    )


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """That a call takes, without gradients: CPU time of all threads, or by the clock on a GPU."""
    import torch

    with torch.inference_mode():
        if device.type != "cuda":
            began = time.process_time()
            function()
            return time.process_time() - began
        torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        torch.cuda.synchronize()
        return time.perf_counter() - began


def status(name: str) -> int:
    """A figure of this process in bytes, from Linux: VmRSS, or VmHWM for its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def model(name: str) -> str:
    """`name`, or for "tiny" a folder with a random model of the demo's layout, motion module included."""
    if name != "tiny":
        return name
    import torch
    from conftest import WIDTHS, write_model_folder
    from diffusers import MotionAdapter

    folder = write_model_folder(Path(tempfile.mkdtemp(prefix="tiny-")) / "tiny")
    torch.manual_seed(1)
    MotionAdapter(
        block_out_channels=WIDTHS,
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    ).save_pretrained(folder / "motion")
    return str(folder)


def head(path: Path, seconds: float, rate: int = 30, filters: str = "null") -> Path:
    """A clip of a drawn head, for as long as is asked for: it looks from side to side once a second."""
    import numpy as np
    from clips import H264, ffmpeg
    from photos import toon
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for k in range(rate):
            yaw = 15 * np.sin(2 * np.pi * k / rate) if filters == "null" else 0.0
            Image.fromarray(toon(5, yaw=yaw)).save(f"{folder}/{k}.png")
        ffmpeg(
            "-stream_loop",
            "-1",
            "-framerate",
            rate,
            "-i",
            f"{folder}/%d.png",
            "-f",
            "lavfi",
            "-i",
            "sine",
            "-t",
            seconds,
            "-vf",
            filters,
            *H264,
            path,
        )
    return path
