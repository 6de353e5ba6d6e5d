"""Progress callbacks for a terminal. Without a terminal nothing is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO


def step_counter(stream: TextIO) -> Callable[[int, int], None] | None:
    """A callback of `Reenactor.image`: steps done and steps in all. None without a terminal."""
    if not stream.isatty():
        return None

    def show(step: int, steps: int) -> None:
        print(f"\rstep {step} of {steps}", end="\n" if step == steps else "", file=stream, flush=True)

    return show


def frame_counter(stream: TextIO) -> Callable[[str, float, int], None] | None:
    """A callback of `Reenactor.video`: the phase, frames done, time left. None without a terminal."""
    if not stream.isatty():
        return None
    began = {}

    def show(phase: str, done: float, total: int) -> None:
        now = time.monotonic()
        spent = now - began.setdefault(phase, now)
        left = f", {spent / done * (total - done):.0f} s left" if done and spent > 1 else ""
        end = "" if done < total else "\n"
        print(f"\r\x1b[K{phase}: {int(done)} of {total} frames{left}", end=end, file=stream, flush=True)

    return show


def download_bars(stream: TextIO) -> Callable[[str, int, int], None]:
    """A callback for downloads: huggingface_hub's progress bars, which hide without a terminal."""
    bars = {}

    def show(source: str, done: int, total: int) -> None:
        from huggingface_hub.utils import tqdm

        if source not in bars:
            bars[source] = tqdm(
                desc=source, total=total, unit="B", unit_scale=True, file=stream, disable=None
            )
        bars[source].update(done - bars[source].n)
        if done == total:
            bars[source].close()

    return show
