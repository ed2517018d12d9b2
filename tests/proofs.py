"""The tests that a page names as proofs: whether each exists, is not skipped, and runs in `make test` or `make matrix`.

A skip is seen in a test, its decorators and its module's marks, not in a fixture: tests skip there without Docker or kubectl.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from forge_template import ROOT

PASTED = ROOT / "tests" / "generated" / "snippets" / "pasted"
# A reason not to run, in a decorator or in the body.
_SKIPS = {"skip", "skipif", "xfail", "importorskip"}
# Reasons that do not hold where CI runs: on Linux with systemd, with the tests of a project that has workers.
_ELSEWHERE = {
    "only Linux reports the peak memory",
    "systemd-analyze is not installed",
    "this project has no workers",
}
# Marks that keep no test from running in CI: `make matrix` runs what `make test` does not, `make test-all` what a project's does not.
_RUN_MARKS = {"matrix", "processes", "parametrize", "usefixtures", "filterwarnings", "xdist_group", "anyio", "timeout"}


class Proof(NamedTuple):
    """A test as a page writes it: `tests/x.py::test_y`, `project: tests/x.py::test_y` or `pasted: x.py::test_y`."""

    where: str
    file: str
    name: str


def proofs(cell: str) -> list[Proof]:
    """Return the tests that a cell of a table names."""
    return [Proof(*found) for found in re.findall(r"`(?:(project|pasted): )?([\w/.-]+\.py)::(\w+)`", cell)]


def problem(proof: Proof, project: Path) -> str | None:
    """Return why a test proves nothing, or None. `project` has the project whose tests `make matrix` runs."""
    shown = f"{proof.where}{': ' if proof.where else ''}{proof.file}::{proof.name}"
    folder = {"": ROOT, "project": project, "pasted": PASTED}[proof.where]
    path = folder / proof.file
    if not path.is_file():
        return f"{shown}: no such file"
    if not path.name.startswith("test_") or (not proof.where and not _is_collected(proof.file)):
        return f"{shown}: pytest does not collect this file"
    module = _module(path)
    function = next(
        (
            one
            for one in module.body
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name == proof.name
        ),
        None,
    )
    if function is None or not proof.name.startswith("test_"):
        return f"{shown}: no such test"
    if any(_skips(one) for one in [function, *_module_marks(module)]):
        return f"{shown}: is skipped or expected to fail"
    marks = {name for one in [*function.decorator_list, *_module_marks(module)] for name in _marks(one)}
    if marks := marks - _RUN_MARKS - _SKIPS:
        return f"{shown}: its mark {', '.join(sorted(marks))} keeps it out of CI"
    return None


def _is_collected(file: str) -> bool:
    return file.startswith("tests/") and "snippets" not in Path(file).parts


@functools.cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module_marks(module: ast.Module) -> Iterator[ast.AST]:
    for one in module.body:
        if isinstance(one, ast.Assign) and any(
            isinstance(to, ast.Name) and to.id == "pytestmark" for to in one.targets
        ):
            yield one.value


def _skips(tree: ast.AST) -> bool:
    """Return whether the code has a `pytest.skip(…)`, a `pytest.mark.skip` or the like that may apply in CI."""
    found = {node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in _SKIPS}
    excused = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(value, ast.Constant) and value.value in _ELSEWHERE
    }
    return any(_root(node) == "pytest" for node in found - excused if isinstance(node, ast.Attribute))


def _marks(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "mark":
            yield node.attr


def _root(node: ast.Attribute) -> str:
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        value = value.value
    return value.id if isinstance(value, ast.Name) else ""
