"""How the package is laid out: who imports whom, and how long files and functions may be."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LONGEST_FILE, LONGEST_FUNCTION = 350, 60  # lines
FILES = sorted((ROOT / "hellomeme").rglob("*.py"))
ABOVE = ("gradio", "spaces", "page", "training")  # what stands on the package, and is not to be asked by it


def name_of(path):
    """The dotted name of a module of this repository."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path):
    """The dotted names that a file imports anywhere in it: in functions and for type checkers, too."""
    package = name_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            names |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return names


def graph(package):
    """Module -> the modules of the same package that it imports, without the rooms' own empty files."""
    files = {name_of(path): path for path in sorted((ROOT / package).rglob("*.py"))}
    rooms = {name for name, path in files.items() if path.name == "__init__.py"}
    return {name: (imported(path) & set(files)) - rooms - {name} for name, path in files.items()}


@pytest.mark.parametrize("package", ["hellomeme", "page"])
def test_imports_go_one_way(package):
    """Modules that import nothing, or that nothing imports, are taken away until only circles are left."""
    left = graph(package)
    while ends := set(left) - {name for name in set().union(*left.values()) if left.get(name)}:
        left = {name: others - ends for name, others in left.items() if name not in ends}
    assert not left, f"These modules import each other in a circle: {left}"


def test_the_package_knows_nothing_of_what_stands_on_it():
    found = {(name_of(path), name) for path in FILES for name in imported(path)}
    assert not {(module, name) for module, name in found if name.split(".")[0] in ABOVE}


def test_rooms_open_empty():
    for path in FILES:
        if path.name == "__init__.py" and path.parent.name != "hellomeme":
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 5, path


def test_no_file_is_long():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


def test_no_function_is_long():
    lengths = {
        f"{name_of(path)}.{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION}
