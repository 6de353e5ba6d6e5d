"""The training loop that all stages share: resumable, timed, logged, on one or many devices through
accelerate."""

from __future__ import annotations

import csv
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm import tqdm

from hellomeme.errors import HelloMemeError
from training.cpu import short_attentions
from training.muon import Muon


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Progress is the larger of steps done and minutes passed, resumed runs
    included."""

    minutes: float
    batch: int  # per process
    learning_rate: float
    steps: int = 10**9  # after which the learning rate has come down
    stop: int = 10**9  # at which this run ends
    warmup: int = 50
    ema: float = 0.999
    validate_minutes: float = 4.0
    weight_decay: float = 1e-3
    muon: bool = False  # instead of AdamW, for weights that are matrices

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of a step: up within `warmup` steps, and by a cosine down to a hundredth at the
        end of the schedule, progress 1."""
        warm = min(1.0, (step + 1) / self.warmup)
        return self.learning_rate * warm * (0.505 + 0.495 * math.cos(math.pi * min(progress, 1)))


class Stage(nn.Module):
    """A stage of training: `forward(batch)` is the loss, the rest is data and validation.

    Parameters with `requires_grad` are trained, averaged and saved; all others are left as they are.
    """

    name: str
    targets: int = 1  # frames that are predicted for each item of a batch
    helpers: tuple[str, ...] = ()  # prefixes of parameters that serve the training only

    def draw(self, rng: np.random.Generator, batch: int) -> dict:
        """A batch for one process, from random numbers that depend on seed, process and step only.

        Called in a thread of its own, while the steps before are still being computed.
        """
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Figures for the log, on data never trained on."""
        raise NotImplementedError

    def picture(self) -> Image.Image:
        """What the stage can do now."""
        raise NotImplementedError


def trained(stage: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in stage.named_parameters() if p.requires_grad}


def train(stage: Stage, schedule: Schedule, folder: Path, seed: int = 0, mixed_precision: str = "no") -> None:
    """Train `stage` until its schedule is over, resuming from `folder` if it was begun there.

    Writes to `folder`: `averaged.safetensors` (the result: exponential average of the trained parameters),
    `last.safetensors` (to resume: weights, average and the optimizer's moments), `log.csv` and `grid_*.jpg`.
    """
    accelerator = Accelerator(mixed_precision=mixed_precision)
    folder.mkdir(parents=True, exist_ok=True)
    stage.to(
        memory_format=torch.channels_last
    )  # what convolutions in bfloat16 are fastest in, on either device
    parameters = trained(stage)
    make_optimizer = Muon if schedule.muon else torch.optim.AdamW
    optimizer = make_optimizer(
        parameters.values(),
        schedule.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=schedule.weight_decay,
        fused=accelerator.device.type == "cpu" or None,  # on a GPU it keeps the step counts there
    )
    average = EMAModel(
        parameters.values(), decay=schedule.ema, use_ema_warmup=True, power=3 / 4, foreach=True
    )
    # The same, with what many devices need: the loop steps this one, states are kept in the other.
    model, accelerated = accelerator.prepare(stage, optimizer)
    average.to(accelerator.device)
    # After `prepare`, which would take AdamW's step counts to the GPU, where reading them holds up every
    # step.
    step, seconds_before = _resume(folder, parameters, optimizer, average, stage.helpers)

    started, step_before, losses = time.monotonic(), step, []
    next_validation = seconds_before + 30
    batches = _batches(stage, schedule.batch, seed, step, accelerator)
    bar = tqdm(total=100, unit="%", desc=stage.name, disable=not accelerator.is_main_process)
    while True:
        seconds = seconds_before + time.monotonic() - started
        # All processes must agree on when to stop, and clocks do not.
        progress = _agree(accelerator, max(step / schedule.steps, seconds / 60 / schedule.minutes))
        over = progress >= 1 or step >= schedule.stop
        for group in accelerated.param_groups:
            group["lr"] = schedule.rate(step, progress)
        if (over or seconds > next_validation) and accelerator.is_main_process:
            next_validation = seconds + 60 * schedule.validate_minutes
            rate = (
                (step - step_before)
                * schedule.batch
                * stage.targets
                * accelerator.num_processes
                / (time.monotonic() - started)
            )
            _validate(stage, parameters, average, folder, step, seconds, losses, rate)
            _save(folder, parameters, optimizer, average, step, seconds)
            losses = []
        if over:
            break
        noise_seed, drawn = next(batches)
        torch.manual_seed(noise_seed)
        batch = {k: v.to(accelerator.device, non_blocking=True) for k, v in drawn.items()}
        with accelerator.autocast(), short_attentions():
            loss = model(batch)
        accelerated.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters.values(), 1.0)
        accelerated.step()
        average.step(parameters.values())
        step += 1
        losses.append(loss.detach())
        if step % SHOWN_EVERY == 0:
            bar.update(round(100 * progress, 1) - bar.n)
            bar.set_postfix(step=step, loss=f"{torch.stack(losses[-50:]).mean().item():.4f}")
    bar.close()
    batches.close()
    accelerator.wait_for_everyone()
    average.copy_to(parameters.values())


SHOWN_EVERY = 5  # steps: a loss that is read makes the processor wait for the GPU
DRAWN_AHEAD = 6  # batches on a GPU, of which three are drawn at once


def _batches(
    stage: Stage, batch: int, seed: int, step: int, accelerator: Accelerator
) -> Iterator[tuple[int, dict]]:
    """From `step` on: the seed of a step's noise and its batch, drawn while the steps before are computed."""
    on_gpu = accelerator.device.type == "cuda"

    def draw(step: int) -> tuple[int, dict]:
        rng = np.random.default_rng([seed, accelerator.process_index, step])
        noise_seed = int(rng.integers(2**63))
        drawn = stage.draw(rng, batch)
        return noise_seed, {k: v.pin_memory() for k, v in drawn.items()} if on_gpu else drawn

    waiting = deque()
    with ThreadPoolExecutor(3 if on_gpu else 1) as threads:
        try:
            while True:
                while len(waiting) < (DRAWN_AHEAD if on_gpu else 1):
                    waiting.append(threads.submit(draw, step))
                    step += 1
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def load_averaged(stage: Stage, folder: Path) -> Stage:
    """The stage with the averaged parameters that `train` left in `folder`."""
    weights = load_file(folder / "averaged.safetensors")
    missing, _ = stage.load_state_dict(weights, strict=False)
    if absent := trained(stage).keys() & missing:
        raise ValueError(f"{folder} was trained with another configuration ({min(absent)} is missing).")
    return stage


def _agree(accelerator: Accelerator, value: float) -> float:
    if accelerator.num_processes == 1:
        return value
    return accelerator.reduce(torch.tensor(value, device=accelerator.device), "mean").item()


MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW keeps of each parameter; Muon the first alone


def _resume(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: EMAModel,
    helpers: tuple[str, ...] = (),
) -> tuple[int, float]:
    """Steps done and seconds passed, with weights, moments and average as they were.

    0, 0 for a fresh start: from the result that lies in the folder, if there is one, or else from nothing.
    Parameters whose names begin with one of `helpers` may be missing from such a result. Raises
    HelloMemeError for a training that was begun with other parameters.
    """
    path, result = folder / "last.safetensors", folder / "averaged.safetensors"
    if not path.exists():
        if result.exists():
            weights = load_file(result)
            with torch.no_grad():
                for i, (name, parameter) in enumerate(parameters.items()):
                    if name not in weights and name.startswith(helpers):
                        continue
                    parameter.copy_(weights[name])
                    average.shadow_params[i].copy_(weights[name])
        return 0, 0.0
    with safe_open(path, "pt") as file, torch.no_grad():
        if absent := {f"weights.{name}" for name in parameters} - set(file.keys()):
            raise HelloMemeError(
                f"{path} is of a training with other parameters ({min(absent)} is missing): delete it to go "
                "on from the result beside it."
            )
        progress = json.loads(file.metadata()["progress"])
        begun, asked = progress.get("optimizer", "AdamW"), type(optimizer).__name__
        if begun != asked:
            raise HelloMemeError(
                f"{path} is of a training with {begun}, and the configuration asks for {asked}: change that, "
                "or delete the file to go on from the result beside it."
            )
        for i, (name, parameter) in enumerate(parameters.items()):
            parameter.copy_(file.get_tensor(f"weights.{name}"))
            average.shadow_params[i].copy_(file.get_tensor(f"average.{name}"))
            # AdamW's fused kernel expects them to lie in memory as the parameter does
            moments = {
                moment: torch.empty_like(parameter).copy_(file.get_tensor(f"{moment}.{name}"))
                for moment in MOMENTS
            }
            optimizer.state[parameter] = moments | {"step": torch.tensor(float(progress["step"]))}
    average.optimization_step = progress["step"]
    return progress["step"], progress["seconds"]


def _save(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    average: EMAModel,
    step: int,
    seconds: float,
) -> None:
    averaged = dict(zip(parameters, average.shadow_params, strict=True))
    last = {f"weights.{name}": p for name, p in parameters.items()} | {
        f"average.{n}": p for n, p in averaged.items()
    }
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        last |= {f"{moment}.{name}": state.get(moment, torch.zeros_like(parameter)) for moment in MOMENTS}
    progress = {"step": step, "seconds": seconds, "optimizer": type(optimizer).__name__}
    metadata = {"progress": json.dumps(progress)}
    for file, tensors in (("averaged", averaged), ("last", last)):
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, folder / f"{file}.part", metadata
        )
        (folder / f"{file}.part").replace(folder / f"{file}.safetensors")


