"""A pass that finds an image prefix in the cache is billed as if it had made it: once, and at its price."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.run import ProcessCache
from interp.study.prefix_cost import Bill, billed, stored_cost
from interp.tracing import Cost, Prefix

CPU = torch.device("cpu")


def prefix(lines: int = 2, lengths: tuple[int, ...] = (5, 3), layers: int = 1) -> Prefix:
    keys = tuple(torch.zeros(lines, 1, max(lengths), 4) for _ in range(layers))
    batch: Any = SimpleNamespace()
    return Prefix(batch, lengths, keys, keys, Cost(), None)


def used(shelf: ProcessCache, *keys: str, **made: Any) -> Cost:
    """What one call is billed that asks for the prefixes of these keys."""
    bill = Bill(shelf, CPU)
    for key in keys:
        bill.once(key, lambda: prefix(**made), lambda _: 1)
    return bill.found


@pytest.mark.usefixtures("unchecked")
def test_who_makes_a_prefix_is_not_billed_for_it() -> None:
    shelf = ProcessCache()
    assert used(shelf, "a", "a") == Cost()  # made, then found by the one who made it
    found = used(shelf, "a", "b", "a", "a")
    assert (found.forwards, found.backwards, found.tokens) == (1, 0, 2 * 5)  # "a" once; "b" is its own
    both = used(shelf, "a", "b")
    assert (both.forwards, both.tokens) == (2, 20)
    assert 0 < both.seconds < 60 < both.peak_bytes


@pytest.mark.usefixtures("unchecked")
def test_a_prefix_has_its_padding_and_an_empty_one_no_pass() -> None:
    shelf = ProcessCache()
    used(shelf, "wide", lines=3, lengths=(2, 7, 4), layers=2)
    used(shelf, "none", layers=0)
    assert used(shelf, "wide").tokens == 3 * 7  # whatever the number of layers
    assert used(shelf, "none").forwards == used(shelf, "none").tokens == 0


@pytest.mark.usefixtures("unchecked")
def test_a_value_is_the_one_that_was_made_first() -> None:
    bill = Bill(ProcessCache(), CPU)
    made = [object(), object()]
    found = [bill.once("key", lambda one=one: one, lambda _: 1) for one in made]
    assert [value for value, _ in found] == [made[0]] * 2
    assert [known for _, known in found] == [False, True]


def test_a_model_without_prefixes_is_left_as_it_is() -> None:
    model: Any = SimpleNamespace(device=CPU)
    found, bill = billed(model, ProcessCache())
    assert found is model
    assert bill.found == Cost()


def test_a_cost_is_stored_by_its_names() -> None:
    assert stored_cost(Cost(0.5, 10, 2, 1, 30)) == {
        "seconds": 0.5, "peak_bytes": 10.0, "forwards": 2.0, "backwards": 1.0, "tokens": 30.0
    }  # fmt: skip
    assert all(type(value) is float for value in stored_cost(Cost(1)).values())
