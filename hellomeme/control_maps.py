"""The control maps of frames. They do not depend on the timestep, so a run makes them once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Maps = dict[str, Tensor]  # key, see `models.control.CONTROL_KEYS` -> (1, C, T, h, w)

MOST_KEPT = 2**30  # bytes: for the maps of all windows that are in progress


@dataclass(frozen=True)
class ControlMaps:
    """Those of T frames.

    negative: of one frame, where it is the same for all, or of T; None without guidance.
    """

    positive: Maps
    negative: Maps | None = None

    def batch(self, rows: slice = slice(None)) -> Maps:
        """These rows of the batch [negative, positive], or of [positive]; key -> (B, C, T, h, w)."""
        if self.negative is None:
            return {key: x[rows] for key, x in self.positive.items()}
        halves = {key: (self.negative[key].expand_as(x), x) for key, x in self.positive.items()}
        return {key: torch.cat(both[rows]) for key, both in halves.items()}


class ClipMaps:
    """The maps of the frames of a clip, which share the negative half. All frames must have the same one."""

    def __init__(self, most: int = MOST_KEPT):
        """most: bytes that maps which need not be kept may take."""
        self.most = most
        self.negative: Maps | None = None
        self.keeping: weakref.WeakSet[FrameMaps] = weakref.WeakSet()

    def of(self, make: Callable[[Maps | None], ControlMaps], keep: bool) -> FrameMaps:
        """Those of some frames. make: takes the negative half, None if it is not known. keep: even without
        room."""
        return FrameMaps(self, make, keep)


class FrameMaps:
    """The maps of some frames of a clip: made at the first call and kept from then on, or made at every call
    where there is no room. They are kept as long as this object lives."""

    def __init__(self, clip: ClipMaps, make: Callable[[Maps | None], ControlMaps], keep: bool):
        self.clip, self.make, self.keep = clip, make, keep
        self.kept: ControlMaps | None = None
        self.bytes = 0  # of the positive half, where they are kept because there is room

    def __call__(self) -> ControlMaps:
        if self.kept is not None:
            return self.kept
        clip = self.clip
        maps = self.make(clip.negative)
        if maps.negative is not None and clip.negative is None:
            # A copy: that of one frame would hold the memory of all frames that it was made with
            clip.negative = {key: x.clone() for key, x in maps.negative.items()}
        maps = ControlMaps(maps.positive, clip.negative)
        size = sum(x.nbytes for x in maps.positive.values())
        if not self.keep and sum(other.bytes for other in clip.keeping) + size > clip.most:
            return maps
        self.kept = maps
        if not self.keep:
            self.bytes = size
            clip.keeping.add(self)
        return maps
