"""The tests themselves: no test file imports another; a thinned matrix still holds every value."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.covering import covering_set, parameters_of

TESTS = Path(__file__).parent


@cache
def nodes() -> dict[Path, list[ast.AST]]:
    """What each file of the tests is made of, read once for all that look at it."""
    return {file: list(ast.walk(ast.parse(file.read_text()))) for file in sorted(TESTS.rglob("*.py"))}


def imported(file: Path) -> set[str]:
    """The modules a file imports, and the names it takes from them as if they were modules."""
    found = set()
    for node in nodes()[file]:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


def test_no_test_file_imports_another() -> None:
    wrong = {
        str(file.relative_to(TESTS)): sorted(modules)
        for file in nodes()
        if (
            modules := {
                name
                for name in imported(file)
                if name.startswith("tests.") and name.split(".")[-1].startswith(("test_", "conftest"))
            }
        )
    }
    assert not wrong


def test_a_covering_set_holds_every_value() -> None:
    full = [
        {"family": f, "edit": e, "executor": x}
        for f in range(4)
        for e in range(7)
        for x in range(2)
        if f != e
    ]
    kept = [full[place] for place in covering_set(full)]
    assert len(kept) == 7
    for name in ("family", "edit", "executor"):
        assert {one[name] for one in kept} == {one[name] for one in full}


def test_a_covering_set_of_one_parameter_is_all_of_it() -> None:
    assert covering_set([{"family": f} for f in range(3)]) == {0, 1, 2}
    assert covering_set([]) == set()


@pytest.mark.parametrize(("mode", "steps"), [("zero", "all"), ("zero", [1])])
@pytest.mark.parametrize("executor", ["tap"])
def test_names_listed_together_are_one_parameter(
    request: pytest.FixtureRequest, executor: str, mode: str, steps: object
) -> None:
    assert isinstance(request.node, pytest.Function)
    known = steps if isinstance(steps, str) else id(steps)
    assert parameters_of(request.node) == {"executor": ("tap",), "mode,steps": (mode, known)}


def test_test_names_have_fewer_than_60_characters() -> None:
    names = {
        node.name
        for file, found in nodes().items()
        for node in found
        if file.name.startswith("test_")
        and isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
    }
    assert [name for name in sorted(names) if len(name) >= 60] == []
