"""Control maps: made once for a window, and kept while there is room."""

import dataclasses

import numpy as np
import pytest
import torch
from test_released_clips import deviation, run  # noqa: F401

from hellomeme.control_maps import ClipMaps, ControlMaps
from hellomeme.inputs import BLACK
from hellomeme.sampling.clip import draw_clip
from hellomeme.sampling.plan import ClipPlan


@pytest.fixture
def frames_made(run, monkeypatch):
    """How many frames the control net is called with, each time."""
    net, heard = run.pipeline.hm_control2, []
    forward = net.forward

    def listening(condition, **expression):
        heard.append(condition.shape[2])
        return forward(condition, **expression)

    monkeypatch.setattr(net, "forward", listening)
    return heard


@pytest.mark.parametrize("reuse", [1, 2])
def test_they_are_made_once_for_a_window_and_the_negative_half_once(run, frames_made, monkeypatch, reuse):
    plan = ClipPlan(5, 3, 1.5, key_frames=True, window=3, reuse=reuse)

    def drawn(plan):
        frames_made.clear()
        generator = torch.Generator().manual_seed(0)
        return torch.cat(
            list(draw_clip(run.pipeline, run.reference, run.conditions, plan, run.text, generator)), 2
        )

    kept = drawn(plan)
    assert frames_made == [2 + 1, 3, 3, 3]  # both ends and the negative half, the key frames, two windows
    monkeypatch.setattr("hellomeme.sampling.clip.MOST_KEPT", 0)
    anew = drawn(plan)
    assert frames_made == [2 + 1] + [3] * (9 if reuse == 1 else 6)  # at each step that needs them
    assert torch.equal(kept, anew)
    halves = drawn(dataclasses.replace(plan, low_memory=True))
    assert deviation(halves, kept) < 1e-4


def test_a_negative_half_of_its_own_for_each_frame(run):
    shown = run.conditions(np.arange(3))
    each = dataclasses.replace(shown, negative_emotion=shown.emotion.flip(1))
    black = torch.full_like(shown.condition, BLACK)
    expected = run.pipeline.hm_control2(black, emo_embedding=shown.emotion.flip(1))
    maps = run.pipeline.control_maps(each, 1.5)
    for key, x in maps.batch(slice(0, 1)).items():
        torch.testing.assert_close(x, expected[key])
    one = run.pipeline.control_maps(shown, 1.5)
    assert {x.shape[2] for x in one.negative.values()} == {1}
    assert {x.shape[:3:2] for x in one.batch().values()} == {(2, 3)}
    assert run.pipeline.control_maps(shown, 1.0).negative is None


def test_windows_keep_theirs_while_there_is_room():
    maps, made = ControlMaps({"down_0": torch.zeros(1, 1, 2, 2, 2)}), []  # 32 bytes
    clip = ClipMaps(most=40)

    def of(name, keep=False):
        return clip.of(lambda negative: made.append(name) or maps, keep)

    first, second, third = of("first"), of("second"), of("third", keep=True)
    for _ in range(2):
        first(), second(), third()
    assert made == ["first", "second", "third", "second"]
    del first
    second(), second()
    assert made[4:] == ["second"]
