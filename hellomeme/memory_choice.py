"""Which networks of a pipeline are on the GPU, and how small the portions of a clip are, by the free memory.

The figures are computed from the sizes of tensors, see benchmarks/gpu_memory.py.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .placement import Placement, move, size_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .pipeline import HelloMemePipeline
    from .sampling.plan import ClipPlan

CHOICES = ("auto", "all", "offload", "least")
OFFLOADING = ("cuda",)  # kinds of devices with a memory of their own
MARGIN = 1_000_000_000  # bytes of the GPU for what is no tensor of ours: workspaces, fragmentation
# Numbers that a prediction or its control nets hold at most, for each frame, half of guidance and position of
# the latents, in widths of the UNet's first block: in v1 and v2, with knitted motion, with projected controls
PREDICTION, KNITTED, PROJECTED = 35, 41, 67
DECODER = 6  # numbers that the decoder holds, for each pixel, in widths of its block at that size
SMALLEST = 2  # portions of a clip
CGROUP = Path("/sys/fs/cgroup")  # Linux, version 2
log = logging.getLogger(__name__)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; on the CPU those of the computer, or of this container."""
    import psutil
    import torch

    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(psutil.virtual_memory().available, *_left_to_container())


def _left_to_container() -> Iterable[int]:
    """What the limit of this process' container leaves, if there is one. Cached files do not count."""
    try:
        limit, taken = ((CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        lines = (CGROUP / "memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return [int(limit) - int(taken) + cached]
    except (OSError, ValueError, StopIteration):  # another system, or "max": no limit
        return [1 << 62]


def place(pipeline: HelloMemePipeline, device: torch.device, choice: str = "auto") -> None:
    """Puts the networks of a pipeline, which are in the memory of the computer, where they work.

    choice: "all" puts all of them on the device, "offload" those at work only, "auto" all if they fit into
    what is free there. "least" is "offload" without keeping any, and in small portions. Without a GPU all are
    in the memory of the computer, and "least" means the small portions.
    """
    pipeline.memory = choice
    everything = [*networks_of(pipeline), *filter(None, [pipeline.encoders])]
    if _fits(pipeline, device, everything):
        pipeline.to(device)
    else:
        _offload(pipeline, device)


def place_added(pipeline: HelloMemePipeline, added: Iterable[nn.Module]) -> None:
    """The same for networks that were added to it: the others make room for them where that is needed."""
    device = pipeline.running_device
    if pipeline.placement is None and not _fits(pipeline, device, added):
        _offload(pipeline, device)
    for network in added:
        move(network, pipeline.loading_device)


def _fits(pipeline: HelloMemePipeline, device: torch.device, networks: Iterable[nn.Module]) -> bool:
    """Whether these networks are to be on the device beside what is there."""
    if device.type not in OFFLOADING or pipeline.memory != "auto":
        return device.type not in OFFLOADING or pipeline.memory == "all"
    return sum(map(size_of, networks)) <= free_memory(device) - MARGIN - picture_bytes(pipeline)


def _offload(pipeline: HelloMemePipeline, device: torch.device) -> None:
    import torch

    log.warning("Only the networks at work are on the GPU, as not all of them are to be there at once.")
    if pipeline.encoders is not None:
        pipeline.encoders.to("cpu", torch.float32)  # small, and before the others are at work
    there = [network for network in networks_of(pipeline) if network.device.type == device.type]
    room = free_memory(device) + sum(map(size_of, there)) - MARGIN - picture_bytes(pipeline)
    pipeline.placement = Placement(device, 0 if pipeline.low_memory else max(0, room), there)


def networks_of(pipeline: HelloMemePipeline) -> list[nn.Module]:
    """The networks of a pipeline, each once."""
    import torch

    parts = {id(part): part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)}
    return list(parts.values())


def picture_bytes(pipeline: HelloMemePipeline) -> int:
    """What a picture takes beside the weights: the larger of a prediction and of decoding."""
    per_pixel = DECODER * (getattr(pipeline.vae.config, "block_out_channels", None) or [0])[0]
    pixels = 64 * _positions(pipeline)
    return max(2 * frame_bytes(pipeline), per_pixel * pixels * pipeline.vae.dtype.itemsize)


def frame_bytes(pipeline: HelloMemePipeline) -> int:
    """What a prediction of one frame takes beside the weights, for each half of guidance."""
    config, dtype = pipeline.unet.config, pipeline.unet.dtype
    held = PREDICTION if pipeline.hm_motion is None else KNITTED
    held = held if pipeline.hm_control_proj is None else PROJECTED
    return held * config.block_out_channels[0] * _positions(pipeline) * dtype.itemsize


def _positions(pipeline: HelloMemePipeline) -> int:
    """Of the latents of a picture."""
    side = pipeline.unet.config.sample_size if pipeline.release is None else pipeline.release.size // 8
    return side**2


def portions(pipeline: HelloMemePipeline, plan: ClipPlan) -> int:
    """In how small portions a clip is to be drawn, see `ClipPlan.in_portions`: the largest for which there is
    memory on the device, or the smallest there are."""
    if pipeline.low_memory:
        return SMALLEST
    device, placement = pipeline.running_device, pipeline.placement
    free = left = free_memory(device) - (MARGIN if device.type in OFFLOADING else 0)
    if placement is not None:
        left += sum(map(size_of, placement.there.values()))
        motion = (pipeline.motion_adapter, pipeline.hm_motion) if plan.together else ()
        at_work = (
            pipeline.unet,
            pipeline.hm_reference,
            *pipeline.controls,
            pipeline.hm_control_proj,
            *motion,
        )
        free = left - sum(size_of(network) for network in at_work if network is not None)
    taken = [plan.in_portions(i).at_once * frame_bytes(pipeline) for i in range(SMALLEST + 1)]
    chosen = next((i for i, size in enumerate(taken) if size <= free), SMALLEST)
    if placement is not None:
        placement.room = max(0, left - taken[chosen])
    return chosen
