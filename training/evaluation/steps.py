"""How many steps? Likeness, faces found, and time, by number of denoising steps."""

from __future__ import annotations

import time

import numpy as np

from training.evaluation.bench import Bench
from training.evaluation.evaluate import likeness
from training.readings import follow, read_back

STEPS = (1, 2, 4, 8, 16)
IDENTITIES = 32  # 16 steps of all would take longer than everything else together


def by_steps(bench: Bench, steps: tuple[int, ...] = STEPS) -> dict[str, dict[str, float]]:
    """Figures by number of steps, the page's default among them, on the first IDENTITIES pairs.

    seconds: median time of a picture from motion to pixels, the reference being prepared, on this machine.
    """
    pairs = bench.pairs[:IDENTITIES]
    truth = bench.small(pair.truth for pair in pairs)
    references = [bench.prepare(pair.reference) for pair in pairs]
    figures = {}
    for count in sorted({*steps, bench.settings.steps}):
        pictures, seconds = [], []
        for reference, pair in zip(references, pairs, strict=True):
            started = time.perf_counter()
            pictures.append(bench.draw(reference, pair.driver.motion, count))
            seconds.append(time.perf_counter() - started)
        read = follow(read_back(pictures, bench.analyzer), [pair.driver.face for pair in pairs])
        chosen = {name: read[name] for name in ("faces", "aed", "apd") if name in read}
        figures[str(count)] = (
            likeness(np.stack(pictures), truth) | chosen | {"seconds": float(np.median(seconds))}
        )
    return figures
