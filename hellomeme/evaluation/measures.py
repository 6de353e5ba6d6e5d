"""The measures of the paper's table, over frames as they come.

Each takes batches of consecutive frames of one clip, and has its value at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..face.crop import Crop
from ..face.detect import Face, FaceAnalyzer
from ..face.motion import Motion
from .networks import Unavailable
from .reading import expression_distance, pose_distance

WINDOW = 16  # frames: what FVD looks at together, and what is in memory at a time
HIGHEST_PSNR = 100.0  # dB, of a frame that is its truth, bit by bit
FACENET_SIDE, FACE_MARGIN = 160, 1.3  # px; side of the square in extents of the face


@dataclass(frozen=True)
class Batch:
    """Up to WINDOW consecutive frames of a clip.

    pictures, driver: (N, S, S, 3) uint8, the result and the driver, which is the truth in self-reenactment.
    first: the number of the first of them in the clip. motion: what was read of these frames of the driver.
    reference: (S, S, 3) uint8.
    """

    pictures: np.ndarray
    driver: np.ndarray
    first: int
    motion: Motion
    reference: np.ndarray

    @property
    def compared(self) -> slice:
        """The frames that can be compared with their truth: the first of a clip is the reference itself."""
        return slice(1 if self.first == 0 else 0, None)


class Likeness:
    """Mean over frames of what `compare` says of each: pictures and truth, (N, 3, H, W) in [0, 1] to (N,)."""

    def __init__(self, compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], device: Any = "cpu"):
        self.compare, self.device, self.values = compare, device, []

    def add(self, batch: Batch) -> None:
        pair = [to_tensor(frames[batch.compared], self.device) for frames in (batch.pictures, batch.driver)]
        if len(pair[0]):
            self.values += self.compare(*(frames.float() / 255 for frames in pair)).tolist()

    def value(self) -> float:
        values, self.values = self.values, []
        return float(np.mean(values))


class FrechetInception:
    """FID of the frames against those of the drivers.

    metric: torchmetrics' own, which keeps the features of the drivers when it is reset.
    """

    def __init__(self, metric: Any):
        self.metric, self.has_real = metric, False

    def add(self, batch: Batch) -> None:
        if not self.has_real:
            self.metric.update(to_tensor(batch.driver, self.metric.device), real=True)
        self.metric.update(to_tensor(batch.pictures, self.metric.device), real=False)

    def value(self) -> float:
        value = float(self.metric.compute())
        self.metric.reset()
        self.has_real = True
        return value


class FrechetVideo:
    """FVD of windows of WINDOW frames against those of the drivers; shorter rests are left out.

    metric: cd-fvd's own.
    """

    def __init__(self, metric: Any):
        self.metric, self.windows, self.has_real = metric, 0, False

    def add(self, batch: Batch) -> None:
        if len(batch.pictures) == WINDOW:
            if not self.has_real:
                self.metric.add_real_stats(batch.driver[None])
            self.metric.add_fake_stats(batch.pictures[None])
            self.windows += 1

    def value(self) -> float:
        windows, self.windows, self.has_real = self.windows, 0, True
        if windows < 2:
            raise Unavailable(f"two windows of {WINDOW} frames are the least for it: give longer clips.")
        value = float(self.metric.compute_fvd_from_stats())
        self.metric.empty_fake_stats()
        return value


class Readings:
    """What a face reader sees in the frames: distances to the driver, and, with `facenet`, identity.

    A frame without a face, in the result or in the driver, counts in none of them but the share of faces.
    """

    def __init__(self, analyzer: FaceAnalyzer):
        self.analyzer = analyzer
        self.faces, self.aed, self.apd = [], [], []
        self.found: list[Face | None] = []

    def add(self, batch: Batch) -> None:
        self.found = [next(iter(self.analyzer.faces(picture)), None) for picture in batch.pictures]
        for t, face in enumerate(self.found):
            self.faces.append(face is not None)
            if face is not None and batch.motion.valid[t]:
                self.aed.append(expression_distance(face.blendshapes, batch.motion.blendshapes[t]))
                self.apd.append(pose_distance(face.rotation, batch.motion.rotation[t]))

    def value(self, name: str) -> float:
        values = getattr(self, name)
        setattr(self, name, [])
        if not values:
            raise Unavailable("no frame shows a face.")
        return float(np.mean(values))


class Identity:
    """Cosine of the angle between the codes of a drawn face and of the reference's, mean over frames."""

    def __init__(self, facenet: Callable[[torch.Tensor], torch.Tensor], readings: Readings, device: Any):
        self.facenet, self.readings, self.device, self.values = facenet, readings, device, []

    @torch.no_grad()
    def codes(self, faces: Iterable[np.ndarray]) -> torch.Tensor:
        """(N, 512) of faces (160, 160, 3) uint8, as facenet-pytorch prepares them."""
        return self.facenet((to_tensor(np.stack(list(faces)), self.device).float() - 127.5) / 128)

    def add(self, batch: Batch) -> None:
        own = next(iter(self.readings.analyzer.faces(batch.reference)), None)
        pairs = zip(batch.pictures, self.readings.found, strict=True)
        seen = [face_square(picture, face) for picture, face in pairs if face is not None]
        if seen and own is not None:
            codes = self.codes([face_square(batch.reference, own), *seen])
            self.values += torch.cosine_similarity(codes[:1], codes[1:]).tolist()

    def value(self) -> float:
        values, self.values = self.values, []
        if not values:
            raise Unavailable("no frame shows a face.")
        return float(np.mean(values))


def face_square(picture: np.ndarray, face: Face) -> np.ndarray:
    """(160, 160, 3) uint8: the face with the margin that facenet's detector leaves."""
    side = min(FACE_MARGIN * face.extent, min(picture.shape[:2]))
    left, top = np.clip(face.centre - side / 2, 0, np.array(picture.shape[1::-1]) - side)
    return Crop(float(left), float(top), side).apply(picture, FACENET_SIDE)


def to_tensor(frames: np.ndarray, device: Any) -> torch.Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) uint8."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).to(device)


def psnr(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(N,) dB."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    own = {"data_range": 1.0, "reduction": "none", "dim": (1, 2, 3)}
    return peak_signal_noise_ratio(pictures, truth, **own).clamp(max=HIGHEST_PSNR)


def ssim(pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(N,) structural similarity."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(pictures, truth, data_range=1.0, reduction="none")
