"""How many threads torch takes on the CPU: as many as the process may use, and one for small networks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .pipeline import HelloMemePipeline

# Parameters of a UNet below which one thread draws. On layers this small a second thread gains nothing and
# takes time from others, see benchmarks/threads.py. The demo has 7 million, Stable Diffusion 1.5 860.
SMALL = 50_000_000
CHOSEN_BY_USER = "OMP_NUM_THREADS"
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")  # Linux


def wait_without_spinning() -> None:
    """Lets threads that wait for others sleep, where they would keep their cores busy. To be called before
    torch is imported; an environment that says otherwise is left alone."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def set_threads(number: int) -> None:
    """Sets how many threads torch takes in the calling thread, and in those that use it for the first time
    later."""
    import torch

    torch.set_num_threads(number)


def threads_for(pipeline: HelloMemePipeline) -> int:
    """How many threads should draw with a pipeline on the CPU."""
    return 1 if is_small(pipeline) else usable_cores()


def is_small(pipeline: HelloMemePipeline) -> bool:
    """Whether the UNet of a pipeline has few parameters, see SMALL."""
    return sum(parameter.numel() for parameter in pipeline.unet.parameters()) < SMALL


def usable_cores() -> int:
    """How many cores this process may keep busy: what OMP_NUM_THREADS says, or what its affinity and the
    quota of its cgroups allow, rounded down. At least 1."""
    if (chosen := os.environ.get(CHOSEN_BY_USER, "")).isdecimal():
        return max(1, int(chosen))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(_quota(), allowed)))


def _quota() -> float:
    """Cores that the cgroups of this process grant, of version 2 or 1; infinity without a limit."""
    try:
        lines = OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return math.inf
    granted = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            granted += [_limit(folder, "cpu.max") for folder in _folders(CGROUPS, path)]
        elif "cpu" in controllers.split(","):
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            granted += [_limit(folder, *names) for folder in _folders(CGROUPS / "cpu", path)]
    return min(granted)


def _folders(root: Path, path: str) -> list[Path]:
    """Those of a cgroup and of all above it: the limits of each hold. In a container the path may be one that
    only the host has."""
    own = root / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(root))]


def _limit(folder: Path, *names: str) -> float:
    """Cores that the files of a cgroup grant: two numbers, µs of a quota and of its period."""
    try:
        quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota in ("max", "-1") else int(quota) / int(period)
