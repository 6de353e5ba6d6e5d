"""Settings that cannot be: each gets one sentence."""

import functools

import numpy as np
from refusals import refused

from hellomeme.settings import ClipSettings, Settings


class Lying:
    def __float__(self):
        raise OverflowError


NUMBER, FRAMES = (
    "Expression must be a number from 0 to 2, not {}.",
    "Frames must be a whole number from 0 to 100000, not {}.",
)
SETTINGS = {  # case -> (class, values, sentence)
    "NaN": (Settings, {"expression": float("nan")}, NUMBER.format("nan")),
    "infinite": (Settings, {"expression": float("-inf")}, NUMBER.format("-inf")),
    "above the range": (Settings, {"expression": 2.0001}, NUMBER.format("2.0001")),
    "a text": (Settings, {"expression": "1"}, NUMBER.format("'1'")),
    "a switch": (Settings, {"expression": True}, NUMBER.format("True")),
    "nothing": (Settings, {"expression": None}, NUMBER.format("empty")),
    "bytes": (Settings, {"expression": b"1"}, NUMBER.format("b'1'")),
    "a complex number": (Settings, {"expression": 1j}, NUMBER.format("1j")),
    "a dictionary": (Settings, {"expression": {"value": 1}}, NUMBER.format("{'value': 1}")),
    "an object that lies": (
        Settings,
        {"expression": Lying()},
        "Expression must be a number from 0 to 2, not <test_bad_settings.Lying...",
    ),
    "a number of 400 digits": (Settings, {"expression": 10**400}, NUMBER.format("1" + "0" * 59 + "...")),
    "a list of a million": (
        Settings,
        {"steps": list(range(10**6))},
        "Steps must be a whole number from 1 to 50, not [0, 1, 2, 3, ...",
    ),
    "an array": (
        Settings,
        {"steps": np.zeros((2, 2))},
        "Steps must be a whole number from 1 to 50, not array([[0., 0.], [0., 0.]]).",
    ),
    "half a step": (Settings, {"steps": 4.5}, "Steps must be a whole number from 1 to 50, not 4.5."),
    "a seed below zero": (
        Settings,
        {"seed": -1},
        "Seed must be a whole number from 0 to 2147483647, not -1.",
    ),
    "a prompt that is a number": (Settings, {"prompt": 5}, "Prompt must be text, not 5."),
    "a prompt of a million letters": (
        Settings,
        {"prompt": "a" * 10**6},
        "Prompt is 1000000 letters long: shorten it to 2000.",
    ),
    "half a letter": (
        Settings,
        {"negative_prompt": "a\ud800"},
        "Negative prompt holds a broken letter: type it again.",
    ),
    "no such choice": (
        ClipSettings,
        {"rate": "../30"},
        "Frames a second must be one of source, 8, 12, 15, 24, 25, 30, not '../30'.",
    ),
    "a switch that is a text": (
        ClipSettings,
        {"relative": "no"},
        "Relative motion must be on or off, not 'no'.",
    ),
    "too many frames": (ClipSettings, {"frames": 10**9}, FRAMES.format(10**9)),
    "frames below zero": (ClipSettings, {"frames": -1}, FRAMES.format(-1)),
}


def test_settings(tmp_path):
    for case, (kind, values, sentence) in SETTINGS.items():
        refused(tmp_path, case, functools.partial(kind, **values), sentence)