@torch.no_grad()
def _validate(
    stage: Stage,
    parameters: dict[str, nn.Parameter],
    average: EMAModel,
    folder: Path,
    step: int,
    seconds: float,
    losses: list[torch.Tensor],
    rate: float,
) -> None:
    average.store(parameters.values())
    average.copy_to(parameters.values())
    stage.eval()
    figures = stage.validate()
    stage.picture().save(folder / f"grid_{step:07d}.jpg", quality=90)
    stage.train()
    average.restore(parameters.values())
    loss = torch.stack(losses).mean().item() if losses else math.nan
    add_to_log(folder, step, seconds, loss, rate, figures)


def add_to_log(
    folder: Path, step: int, seconds: float, loss: float, rate: float, figures: Mapping[str, float]
) -> None:
    """A row of `log.csv`, printed as well. rate: targets a second."""
    row = dict(step=step, seconds=round(seconds), loss=round(loss, 5), targets_per_second=round(rate, 1))
    row |= {name: round(float(value), 4) for name, value in figures.items()}
    write_log(folder / "log.csv", [*read_log(folder / "log.csv"), row])
    print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


def read_log(path: Path) -> list[dict[str, str]]:
    """The rows of a log.csv, column -> value; none where there is no file.

    Values beyond the columns of the heading, which logs begun by older versions may have, are left out.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(file)]


def write_log(path: Path, rows: list[dict]) -> None:
    """All rows under one heading of every column that any has; a column that a row lacks stays empty
    there."""
    unfinished = path.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(column for row in rows for column in row)))
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(path)
