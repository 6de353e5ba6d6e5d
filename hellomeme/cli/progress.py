"""Progress on a terminal, and nothing elsewhere: counters of steps and frames, bars for downloads."""

from __future__ import annotations

import time


def step_counter(stream):
    """A progress callback that counts the steps on one line of a terminal; nothing elsewhere."""
    if not stream.isatty():
        return None

    def count(step: int, steps: int) -> None:
        print(f"\rstep {step} of {steps}", end="\n" if step == steps else "", file=stream, flush=True)

    return count


def frame_counter(stream):
    """A progress callback for a terminal: the phase, frames done, and the time that is left; nothing
    elsewhere."""
    if not stream.isatty():
        return None
    began = {}

    def count(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        spent = now - began.setdefault(phase, now)
        left = f", {spent / done * (total - done):.0f} s left" if done and spent > 1 else ""
        end = "" if done < total else "\n"
        print(f"\r\x1b[K{phase}: {done} of {total} frames{left}", end=end, file=stream, flush=True)

    return count


def download_bars(stream):
    """A progress callback for downloads: huggingface_hub's bars on a terminal; nothing elsewhere."""
    bars = {}

    def tell(source: str, done: int, total: int) -> None:
        from huggingface_hub.utils import tqdm

        if source not in bars:
            bars[source] = tqdm(
                desc=source, total=total, unit="B", unit_scale=True, file=stream, disable=None
            )
        bars[source].update(done - bars[source].n)
        if done == total:
            bars[source].close()

    return tell
