"""The checker that annotations go through in tests: what it refuses, and when."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from jaxtyping import Float

from tests import typechecker

if TYPE_CHECKING:
    from nowhere import Unknown  # pyright: ignore[reportMissingImports]

checked = typechecker.jaxtyped(typechecker=typechecker.typechecked)


def chosen(wanted: bool) -> str:
    """A test whose shapes are checked, or one whose are not."""
    return next(one for one in map(str, range(99)) if (typechecker.crc32(one.encode()) % 8 == 0) == wanted)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typechecker, "_every_call", True)


@checked
def total(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    return float((a + b).sum())


def test_shapes_are_checked_in_first_calls_and_chosen_tests() -> None:
    fresh = checked(total.__wrapped__)  # pyright: ignore[reportFunctionMemberAccess]
    typechecker.check_shapes(chosen(False), every_test=False)
    for _ in range(typechecker.FIRST):
        with pytest.raises(Exception, match="Type-check error"):
            fresh(np.ones(1), np.ones(2))
    assert fresh(np.ones(1), np.ones(2)) == 4
    for nodeid, every_test in ((chosen(True), False), (chosen(False), True)):
        typechecker.check_shapes(nodeid, every_test)
        with pytest.raises(Exception, match="Type-check error"):
            fresh(np.ones(1), np.ones(2))


def test_other_types_are_checked_at_every_call() -> None:
    @checked
    def named(text: str, share: float, other: Unknown = None) -> str:
        return text * 2 if share else share  # pyright: ignore[reportReturnType]

    typechecker.check_shapes(chosen(False), every_test=False)
    for _ in range(typechecker.FIRST + 5):
        assert named("a", 1) == "aa"
    with pytest.raises(Exception, match="parameter text=1"):
        named(1, 0.5)
    with pytest.raises(Exception, match=r"return 0\.0 violates"):
        named("a", 0.0)


def test_fields_and_generators_are_checked() -> None:
    @checked
    @dataclass(frozen=True)
    class Named:
        name: str

    @checked
    def each(n: int) -> Iterator[int]:
        yield from range(n)

    assert list(each(2)) == [0, 1]
    with pytest.raises(Exception, match="n"):
        list(each("x"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(Exception, match="name=3"):
        Named(3)  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_checked_where_messages_must_speak() -> None:
    assert total(np.ones(1), np.ones(2)) == 4


def test_every_module_was_imported_after_the_hook() -> None:
    """What `tests/conftest.py` imports before it is never checked."""
    loaders = {
        name: type(module.__loader__).__module__
        for name, module in sys.modules.items()
        if name.startswith("interp.") and module.__loader__ is not None
    }
    assert len(loaders) > 5
    assert {name for name, loader in loaders.items() if not loader.startswith("jaxtyping")} == set()
