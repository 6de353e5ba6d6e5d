"""The table of the benchmarks: what counts as met, how it is written, and a script that fails."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def table():
    """`benchmarks/__main__.py` as a module."""
    path = sys.path.copy()
    spec = importlib.util.spec_from_file_location("benchmarks_table", BENCHMARKS / "__main__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path[:] = path


def test_figures_are_judged_by_their_median(table):
    row = table.Row("CPU", "step", (0.5, 0.4, 0.44), 0.45, unit="×")
    assert row.cells == ("step", "0.44 ×", "0.40 to 0.50", "≤ 0.45 ×", "met")
    assert table.Row("CPU", "step", (0.5,), 0.45).cells == ("step", "0.50", "", "≤ 0.45", "missed")
    assert table.Row("Clips", "rate", (23.04, 250), 20, False, "a second").verdict == "met"
    assert table.Row("GPU", "step", aim=1.1, note="no GPU").cells[3:] == ("≤ 1.10", "not measured: no GPU")
    assert table.Row("Live", "rate", (0.0123,), note="slow").cells == ("rate", "0.012", "", "", "slow")


def test_both_tables(table):
    rows = [table.Row("A", "one", (1,), 2), table.Row("B", "two", (3,)), table.Row("A", "three", (12.34,), 2)]
    assert table.short(rows, "a machine").splitlines()[4:] == [
        "| A: one | 1.00 | ≤ 2.00 | met |",
        "| A: three | 12.3 | ≤ 2.00 | missed |",
    ]
    lines = table.markdown(rows, "a machine").splitlines()
    assert lines[0] == "Measured on a machine."
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| **A**", "| one", "| three", "| **B**", "| two"]


def test_what_scripts_print_is_read(table, monkeypatch, tmp_path):
    programs = {
        "good": "print('machine\\nspeed 2.50 (2.00 to 3.00)\\nFAIL  peak 3 GB of 4 GB'); raise SystemExit(1)",
        "bad": "import sys; print('speed 2'); sys.exit('it differs')",
    }
    for name, program in programs.items():
        (tmp_path / f"{name}.py").write_text(program)
    monkeypatch.setattr(table, "FOLDER", tmp_path)
    scripts = sys.modules["scripts"]
    readings = (
        scripts.Reading("A", "speed", rf"speed {scripts.RANGE}", 2, False),
        scripts.Reading("B", "peak", r"peak (?P<part>\d) GB of (?P<whole>\d)", 0.5),
        scripts.Reading("B", "GPU", r"GPU (\d)", 1, absent="no GPU"),
    )
    rows, problem = table.measured(scripts.Script("good", readings), 3)
    assert problem is None and [row.values for row in rows] == [[2.5, 2.0, 3.0], [0.75], ()]
    assert [row.verdict for row in rows] == ["met", "missed", "not measured"] and rows[2].note == "no GPU"
    rows, problem = table.measured(scripts.Script("bad", readings), 3)
    assert problem == "bad.py failed: it differs" and {row.note for row in rows} == {problem}


def test_lines_of_the_cost_of_a_step_are_told_apart(table):
    """By the part of the number type, and by the whole name."""
    lines = "our step", "our step, deep features reused", "25 steps, deep features at every 3"
    output = "".join(
        f"\n\n{kind}, against it\n"
        + "\n".join(
            f"{line:<44}{9:8.3f} s {value + k:8.3f} ({1:.3f} to {2:.3f})" for k, line in enumerate(lines)
        )
        for kind, value in (("float32", 10), ("bfloat16", 20))
    )
    scripts = sys.modules["scripts"]
    found = {row.what: row.values for row in (one.row(output, None) for one in scripts.SCRIPTS[0].readings)}
    assert found["step in bfloat16, of diffusers' UNet"] == [20, 1, 2]
    assert found["25 steps in float32, at every 3rd, of diffusers' UNet"] == [12, 1, 2]
    assert found["step in bfloat16, of one in float32"] == ()


def test_the_readme_has_a_place_for_the_table(table):
    text = (BENCHMARKS.parent / "README.md").read_text(encoding="utf-8")
    assert text.count(table.BEGIN) == text.count(table.END) == 1 and text.index(table.BEGIN) < text.index(
        table.END
    )
    assert all((BENCHMARKS / f"{script.name}.py").is_file() for script in table.SCRIPTS)
