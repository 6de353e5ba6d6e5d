"""Every file and folder of the repository that the documentation names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = r"hellomeme|page|training|tests|docs|examples|assets|benchmarks|\.ci"
PATH = re.compile(rf"(?<![\w./-])(?:(?:{FOLDERS})/[\w./-]*|[\w-]+\.(?:py|md|cff|toml)\b)")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "docs/ARCHITECTURE.md", "docs/SPACES.md"])
def test_every_path_exists(name):
    named = {path.rstrip(".") for path in PATH.findall((ROOT / name).read_text(encoding="utf-8"))}
    assert named
    assert not {path for path in named if not (ROOT / path).exists()}
