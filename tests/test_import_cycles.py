"""No two files import each other in a circle; imports for types and imports inside functions count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import grimp
import pytest

ROOM = "interp.tracing"


def circles(imports: Mapping[str, Set[str]]) -> list[list[str]]:
    """The groups of modules that reach each other, by Tarjan's algorithm, each sorted."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> Iterator[str]:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for other in sorted(imports[module]):
            if other not in number:
                yield other
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], number[other])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            found.extend([sorted(group)] if len(group) > 1 else [])

    for start in sorted(imports):
        if start in number:
            continue
        path = [visit(start)]
        while path:
            following = next(path[-1], None)
            if following is None:
                path.pop()
            else:
                path.append(visit(following))
    return found


@pytest.fixture(scope="module")
def imports() -> dict[str, Set[str]]:
    """Module of the room → the modules of the room that it imports."""
    graph = grimp.build_graph("interp", exclude_type_checking_imports=False, cache_dir=None)
    modules = {m for m in graph.modules if m == ROOM or m.startswith(f"{ROOM}.")}
    return {module: graph.find_modules_directly_imported_by(module) & modules for module in modules}


def test_no_circle_of_imports(imports: dict[str, Set[str]]) -> None:
    assert len(imports) > 20
    assert circles(imports) == []


def test_a_circle_would_be_found() -> None:
    chain = {"a": {"b"}, "b": {"c"}, "c": set[str](), "d": {"a", "c"}}
    assert circles(chain) == []
    assert circles({**chain, "c": {"a"}}) == [["a", "b", "c"]]
    assert circles({**chain, "c": {"d"}, "e": {"f"}, "f": {"e"}}) == [["a", "b", "c", "d"], ["e", "f"]]
