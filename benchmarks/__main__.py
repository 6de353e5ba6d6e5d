"""The whole table in one run: `python -m benchmarks [--only NAME ...] [--markdown FILE] [--rounds N]`.

The scripts of `scripts.py` run one after the other, and what they print is read. A row says so where its
script failed, or where it was not measured. What is compared takes turns, and the medians of the ratios
count; frames a second and seconds want a machine that is otherwise idle. It takes about half an hour on two
cores.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))  # as for the scripts

from results import Row, markdown, short  # noqa: E402
from scripts import ROUNDS, SCRIPTS, Script  # noqa: E402

# Around the table in README.md
BEGIN, END = "<!-- by python -m benchmarks --readme -->\n", "<!-- end of the table -->\n"


def main() -> int:
    """Prints the table and returns 1 if a script failed."""
    names = dict.fromkeys(script.name for script in SCRIPTS)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=5, help="of what is measured by turns")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument(
        "--readme", action="store_true", help="write the rows with an aim into README.md, too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every value there, too")
    options = parser.parse_args()

    from common import machine

    name, found, failed = machine(), [], False
    print(f"{name}; load average {os.getloadavg()[0]:.1f}", flush=True)
    for script in SCRIPTS:
        if script.name not in (options.only or names):
            continue
        rows, problem = measured(script, options.rounds)
        failed = failed or problem is not None
        for row in rows:
            if not found or row.group != found[-1].group:
                print(f"\n{row.group}")
            what, *cells = row.cells
            print(f"  {what:<70} {'  '.join(filter(None, cells))}", flush=True)
            found.append(row)
    if options.markdown:
        options.markdown.write_text(markdown(found, name), encoding="utf-8")
    if options.readme:
        file = FOLDER.parent / "README.md"
        before, rest = file.read_text(encoding="utf-8").split(BEGIN)
        file.write_text(f"{before}{BEGIN}{short(found, name)}{END}{rest.split(END)[1]}", encoding="utf-8")
    if options.json:
        facts = {"machine": name, "rows": [row.facts for row in found]}
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return int(failed)


def measured(script: Script, rounds: int) -> tuple[list[Row], str | None]:
    """The rows of a script, and why it failed. One that judges itself and prints FAIL has not failed."""
    needs_gpu = "cuda" in script.arguments
    if needs_gpu and not has_gpu():
        return [reading.row("", None) for reading in script.readings], None
    arguments = [str(rounds) if one == ROUNDS else one for one in script.arguments]
    command = [sys.executable, FOLDER / f"{script.name}.py", *arguments]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    problem = None
    if done.returncode and "FAIL" not in done.stdout:
        told = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        problem = f"{script.name}.py failed: {told[-1]}"
    return [reading.row(f"\n{done.stdout}", problem) for reading in script.readings], problem


def has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
