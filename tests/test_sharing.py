"""Clips that several processes draw together: to the bit what one process draws, and errors reach all.

Threads stand in for the processes here; real ones are in `test_processes.py`.
"""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from test_clip_sampling import SD, predict
from test_key_frames import KINDS, draw as draw_key_frames

from hellomeme.errors import HelloMemeError
from hellomeme.sampling import sharing
from hellomeme.sampling.image import draws_noise
from hellomeme.sampling.plan import ClipPlan
from hellomeme.sampling.sharing import ALONE, Team
from hellomeme.sampling.windows import sample_frames, sample_windows


class Threads:
    """The two functions of `torch.distributed` for processes that are threads here."""

    def __init__(self, count):
        self.barrier, self.sent, self.own = threading.Barrier(count), {}, threading.local()

    def all_gather(self, results, value):
        self.sent[self.own.rank] = value.clone()
        self.barrier.wait(20)
        for rank, result in enumerate(results):
            result.copy_(self.sent[rank])
        self.barrier.wait(20)

    def broadcast(self, value, rank):
        if rank == self.own.rank:
            self.sent["one"] = value.clone()
        self.barrier.wait(20)
        value.copy_(self.sent["one"])
        self.barrier.wait(20)


@pytest.fixture
def together(monkeypatch):
    """together(count, work): what `work(share)` returns in each of so many processes."""

    def together(count, work):
        threads = Threads(count)
        monkeypatch.setattr(sharing, "distributed", threads)

        def run(rank):
            threads.own.rank = rank
            with torch.no_grad():
                return work(Team(rank, count))

        with ThreadPoolExecutor(count) as pool:
            return [done.result() for done in [pool.submit(run, rank) for rank in range(count)]]

    return together


def joined(parts):
    return torch.cat(list(parts), 2)


def counted(numbers, asked):
    """`predict`, and which frames were asked of it."""
    asked.append(tuple(numbers))
    return predict(numbers)


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("count, overlap", [(2, 4), (3, 4), (3, 8), (2, 0)])
def test_windows_are_shared(together, scheduler, count, overlap):
    plan = ClipPlan(61, 5, 1.0, overlap=overlap)
    values = torch.randn(2, plan.padded, 1, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()

    def work(share):
        asked, steps = [], []
        starts = iter(list(zip(*values, strict=True)))
        arguments = scheduler(**SD), starts, plan.windows, plan.steps, torch.Generator()
        drawn = sample_windows(lambda numbers: counted(numbers, asked), *arguments, steps.append, share=share)
        return joined(drawn), asked, sum(steps)

    expected, all_asked, predicted = work(ALONE)
    results = together(count, work)
    assert all(torch.equal(drawn, expected) and steps == predicted for drawn, _, steps in results)
    # Each process predicts its own windows, all of them once at each step, and none predicts many more
    assert sorted(itertools.chain(*(asked for _, asked, _ in results))) == sorted(all_asked)
    counts = [len(asked) for _, asked, _ in results]
    assert max(counts) - min(counts) <= plan.steps


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, EulerAncestralDiscreteScheduler, LCMScheduler])
def test_frames_alone_are_shared(together, scheduler, chained):
    noise = torch.randn(1, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double()

    def work(share):
        asked, generator = [], torch.Generator().manual_seed(1)
        drawn = joined(
            sample_frames(
                lambda numbers: counted(numbers, asked),
                scheduler(**SD),
                noise,
                15,
                3,
                chained,
                generator,
                share=share,
            )
        )
        return drawn, len(asked), generator.get_state()

    expected, calls, state = work(ALONE)
    results = together(2, work)
    assert all(torch.equal(drawn, expected) and torch.equal(at, state) for drawn, _, at in results)
    # One frame needs the one before it where they are chained
    assert [done for _, done, _ in results] == ([calls, 0] if chained else [calls / 2, calls / 2])


@pytest.mark.parametrize("kind", KINDS)
def test_key_frames_are_shared(together, kind):
    expected = joined(draw_key_frames(kind, 150))
    for drawn in together(3, lambda share: joined(draw_key_frames(kind, 150, share=share))):
        assert torch.equal(drawn, expected)


def test_which_schedulers_draw_noise():
    kinds = EulerDiscreteScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, LCMScheduler
    assert [draws_noise(kind(**SD), 3) for kind in kinds] == [False, False, True, True]


@pytest.mark.parametrize("dtype", sharing.DTYPES)
def test_tensors_of_every_type_and_nothing_are_exchanged(together, dtype):
    own = [
        torch.tensor([[0, 1, 3]]).to(dtype),
        None,
        torch.zeros(0, 4, dtype=dtype),
        torch.ones((), dtype=dtype),
    ]
    for results in together(4, lambda share: share.exchange(own[share.rank])):
        for got, expected in zip(results, own, strict=True):
            assert got is expected is None or (got.dtype == dtype and torch.equal(got, expected))


def test_an_error_of_one_process_is_that_of_all(together):
    def work(share):
        try:
            return [one.item() for one in share.map(task, range(9))]
        except HelloMemeError as error:
            if share.rank == 1:  # whose task it was
                share.fail(str(error))
            return str(error)

    def task(number):
        if number == 4:
            raise HelloMemeError("The fifth task – failed.")
        return torch.tensor(number)

    assert together(3, work) == ["The fifth task – failed."] * 3


def test_memory_that_runs_out_in_one_process_has_all_try_again(together):
    def work(share):
        def task(number):
            if number == 3 and not lost:
                raise torch.OutOfMemoryError("own")
            return torch.tensor(number)

        lost = []
        while True:
            try:
                return [one.item() for one in share.map(task, range(5))], lost
            except torch.OutOfMemoryError as error:
                lost.append(str(error))

    other = "The memory of another process ran out."
    assert together(2, work) == [(list(range(5)), [other]), (list(range(5)), ["own"])]
