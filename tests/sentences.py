"""All sentences of errors and notes in the source, as templates with {} for what is filled in."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAISED = {"HelloMemeError", "NoFaceError", "NoMemoryError", "visitor_error", "Error", "Info", "Warning"}
RETURNED = {"refusal", "_obstacle"}  # functions that return a sentence for the visitor
# Not part of the page: the command line, evaluation, and what only Python code can do
ELSEWHERE = ("hellomeme/cli", "hellomeme/evaluation", "hellomeme/releases/saved.py", "hellomeme/io/atomic.py")


def sentences():
    """(template, "file:line") of each; where the source names a variable, of all texts it may hold."""
    for path in sorted([*ROOT.glob("hellomeme/**/*.py"), *ROOT.glob("page/*.py")]):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(ELSEWHERE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and called(call) in RAISED and call.args:
                for template in templates(call.args[0], tree):
                    yield template, f"{name}:{call.lineno}"
            if isinstance(call, ast.FunctionDef) and call.name in RETURNED:
                for part in ast.walk(call):
                    if isinstance(part, ast.Return):
                        for template in templates(part.value, tree):
                            yield template, f"{name}:{part.lineno}"


def called(call):
    return getattr(call.func, "id", getattr(call.func, "attr", None))


def templates(node, tree, seen=()):
    """The texts that an expression may be, as far as the file says; none for what comes from elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.IfExp):
        yield from templates(node.body, tree, seen)
        yield from templates(node.orelse, tree, seen)
    elif isinstance(node, ast.Name) and node.id not in seen:
        for found in ast.walk(tree):
            targets = found.targets if isinstance(found, ast.Assign) else ()
            if any(isinstance(target, ast.Name) and target.id == node.id for target in targets):
                yield from templates(found.value, tree, (*seen, node.id))
    elif isinstance(node, ast.Call):
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr == "format":
            yield from templates(function.value, tree, seen)
        for found in ast.walk(tree):
            if isinstance(found, ast.FunctionDef) and found.name == called(node) and found.name not in seen:
                for part in ast.walk(found):
                    if isinstance(part, ast.Return) and part.value is not None:
                        yield from templates(part.value, tree, (*seen, found.name))
