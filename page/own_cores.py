"""Which models draw on a Space's own cores, and take none of the visitor's GPU time."""

from __future__ import annotations

import time

from hellomeme.releases.load import find
from hellomeme.settings import Settings

from . import spaces_gpu, state

SMALL = 256  # px: only models up to this size are tried on the CPU; Stable Diffusion takes minutes there
FAST = 1.0  # s for a picture
TRIED_AGAIN = 600.0  # s after which a model that was too slow is tried again: the cores may have been busy


def draws_here(release: str, settings: Settings) -> bool:
    """Whether pictures, and frames of clips, are drawn in this process: on Spaces if the model takes less
    than a second for one on the CPU, as measured, or has not been measured; elsewhere always."""
    if spaces_gpu.has_gpu():
        return True
    page, row = state.STATE, find(release)
    settings = settings.resolved(row)
    if row.size > SMALL or settings.enlargement > 1:
        return False
    if (pace := page.pace.get(release)) is None:
        return True
    if time.monotonic() - page.measured_at.get(release, 0) > TRIED_AGAIN:
        return True
    return pace * settings.steps * (2 if settings.guidance > 1 else 1) < FAST
