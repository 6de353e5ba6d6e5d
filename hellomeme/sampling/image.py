"""From noise to a picture: samplers as free functions of one signature.

A sampler takes `(denoise, scheduler, noise, steps, generator, on_step)` and returns clean latents of the
shape of `noise`. It knows the networks only as `denoise(latents, timestep)`, its caller only as `on_step`.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable

import torch
from diffusers import SchedulerMixin
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[int, Tensor, Tensor], Tensor | None]


class Stopped(Exception):
    """Raised by a callback between two steps to cancel a run; never raised by the samplers themselves."""


def with_timesteps(
    scheduler: SchedulerMixin, steps: int, device: torch.device | str | None = None
) -> SchedulerMixin:
    """A copy of a scheduler, set to `steps`. Schedulers count steps, so each run needs its own."""
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps, device=device)
    return scheduler


def guided(denoise: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance over a `denoise` that expects the batch [negative, positive].

    The prediction is negative + scale * (positive - negative). At a scale of 1 or less there is no guidance:
    `denoise` is then taken to expect the positive half only and is returned as it is.
    """
    if scale <= 1:
        return denoise

    def with_guidance(latents: Tensor, timestep: Tensor) -> Tensor:
        negative, positive = denoise(torch.cat([latents, latents]), timestep).chunk(2)
        return negative + scale * (positive - negative)

    return with_guidance


def last_guided(scheduler: SchedulerMixin, steps: int, end: float) -> float | None:
    """The timestep of the last of `steps` steps with guidance, where it ends after a share `end` of them, 0
    to 1: infinite for none of them, None for all."""
    if end == 1:
        return None
    timesteps = with_timesteps(scheduler, steps).timesteps.tolist()
    count = round(end * len(timesteps))
    if count == len(timesteps):
        return None
    return timesteps[count - 1] if count else math.inf


def sample(
    denoise: Denoise,
    scheduler: SchedulerMixin,
    noise: Tensor,
    steps: int,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """Run any diffusers scheduler, from standard normal noise to clean latents.

    Args:
        denoise: takes scaled latents of the shape of `noise` and a timestep, returns the model's prediction.
        scheduler: a diffusers scheduler; it is left untouched.
        noise: (B, C, T, h, w), standard normal.
        steps: number of steps (a scheduler of higher order may make more calls).
        generator: where a stochastic scheduler takes its noise from.
        on_step: called as `on_step(i, timestep, latents)` after each step; may return other latents to
            continue with.
        start: clean latents to which the noise is added, instead of starting from noise alone.

    Returns:
        Latents (B, C, T, h, w).
    """
    scheduler = with_timesteps(scheduler, steps, noise.device)
    latents = initial_latents(scheduler, noise, start)
    for i, timestep in enumerate(scheduler.timesteps):
        prediction = denoise(scheduler.scale_model_input(latents, timestep), timestep)
        latents = take_step(scheduler, prediction, timestep, latents, generator)
        if on_step is not None:
            replaced = on_step(i, timestep, latents)
            latents = latents if replaced is None else replaced
    return latents


def initial_latents(scheduler: SchedulerMixin, noise: Tensor, start: Tensor | None = None) -> Tensor:
    """The latents before the first step: noise alone, or clean latents `start` with noise added.

    scheduler: from `with_timesteps`.
    """
    if start is None:
        return noise * scheduler.init_noise_sigma
    return scheduler.add_noise(start, noise, scheduler.timesteps[:1])


def take_step(
    scheduler: SchedulerMixin,
    prediction: Tensor,
    timestep: Tensor,
    latents: Tensor,
    generator: torch.Generator | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """The latents after one step. A stochastic scheduler adds `noise`, where it can be given some (see
    `takes_noise`), or takes some from `generator`."""
    if noise is not None and takes_noise(scheduler):
        seeded = {"variance_noise": noise}
    else:
        seeded = {"generator": generator} if _has_argument(scheduler, "generator") else {}
    return scheduler.step(prediction, timestep, latents, **seeded).prev_sample


def takes_noise(scheduler: SchedulerMixin) -> bool:
    """Whether a step can be given the noise that it adds."""
    return _has_argument(scheduler, "variance_noise")


def draws_noise(scheduler: SchedulerMixin, steps: int) -> bool:
    """Whether a run of so many steps takes numbers from its generator."""
    generator = torch.Generator()
    before = generator.get_state()
    sample(
        lambda latents, timestep: torch.zeros_like(latents),
        scheduler,
        torch.zeros(1, 1, 1, 4, 4),
        steps,
        generator,
    )
    return not torch.equal(generator.get_state(), before)


def _has_argument(scheduler: SchedulerMixin, name: str) -> bool:
    return name in inspect.signature(scheduler.step).parameters
