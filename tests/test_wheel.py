"""The package as pip installs it: it draws with the demo model, and requires what it imports."""

import ast
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import hellomeme
from hellomeme.releases.load import find

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run(*command, folder, **environment):
    """Standard output of a command, run in `folder`, which must succeed."""
    environment = os.environ | environment
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that pip has installed the package into, from a wheel that it built from the source
    distribution. Nothing is downloaded: the other packages are those of the present environment."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), folder=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir")
    target = ("--target", str(folder / "site"))
    run(sys.executable, "-m", "pip", "install", *offline, *target, str(archive), folder=folder)
    return folder / "site"


@pytest.fixture(scope="module")
def distribution(installed):
    (found,) = importlib.metadata.distributions(path=[str(installed)])
    return found


@pytest.fixture(scope="module")
def ranges(distribution):
    """Name -> the range of versions that the package, or one of its extras, requires."""
    requirements = map(Requirement, distribution.requires)
    return {canonicalize_name(each.name): each.specifier for each in requirements}


def test_the_command_draws_with_the_demo_model_from_an_empty_folder(installed, tmp_path):
    reference, driver = EXAMPLES / "references" / "mila.png", EXAMPLES / "drivers" / "laugh.png"
    arguments = ("image", str(reference), str(driver), "out.png", "--device", "cpu")
    command = installed / "bin" / "hellomeme"
    assert run(str(command), *arguments, folder=tmp_path, PYTHONPATH=str(installed)) == "out.png\n"
    usage = run(str(command), "--help", folder=tmp_path, PYTHONPATH=str(installed))
    assert usage.startswith("usage: hellomeme ")
    with Image.open(tmp_path / "out.png") as picture:
        side = find("demo").size
        assert picture.size == (side, side) and len(picture.getcolors(side * side)) > 1000


def test_nothing_else_is_installed(installed, distribution):
    assert distribution.version == hellomeme.__version__
    names = {path.name for path in installed.iterdir()}
    assert names == {"bin", "hellomeme", f"hellomeme-{hellomeme.__version__}.dist-info"}


def test_every_package_that_is_imported_is_required(ranges):
    imported = set()
    for path in (ROOT / "hellomeme").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    providers = importlib.metadata.packages_distributions()
    needed = {
        canonicalize_name(provider)
        for name in imported - sys.stdlib_module_names
        for provider in providers[name]
    }
    assert needed <= set(ranges)


def test_the_pinned_versions_are_in_the_ranges(ranges):
    lines = (line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    for pin in map(Requirement, filter(None, lines)):
        (version,) = (specifier.version for specifier in pin.specifier)
        name = canonicalize_name(pin.name)
        assert name not in ranges or version in ranges[name], f"{pin} is not in the range of pyproject.toml"


def test_both_packages_that_install_opencv_are_of_one_release(ranges):
    (specifier,) = ranges["opencv-python"]
    assert specifier.operator == "==" and ranges["opencv-contrib-python"] == ranges["opencv-python"]
