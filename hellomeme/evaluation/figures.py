"""The paper's columns for kept clips: of a release, and of the baselines that need no weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..face.detect import FaceAnalyzer
from ..face.motion import Motion
from ..io.atomic import atomic_write
from . import networks
from .clips import COPIED, DRAWN, DRIVER, DRIVER_MOTION, WARPED, batches
from .measures import WINDOW, Batch, FrechetInception, FrechetVideo, Identity, Likeness, Readings, psnr, ssim
from .networks import Unavailable

SELF, CROSS = ("FID", "FVD", "PSNR", "SSIM", "LPIPS"), ("FID", "AED", "APD", "identity", "faces")
MEANING = {
    "FID": "Inception distance of the frames to the drivers' frames; lower is better (torchmetrics)",
    "FVD": f"I3D distance of windows of {WINDOW} frames to the drivers'; lower is better (cd-fvd)",
    "PSNR": "dB, mean over frames without each clip's first; higher is better (torchmetrics)",
    "SSIM": "up to 1, mean over the same frames; higher is better (torchmetrics)",
    "LPIPS": "AlexNet, mean over the same frames; lower is better (torchmetrics)",
    "AED": "mean difference to the driver of 51 ARKit coefficients, 0 to 1, as MediaPipe reads both",
    "APD": "mean difference to the driver of pitch, yaw and roll, in degrees, as MediaPipe reads both",
    "identity": "cosine between drawn and reference face, VGGFace2; higher is better (facenet-pytorch)",
    "faces": "share of frames in which MediaPipe finds a face: AED, APD and identity are over these",
}
SYSTEMS = {COPIED: "copied reference", WARPED: "warped reference"}
MISSING = "could not be had"


@dataclass(frozen=True)
class Kept:
    """A finished task: where its pictures are, and how many frames each system has."""

    name: str
    folder: Path
    frames: int


@dataclass(frozen=True)
class Figures:
    """values: system -> column -> value, None where it could not be had. reasons: column -> why, a sentence.
    left_out: clip -> why, a sentence. frames: of all clips together. settings: in words."""

    release: str
    cross: bool
    clips: list[str]
    frames: int
    settings: dict[str, Any]
    values: dict[str, dict[str, float | None]]
    reasons: dict[str, str]
    left_out: dict[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return CROSS if self.cross else SELF

    def table(self) -> str:
        """The figures as Markdown, and under them what is missing and why."""
        lines = [f"| | {' | '.join(self.columns)} |", "|---" * (len(self.columns) + 1) + "|"]
        for system, row in self.values.items():
            cells = (MISSING if row[name] is None else f"{row[name]:.4g}" for name in self.columns)
            lines.append(f"| {system} | {' | '.join(cells)} |")
        kind = "Cross-reenactment" if self.cross else "Self-reenactment"
        lines += ["", f"{kind}, {len(self.clips)} clips, {self.frames} frames."]
        measured = [n for n in self.columns if any(row[n] is not None for row in self.values.values())]
        lines += [f"{name}: {MEANING[name]}." for name in measured]
        lines += [f"{name} {MISSING}: {reason}" for name, reason in self.reasons.items()]
        lines += [f"{clip} is left out: {reason}" for clip, reason in self.left_out.items()]
        return "\n".join(lines)

    def save(self, path: Path) -> None:
        """Writes all of it as JSON, with the meaning of each column."""
        facts = asdict(self) | {"meaning": {name: MEANING[name] for name in self.columns}}
        with atomic_write(path, "file of figures") as draft:
            draft.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def measure(
    kept: Sequence[Kept],
    cross: bool,
    release: str,
    analyzer: FaceAnalyzer,
    device: Any,
    progress: Callable[[str, int, int], None],
) -> tuple[dict[str, dict[str, float | None]], dict[str, str]]:
    """`Figures.values` and `Figures.reasons` of finished tasks. progress: as for `Reenactor.video`."""
    measures, reasons = _measures(cross, analyzer, device)
    lacking, values, done = set(reasons), {}, 0
    total = (len(SYSTEMS) + 1) * sum(each.frames for each in kept)
    for system, title in {**SYSTEMS, DRAWN: release}.items():
        for each in kept:
            for batch in _batches(each, system):
                for measured in measures.values():
                    measured.add(batch)
                done += len(batch.pictures)
                progress("measuring", done, total)
        values[title] = row = {}
        for name in CROSS if cross else SELF:
            try:
                row[name] = None if name in lacking else _value(measures, name)
            except Unavailable as error:  # of this system
                row[name], reasons[name] = None, str(error)
    return values, reasons


def _value(measures: dict[str, Any], name: str) -> float:
    own = measures.get(name)
    value = measures["readings"].value(name.lower()) if own is None else own.value()
    if not math.isfinite(value):
        raise Unavailable("its value is not a number.")
    return value


def _measures(cross: bool, analyzer: FaceAnalyzer, device: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The measures by column, and why others cannot be had."""
    readings = Readings(analyzer)
    makers = {"FID": lambda: FrechetInception(networks.fid(device))}
    if cross:
        makers["identity"] = lambda: Identity(networks.facenet(device), readings, device)
    else:
        makers["FVD"] = lambda: FrechetVideo(networks.fvd(device))
        makers["PSNR"] = lambda: Likeness(networks.obtain(lambda: psnr), device)
        makers["SSIM"] = lambda: Likeness(networks.obtain(lambda: ssim), device)
        makers["LPIPS"] = lambda: Likeness(networks.lpips(device), device)
    measures, reasons = ({"readings": readings} if cross else {}), {}
    for name, make in makers.items():
        try:
            measures[name] = make()
        except Unavailable as error:
            reasons[name] = str(error)
    return measures, reasons


def _batches(kept: Kept, system: str) -> Iterator[Batch]:
    """Yields the `Batch`es of a system."""
    motion = Motion.load(kept.folder / DRIVER_MOTION)
    reference = next(batches(kept.folder, COPIED, 1, 1))[0]
    first = 0
    pairs = zip(
        batches(kept.folder, system, kept.frames, WINDOW),
        batches(kept.folder, DRIVER, kept.frames, WINDOW),
        strict=True,
    )
    for pictures, driver in pairs:
        chosen = motion.at(range(first, first + len(pictures)))
        yield Batch(pictures, driver, first, chosen, reference)
        first += len(pictures)
