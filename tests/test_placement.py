"""Which networks are on the GPU, with stand-ins for its memory and for moving: here all are on the CPU."""

import dataclasses

import numpy as np
import pytest
import torch
from test_clip import moving_folder, ready  # noqa: F401  (a fixture and what it needs)
from test_memory import FACE, GUIDED, nod  # noqa: F401  (a fixture)

from hellomeme import memory_choice, placement
from hellomeme.memory_choice import networks_of, place, portions
from hellomeme.models.unet import HMDenoisingNet
from hellomeme.placement import size_of
from hellomeme.sampling.plan import ClipPlan
from hellomeme.settings import ClipSettings


class Gpu:
    """free: bytes, with all networks that are there. there: their ids. most: bytes of networks there at
    once."""

    def __init__(self):
        self.free, self.there, self.sizes, self.most, self.moves = 1 << 40, set(), {}, 0, 0

    def move(self, network, device):
        self.sizes[id(network)] = size_of(network)
        before = set(self.there)
        (self.there.discard if device == "cpu" else self.there.add)(id(network))
        self.moves += before != self.there
        self.most = max(self.most, sum(self.sizes[key] for key in self.there))

    def left(self, device):
        return self.free - sum(self.sizes[key] for key in self.there)


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()
    monkeypatch.setattr(memory_choice, "OFFLOADING", ("cpu",))
    monkeypatch.setattr(memory_choice, "MARGIN", 0)
    monkeypatch.setattr(placement, "move", gpu.move)
    monkeypatch.setattr(memory_choice, "move", gpu.move)
    monkeypatch.setattr(memory_choice, "free_memory", gpu.left)
    return gpu


@pytest.fixture(scope="module")
def moving(moving_folder):  # noqa: F811
    return ready(moving_folder)


@pytest.fixture
def offloaded(moving, gpu):
    """As if everything had just been loaded into the memory of the computer, with this room on the GPU."""
    pipeline = moving.pipeline

    def load(choice, room):
        parts = networks_of(pipeline)
        gpu.there, gpu.sizes = set(), {id(part): size_of(part) for part in parts}
        gpu.free = room + memory_choice.picture_bytes(pipeline)
        place(pipeline, torch.device("cpu"), choice)
        if pipeline.placement is not None:
            pipeline.placement.clear()
        return parts

    yield load
    pipeline.to("cpu")
    pipeline.memory = "auto"


def assert_there_when_at_work(gpu, parts, stack):
    """Whenever a layer of one of these networks runs, its network is on the GPU. Returns names of those that
    ran."""
    ran = set()

    def check(part):
        def hook(*_):
            assert id(part) in gpu.there, type(part).__name__
            ran.add(type(part).__name__)

        return hook

    for part in parts:
        for layer in part.modules():
            stack.append(layer.register_forward_pre_hook(check(part)))
    return ran


def test_networks_take_turns_and_the_pictures_are_the_same(moving, offloaded, gpu, nod):  # noqa: F811
    clip = dataclasses.replace(GUIDED, seed=3)
    reference = moving.reference
    expected = moving.image(FACE, GUIDED)
    frames = list(moving.frames(reference, nod, clip, ClipSettings(), lambda *_: None))
    reference.prepared.clear()
    pipeline = moving.pipeline
    at_work = (pipeline.unet, pipeline.hm_reference, *pipeline.controls, pipeline.motion_adapter)
    parts = offloaded("auto", sum(map(size_of, at_work[:2])))
    assert moving.pipeline.placement is not None and not gpu.there
    hooks = []
    try:
        ran = assert_there_when_at_work(gpu, parts, hooks)
        assert np.array_equal(moving.image(FACE, GUIDED).picture, expected.picture)
        gpu.free = sum(map(size_of, at_work)) + 24 * memory_choice.frame_bytes(moving.pipeline)
        again = list(moving.frames(reference, nod, clip, ClipSettings(), lambda *_: None))
    finally:
        for hook in hooks:
            hook.remove()
    assert np.array_equal(again, frames)
    assert ran == {type(part).__name__ for part in parts}
    assert 0 < gpu.most < sum(map(size_of, parts))


