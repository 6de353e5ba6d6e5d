"""The bundled demo model: it lies here, it loads through the loader of the released weights, and a photograph
drives it."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from safetensors import safe_open

from hellomeme.cli import main
from hellomeme.releases.load import available, find
from hellomeme.releases.table import DEMO

REFERENCE = Path(__file__).parent.parent / "examples" / "references" / "iris.png"


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory):
    path = tmp_path_factory.mktemp("photographs") / "astronaut.png"
    Image.fromarray(skimage.data.astronaut()).save(path)
    return path


def test_it_is_small_half_precision_and_never_pickled():
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert len(weights) >= 6
    for path in weights:
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
        assert kinds <= {"F16", "I64"}, path
    assert "made" in (DEMO / "README.md").read_text()


def test_it_can_run_here():
    name, title, reason = available()[0]
    assert name == "demo" and reason is None


def test_a_photograph_drives_a_bundled_toon(astronaut, tmp_path):
    for name, options in {"driven": [], "again": [], "still": ["--expression", "0", "--head", "0"]}.items():
        output = tmp_path / f"{name}.png"
        assert main.main(["image", str(REFERENCE), str(astronaut), str(output), *options]) == 0
    driven, again, still = (
        np.asarray(Image.open(tmp_path / f"{name}.png"), float) for name in ("driven", "again", "still")
    )
    side = find("demo").size
    assert driven.shape == (side, side, 3)
    assert np.array_equal(driven, again)  # the same seed and input give the same picture
    assert np.abs(driven - still).mean() > 1  # and the driver makes a difference
    reference = np.asarray(Image.open(REFERENCE).resize((side, side)), float)
    top = slice(side // 8)  # where the background is
    assert np.abs(driven[top] - reference[top]).mean() < 40
