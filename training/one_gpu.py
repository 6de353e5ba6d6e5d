"""The stage `together` on one GPU: bfloat16 networks, a captured step, batches drawn by processes.

The loop that all stages share (`training.loop`) goes through Python for every kernel and draws batches in
threads. This one always trains with Muon and in bfloat16, whatever the configuration says, and does not
resume: it is a matter of minutes.
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hellomeme.errors import HelloMemeError
from training.captured import CapturedStep
from training.loop import Schedule, add_to_log, trained
from training.stages.together import TogetherStage

AHEAD = 4  # batches that each process draws before they are asked for
WAIT_EVERY = 8  # steps: Python would otherwise run far ahead of the GPU
# What losses compare, and coefficients, whose fast sines need every digit. All else is rounded to bfloat16.
EXACT = {
    *("latents", "captioned_latents", "weights", "places", "reference_places"),
    *("coefficients", "reference_coefficients"),
}


class Batches(Dataset):
    """The batches of a stage by their numbers, each from random numbers of its own."""

    def __init__(self, stage: TogetherStage, size: int, seed: int) -> None:
        self.stage, self.size, self.seed = stage, size, seed

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.stage.draw(np.random.default_rng([self.seed, 0, number]), self.size)


class StaticBatch:
    """The batch of a step in tensors that stay where they are, on the stage's device, for a graph to read."""

    def __init__(self, stage: TogetherStage, drawn: dict[str, Tensor]) -> None:
        self.stage, self.device = stage, stage.empty_text.device
        self.tensors = {name: tensor.to(self.device) for name, tensor in self._encoded(drawn).items()}

    def copy(self, drawn: dict[str, Tensor]) -> None:
        for name, tensor in self._encoded(drawn).items():
            self.tensors[name].copy_(tensor, non_blocking=True)

    @torch.no_grad()
    def _encoded(self, drawn: dict[str, Tensor]) -> dict[str, Tensor]:
        """With captions encoded: the text encoder is not trained here, and is no part of the step."""
        tokens = drawn.pop("captioned_tokens").to(self.device, non_blocking=True)
        return drawn | {"captioned_text": self.stage.base.text_encoder(tokens).last_hidden_state}

    def batch(self) -> dict[str, Tensor]:
        """As the stage takes it: what the networks see in their precision, what the losses compare exact."""
        precision = self.stage.empty_text.dtype
        return {
            name: x.to(precision) if x.is_floating_point() and name not in EXACT else x
            for name, x in self.tensors.items()
        }


def to_bfloat16(stage: TogetherStage) -> None:
    """The networks that are trained, and the text that they see; what measures losses stays exact."""
    parts = (stage.denoising_net.unet, stage.adapter, stage.controls, stage.coordinates, stage.sketches)
    for part in parts:
        part.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
    stage.empty_text = stage.empty_text.to(torch.bfloat16)


def refuse_to_replace(folder: Path) -> None:
    """Raises HelloMemeError where a training lies that `train` would resume."""
    if (folder / "last.safetensors").exists():
        raise HelloMemeError(
            f"{folder} holds a training that can be resumed without --one-gpu: move it away to begin anew."
        )


def train_on_one_gpu(
    stage: TogetherStage, schedule: Schedule, folder: Path, seed: int = 0, processes: int = 12
) -> None:
    """Train `stage` for its schedule's minutes, from its weights as they are.

    Writes to `folder`, in place of what lies there: `averaged.safetensors` at every look, `log.csv` (the loss
    is that of one step) and `grid_*.jpg`. processes: that draw batches. Without a GPU it does the same
    slowly, for tests. Raises what `refuse_to_replace` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_to_replace(folder)
    (folder / "log.csv").unlink(missing_ok=True)  # its steps would be taken for this training's
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    cv2.setNumThreads(1)  # before processes begin, in which OpenCV would wait for threads that they lack
    drawn = iter(
        DataLoader(
            Batches(stage, schedule.batch, seed),
            batch_size=None,
            num_workers=processes,
            prefetch_factor=AHEAD if processes else None,
            pin_memory=on_gpu,
            multiprocessing_context="fork" if processes else None,  # they share the frames
        )
    )
    first = next(drawn)  # the processes begin before the networks lie on the GPU
    torch.manual_seed(seed)
    to_bfloat16(stage.to(device))
    static = StaticBatch(stage, first)

    def loss() -> Tensor:
        computed = stage(static.batch())
        stage.reference_features = stage.target_features = None  # or they keep the step's graph alive
        return computed

    step = CapturedStep(trained(stage), loss, schedule.ema, schedule.weight_decay)
    began = time.monotonic()
    looked = began - 60 * schedule.validate_minutes + 30
    while True:
        now = time.monotonic()
        progress = max((now - began) / 60 / schedule.minutes, step.steps / schedule.steps)
        over = progress >= 1 or step.steps >= schedule.stop
        if over or now - looked > 60 * schedule.validate_minutes:
            looked = now
            rate = step.steps * schedule.batch * stage.targets / max(now - began, 1e-6)
            look(stage, step, folder, now - began, rate)
        if over:
            break
        static.copy(next(drawn))
        step.step(schedule.rate(step.steps, progress))
        if on_gpu and step.steps % WAIT_EVERY == 0:
            torch.cuda.synchronize()


@torch.no_grad()
def look(stage: TogetherStage, step: CapturedStep, folder: Path, seconds: float, rate: float) -> None:
    """Write the averaged parameters, a row of the log and a picture; for the latter two they are rounded to
    bfloat16."""
    averages = {name: tensor.cpu().contiguous() for name, tensor in step.averages().items()}
    save_file(averages, folder / "averaged.part")
    (folder / "averaged.part").replace(folder / "averaged.safetensors")
    step.use_average()
    with torch.autocast(stage.empty_text.device.type, torch.bfloat16):
        figures = stage.validate()
        picture = stage.picture()
    step.use_average(False)
    stage.reference_features = stage.target_features = None  # of the pictures above
    picture.save(folder / f"grid_{step.steps:07d}.jpg", quality=90)
    add_to_log(folder, step.steps, seconds, step.loss.item(), rate, figures)