def test_what_fits_is_there_at_once_and_the_choice_can_be_made(moving, offloaded, gpu):
    pipeline = moving.pipeline
    parts = networks_of(pipeline)
    everything = sum(map(size_of, [*parts, moving.encoders]))
    for choice, room, is_offloaded in [
        ("auto", everything, False),
        ("auto", everything - 1, True),
        ("all", 0, False),
        ("offload", everything, True),
        ("least", everything, True),
    ]:
        pipeline.to("cpu")
        offloaded(choice, room)
        assert (pipeline.placement is not None) == is_offloaded, choice
        assert pipeline.low_memory == (choice == "least")
    assert pipeline.placement.room == 0


def test_networks_for_clips_may_be_too_much(moving, offloaded, gpu):
    pipeline, added = moving.pipeline, moving.pipeline.motion_adapter
    offloaded("all", 0)
    gpu.there = {id(part) for part in networks_of(pipeline) if part is not added}
    pipeline.memory = "auto"
    gpu.free += sum(gpu.sizes[key] for key in gpu.there) + size_of(added)
    memory_choice.place_added(pipeline, [added])
    assert pipeline.placement is None and id(added) in gpu.there
    gpu.there.discard(id(added))
    gpu.free -= 1
    memory_choice.place_added(pipeline, [added])
    assert pipeline.placement is not None and id(added) not in gpu.there


def test_networks_that_find_no_memory_leave_none_behind(monkeypatch):
    there = set()

    def move(network, device):
        if device == "cpu":
            there.discard(network)
        elif network is full:
            raise torch.OutOfMemoryError
        else:
            there.add(network)

    monkeypatch.setattr(placement, "move", move)
    one, other, full = (torch.nn.Linear(2, 2) for _ in range(3))
    placed = placement.Placement(torch.device("cuda"), 1000)
    placed.bring(one)
    with pytest.raises(torch.OutOfMemoryError):
        placed.bring(one, other, full)
    assert there == {one} == set(placed.there.values())


def test_frames_are_not_decoded_beside_a_gpu(moving, nod, monkeypatch):  # noqa: F811
    monkeypatch.setattr("hellomeme.drawing.usable_cores", lambda: 64)
    monkeypatch.setattr("hellomeme.drawing.map_beside", None)
    monkeypatch.setattr(placement, "move", lambda *_: None)
    gpu = placement.Placement(torch.device("cuda"), 0)  # its networks are on the CPU now
    monkeypatch.setattr(moving.pipeline, "placement", gpu)
    monkeypatch.setattr(moving, "prepared", lambda *_: moving.reference)
    monkeypatch.setattr("hellomeme.drawing.portions", lambda *_: 0)
    monkeypatch.setattr("hellomeme.drawing.draw_clip", lambda *_, **__: iter([]))
    assert list(moving.frames(moving.reference, nod, GUIDED, ClipSettings(), lambda *_: None)) == []


def test_least_draws_in_small_portions(moving, offloaded, monkeypatch):
    offloaded("least", 0)
    seen, predict = [], HMDenoisingNet.forward

    def predicting(self, sample, *more, **named):
        seen.append(sample.shape[0] * sample.shape[2])
        return predict(self, sample, *more, **named)

    monkeypatch.setattr(HMDenoisingNet, "forward", predicting)
    moving.image(FACE, GUIDED)
    assert set(seen) == {1}
    assert portions(moving.pipeline, ClipPlan(20, 2, 1.5)) == 2


def test_portions_of_a_clip_follow_the_free_memory(moving, gpu):
    pipeline, plan = moving.pipeline, ClipPlan(20, 2, 1.5)
    frame = memory_choice.frame_bytes(pipeline)
    for free, portion, at_once in [(24, 0, 24), (23, 1, 12), (12, 1, 12), (11, 2, 6), (0, 2, 6)]:
        gpu.free = free * frame
        assert portions(pipeline, plan) == portion and plan.in_portions(portion).at_once == at_once
    gpu.free = 8 * frame
    assert portions(pipeline, dataclasses.replace(plan, together=False)) == 0


def test_free_memory_is_what_the_container_leaves(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_choice, "CGROUP", tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 5000}))
    cpu = torch.device("cpu")
    assert memory_choice.free_memory(cpu) == 5000
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 200\n")
    for limit, free in (("max", 5000), ("1000", 300), ("9000", 5000)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert memory_choice.free_memory(cpu) == free
