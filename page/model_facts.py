"""What is said of a model before it draws: download, GPU memory, time a picture, licence."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from hellomeme.errors import HelloMemeError
from hellomeme.releases.files import lacking, listed, needed
from hellomeme.releases.load import choose_device, find
from hellomeme.releases.table import Release
from hellomeme.settings import Settings

from . import spaces_gpu, state
from .imports import import_networks
from .live_offer import picture_seconds
from .messages import SEPARATOR

TIMEOUT = 4.0  # s for an answer of the hub
FACTS = {"concurrency_id": "facts", "concurrency_limit": 4, "show_progress": "hidden"}
# s for a step of 512 px with guidance on an H100, as `spaces_gpu.PREDICTION` is chosen by
H100_STEP = 0.028
NO_DOWNLOAD = "nothing to download"
ASKING = "asking the hub what is still to download"


def model_facts(model) -> Iterator[str]:
    """The line below the choice of a model; at first without what the hub is asked for. The hub is asked here
    and nowhere else before a model is used."""
    row, page = find(model), state.STATE
    parts = needed(row, page.default_type(model))
    known = [_device(row), _time(model, row), _licence(row)]
    if not lacking(parts):
        yield SEPARATOR.join([NO_DOWNLOAD, *known])
        return
    yield SEPARATOR.join([ASKING, *known])
    try:
        with ThreadPoolExecutor(len(parts)) as threads:
            answers = list(threads.map(lambda part: listed(part, TIMEOUT), parts))
        files = [file for answer in answers for file in answer]
        download = f"{sum(file.size for file in files if not file.is_here) / 1e9:.1f} GB to download"
    except HelloMemeError:
        download = f"the hub cannot be reached now, and up to {row.gigabytes:g} GB are to be downloaded"
    yield SEPARATOR.join([download, *known])


def _device(row: Release) -> str:
    """The memory of the GPU that draws. How much of it a release takes has not been measured."""
    if row.size <= 256:
        return "needs no GPU"
    if spaces_gpu.ON_SPACES:
        return "a GPU is lent for it"
    import_networks()
    import torch

    device = choose_device(state.STATE.device)
    if device.type == "cpu":
        return "no GPU here: on the CPU a picture takes minutes, not measured"
    if device.type != "cuda":
        return f"GPU memory not measured; it draws on {device}"
    memory = torch.cuda.get_device_properties(device).total_memory / 1e9
    return f"GPU memory not measured; the one here has {memory:.0f} GB"


def _time(model: str, row: Release) -> str:
    seconds = picture_seconds(model, Settings().resolved(row))
    if seconds is not None:
        return f"{seconds:.1f} s a picture here, as measured"
    if row.size <= 256:
        return "less than a second a picture"
    return f"about {row.steps * H100_STEP:.1f} s a picture on an H100, not measured here"


def _licence(row: Release) -> str:
    if row.base.is_bundled:
        return f"licence {row.license}"
    return f"licence {row.license} of the base model, MIT of the adapters"
