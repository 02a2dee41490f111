from __future__ import annotations

import pytest

from interp.run import ProcessCache


def size(value: str) -> int:
    return len(value)


def test_a_value_is_made_once_and_found_after() -> None:
    shelf, made = ProcessCache(10), []

    def make() -> str:
        made.append(1)
        return "four"

    assert [shelf.once("a", make, size) for _ in range(3)] == [
        ("four", False),
        ("four", True),
        ("four", True),
    ]
    assert len(made) == 1
    assert shelf.n_bytes == 4


def test_the_least_recently_used_goes_first() -> None:
    shelf = ProcessCache(10)
    for key in "ab":
        shelf.once(key, lambda: "four", size)
    assert shelf.once("a", lambda: "never", size) == ("four", True)  # now "b" was used longest ago
    shelf.once("c", lambda: "four", size)
    assert shelf.n_bytes == 8
    assert [shelf.once(key, lambda: "again", size)[1] for key in "ac"] == [True, True]
    assert shelf.once("b", lambda: "again", size) == ("again", False)
    assert shelf.n_bytes <= 10


def test_a_value_larger_than_the_budget_is_given_and_not_kept() -> None:
    shelf = ProcessCache(3)
    shelf.once("small", lambda: "two", size)
    assert shelf.once("large", lambda: "four", size) == ("four", False)
    assert shelf.once("large", lambda: "four", size) == ("four", False)
    assert shelf.once("small", lambda: "?", size) == ("two", True)


def test_what_fails_leaves_nothing() -> None:
    shelf = ProcessCache()
    with pytest.raises(ZeroDivisionError):
        shelf.once("a", lambda: 1 // 0, lambda _: 1)
    assert shelf.once("a", lambda: 2, lambda _: 1) == (2, False)


def test_clearing_keeps_the_model_and_another_model_clears() -> None:
    shelf, opened = ProcessCache(), []

    def load() -> int:
        opened.append(shelf.n_bytes)
        return len(opened)

    assert (shelf.model("one", load), shelf.model("one", load)) == (1, 1)
    assert shelf.clear() is False
    shelf.once("a", lambda: "four", size)
    assert shelf.clear() is True
    assert shelf.model("one", load) == 1
    shelf.once("a", lambda: "four", size)
    assert shelf.model("two", load) == 2
    assert opened == [0, 0]  # what belonged to the last model was gone before the next was loaded
    assert shelf.model("one", load) == 3
