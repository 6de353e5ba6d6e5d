"""The sampler against the released schedule: tables and trajectories of a made-up model."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from safetensors import safe_open

from hellomeme.releases.load import find
from hellomeme.releases.parts import scheduler_of
from hellomeme.releases.table import EULER
from hellomeme.sampling.image import Stopped, guided, sample

FIXTURES = Path(__file__).parent / "fixtures" / "parity"
KINDS = {"euler": EulerDiscreteScheduler, "dpm": DPMSolverMultistepScheduler}
ROWS = {"euler": ("v1", "v2"), "dpm": ("v3", "v4", "v5", "v5b", "v5c")}


@pytest.fixture(scope="module")
def released():
    tensors = {}
    for kind in KINDS:
        with safe_open(FIXTURES / f"s_schedulers_{kind}.safetensors", "pt") as file:
            assert json.loads(file.metadata()["json"])["kwargs"] == EULER
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    return tensors


def of_row(kind):
    return scheduler_of(find(ROWS[kind][0]).image_sampler)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_name_the_released_scheduler(kind):
    assert len({str(find(name).image_sampler) for name in ROWS[kind]}) == 1
    assert type(of_row(kind)) is KINDS[kind]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [10, 25, 50])
def test_tables_are_the_released_ones(released, kind, steps):
    scheduler = of_row(kind)
    scheduler.set_timesteps(steps)
    assert torch.equal(scheduler.timesteps, released[f"{kind}{steps}.timesteps"])
    assert torch.allclose(scheduler.sigmas, released[f"{kind}{steps}.sigmas"], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [10, 25])
def test_trajectories_are_the_released_ones(released, kind, steps):
    trajectory = released[f"traj.{kind}{steps}"]
    states = []

    def denoise(latents, timestep):  # the made-up model of the record
        return 0.3 * latents + 0.5 * released["traj.fix"]

    sample(
        denoise,
        of_row(kind),
        released["traj.x0"],
        steps,
        torch.Generator().manual_seed(77),  # of the noise that each step of "dpm" adds
        on_step=lambda i, timestep, latents: states.append(latents),
    )
    worst = max(
        (ours - theirs).abs().max() / trajectory.abs().max()
        for ours, theirs in zip(states, trajectory[1:], strict=True)
    )
    assert len(states) == steps and worst < 1e-5


def test_guidance_weighs_negative_and_positive():
    def denoise(latents, timestep):
        return torch.cat([torch.full_like(latents[:1], 1.0), torch.full_like(latents[:1], 3.0)])

    latents = torch.zeros(1, 2)
    assert torch.equal(guided(denoise, 2.5)(latents, 0), torch.full((1, 2), 6.0))  # 1 + 2.5 * (3 - 1)
    assert guided(denoise, 1.0) is denoise


def test_a_callback_can_stop_the_run():
    def stop(i, timestep, latents):
        if i == 1:
            raise Stopped

    calls = []
    with pytest.raises(Stopped):
        sample(
            lambda x, t: calls.append(t) or x,
            EulerDiscreteScheduler(**EULER),
            torch.zeros(1, 2),
            5,
            on_step=stop,
        )
    assert len(calls) == 2
