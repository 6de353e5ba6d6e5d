"""Which scripts make the table of `python -m benchmarks`, and which of their figures are its rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from results import Row

ROUNDS = "ROUNDS"  # in arguments: how often is measured what takes turns
FIGURE = r"([\d.]+)"
RANGE = rf"{FIGURE} \({FIGURE} to {FIGURE}\)"  # median, lowest and highest
DECIBELS = rf"{FIGURE} dB \({FIGURE} to {FIGURE}\)"
NO_GPU, NOT_PRINTED = "no GPU", "the script did not print it"


@dataclass(frozen=True)
class Reading:
    """A row of the table, from what a script prints.

    group, what, aim, at_most, unit: as in `Row`. pattern: a regular expression that is searched for; its
    groups are the values, or, named `part` and `whole`, a ratio. absent: why it may not be there.
    """

    group: str
    what: str
    pattern: str
    aim: float | None = None
    at_most: bool = True
    unit: str = "×"
    absent: str = NOT_PRINTED

    def row(self, output: str, problem: str | None) -> Row:
        """The row. problem: why the script ended early, or None."""
        about = self.group, self.what
        found = re.search(self.pattern, output)
        aim = {"aim": self.aim, "at_most": self.at_most, "unit": self.unit}
        if found is None:
            return Row(*about, **aim, note=problem or self.absent)
        named = {name: float(value) for name, value in found.groupdict().items()}
        values = [named["part"] / named["whole"]] if named else [*map(float, found.groups())]
        return Row(*about, values, **aim)


@dataclass(frozen=True)
class Script:
    """A script of this folder, its arguments, and the rows that it fills."""

    name: str
    readings: Sequence[Reading]
    arguments: Sequence[str] = ()


def step(kind: str, line: str) -> str:
    """The pattern for a line of step_cost.py in the part of a number type."""
    return rf"\n{kind}, against(?:.|\n(?!\n))*?\n{re.escape(line)} +{FIGURE.replace('(', '(?:')} s +{RANGE}"


EXACT, REUSED, GUIDED = "CPU, exact", "Deep features reused", "Guidance on some steps"
CLIPS, MEMORY, GPU, START, MANY = "Clips", "Memory", "GPU", "Start", "Many processes"
PLAIN = "of diffusers' UNet"
OF_ONE_BY_ONE = "of one frame after the other"
THIRD = "25 steps, deep features at every 3"

SCRIPTS = (
    Script(
        "step_cost",
        (
            Reading(
                EXACT,
                "step in bfloat16, of one in float32",
                step("bfloat16", "our step, against our step in float32"),
                0.45,
            ),
            Reading(EXACT, f"step in float32, {PLAIN}", step("float32", "our step")),
            Reading(EXACT, f"step in bfloat16, {PLAIN}", step("bfloat16", "our step")),
            Reading(REUSED, f"25 steps in float32, at every 3rd, {PLAIN}", step("float32", THIRD), 0.55),
            Reading(REUSED, f"25 steps in bfloat16, at every 3rd, {PLAIN}", step("bfloat16", THIRD), 0.55),
        ),
        ("--rounds", ROUNDS, "--dtypes", "float32", "bfloat16", "--device", "cpu"),
    ),
    Script(
        "step_cost",
        (
            Reading(GPU, f"step in float16, {PLAIN}", step("float16", "our step"), 1.1, absent=NO_GPU),
            Reading(
                GPU, f"25 steps in float16, at every 3rd, {PLAIN}", step("float16", THIRD), 1.0, absent=NO_GPU
            ),
        ),
        ("--rounds", "20", "--dtypes", "float16", "--device", "cuda"),
    ),
    Script(
        "likeness",
        (
            Reading(EXACT, "the demo in bfloat16", rf"demo: bfloat16 +{DECIBELS}", 40, False, "dB"),
            Reading(EXACT, "recorded run of v1 in bfloat16", rf"v1: bfloat16 +{FIGURE} dB", unit="dB"),
            Reading(REUSED, "the demo, at every 2nd", rf"demo: .*2nd step +{DECIBELS}", 35, False, "dB"),
            Reading(REUSED, "the demo, at every 3rd", rf"demo: .*3rd step +{DECIBELS}", 35, False, "dB"),
            Reading(
                REUSED, "recorded run of v1, at every 3rd", rf"v1: .*3rd step +{FIGURE} dB", 35, False, "dB"
            ),
            Reading(GUIDED, "the demo, on half", rf"demo: guidance.* +{DECIBELS}", 35, False, "dB"),
            Reading(GUIDED, "recorded run of v1, on half", rf"v1: guidance.* +{FIGURE} dB", 35, False, "dB"),
        ),
    ),
    Script(
        "exact_vs_fast",
        (
            Reading(
                CLIPS,
                "fast clip of the demo against the exact one",
                rf"fast against exact: {FIGURE} dB",
                unit="dB",
            ),
        ),
    ),
    Script(
        "clip_rate",
        tuple(
            Reading(
                CLIPS,
                f"{about}, {OF_ONE_BY_ONE}",
                rf"\n{re.escape(line)} +[\d.]+ frames a second, +{FIGURE} times \({FIGURE} to {FIGURE}\)",
                aim,
                False,
            )
            for about, line, aim in (
                ("frames a second", "a clip", 3),
                ("deep features at every 3rd", "deep features at every 3rd step", 5),
                ("at every 5th, guidance for 40 %", "every 5th step, guidance for 40 %", 5),
            )
        ),
        ("--rounds", ROUNDS),
    ),
    Script(
        "analysis_rate",
        (
            Reading(
                CLIPS, "analysis at 720p", rf"x 720: {FIGURE} frames", 60, False, unit="frames a core-second"
            ),
        ),
        ("--rounds", ROUNDS),
    ),
    Script(
        "start",
        tuple(
            Reading(START, f"{what}, CPU time", rf"{what}: {FIGURE} s of CPU", aim, unit="s")
            for what, aim in (
                ("import hellomeme", 0.05),
                ("the page answers", 3),
                ("the first picture after that", 1.5),
                ("a picture", 0.12),
            )
        ),
        ("--rounds", ROUNDS),
    ),
    Script("live_rate", (Reading("Live", "frames of a camera", rf"{FIGURE} a second", unit="a second"),)),
    Script(
        "processes",
        tuple(
            Reading(
                MANY,
                f"speed of two processes, {way} clip, {what}",
                rf"{way} +2 processes: .*{column}, speed {RANGE}",
            )
            for way in ("exact", "fast")
            for what, column in (("by the clock", "by the clock"), ("by CPU time", "CPU of the busiest"))
        ),
        ("--rounds", ROUNDS),
    ),
)
