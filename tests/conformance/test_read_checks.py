"""How differences of rows and logits are judged, what rows may see, and how long the rest will take: by hand."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance import CheckResult, Subject
from interp.conformance.read_checks import (
    Agreement,
    _apart,
    _declared,
    _differentiable,
    _errors,
    attends,
    relative,
)
from interp.conformance.suite import seconds_left
from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm

EXACT: dict[str, Any] = {"exact": True, "tolerance": 1e-5, "eps": 1e-7}
HALF: dict[str, Any] = {"exact": False, "tolerance": 0.1, "eps": 0.01}


def agreement(**subject: Any) -> Any:
    """Of a model under test that has these numbers and no model."""
    kind: Any = type("Numbers", (Subject,), subject)
    return Agreement(kind.__new__(kind))


def rows(*errors: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two keys, one a layer, whose errors are these: half of it is moved from one key to the other."""
    expected = np.full((len(errors), 2), 0.5)
    moved = np.array(errors)[:, None] * [0.5, -0.5]
    return expected + moved, expected


def tokens(positions: list[int], length: int) -> TokenMap:
    n = len(positions)
    return TokenMap(
        image=np.array(positions),
        footprints=np.tile([0.0, 0.0, 1.0, 1.0], (n, 1)),
        grid=None,
        views=np.full(n, ""),
        image_index=np.zeros(n, int),
        sizes=((1, 1),),
        length=length,
    )


@pytest.mark.parametrize(
    ("attends", "pairs"),
    [
        ("causal", []),
        ("image_blocks", [(1, 2), (4, 5)]),
        ("sliding_image_blocks", [(1, 2), (4, 5)]),
        ("images", [(1, 2), (1, 4), (1, 5), (2, 4), (2, 5), (4, 5)]),
        ("prefix", [(i, j) for i in range(7) for j in range(i + 1, 7)]),
    ],
)
def test_a_declaration_says_which_later_tokens_a_row_sees(attends: str, pairs: list[tuple[int, int]]) -> None:
    seen = _declared(tokens([1, 2, 4, 5], 7), attends)
    assert list(map(tuple, np.argwhere(seen).tolist())) == pairs


@pytest.mark.parametrize(
    ("errors", "rounding", "limit", "passed"),
    [
        ((0.0, 9e-6), 0.0, 1e-5, True),
        ((5e-5, 0.0), 1e-6, 1e-5, False),  # four times eager's own error is less than the limit
        ((0.0, 5e-5), 2e-5, 8e-5, True),
        ((0.0, 9e-5), 2e-5, 8e-5, False),
        ((9e-4, 0.0), 1.0, 1e-3, True),
        ((2e-3, 0.0), 1.0, 1e-5, False),  # no rounding excuses this
    ],
)
def test_exact_rows_may_be_off_by_what_rounding_takes(
    errors: tuple[float, ...], rounding: float, limit: float, passed: bool
) -> None:
    found = agreement(**EXACT, rounding=rounding)
    found.rows(*rows(*errors))
    measured = found.measured("so many")
    assert (measured.value, measured.limit) == pytest.approx((max(errors), limit))
    assert measured.passed is passed


@pytest.mark.parametrize(
    ("first", "others", "logits", "passed"),
    [
        (0.012, (0.012,), 0.079, True),
        (0.013, (0.012,), 0.0, False),  # 1.25 eps for the first layer's rows
        (0.0, (0.079, 0.079, 0.5), 0.0, True),
        (0.0, (0.081, 0.081, 0.081), 0.0, False),  # 8 eps for the median of all
        (0.0, (0.0,), 0.081, False),
    ],
)
def test_half_precision_is_judged_in_three_ways(
    first: float, others: tuple[float, ...], logits: float, passed: bool
) -> None:
    found = agreement(**HALF)
    found.rows(*rows(first))
    found.rows(*rows(*others), first=False)
    found.logits(np.array([1.0, 2.0 - 2 * logits]), np.array([1.0, 2.0]))
    assert found.measured("").passed is passed


def test_what_is_no_number_or_was_seen_wrong_fails() -> None:
    for spoil in (
        lambda one: one.rows(*rows(np.nan)),
        lambda one: one.logits(np.array([np.nan]), np.ones(1)),
    ):
        found = agreement(**EXACT, rounding=1.0)
        spoil(found)
        assert found.measured("").value == np.inf
    found = agreement(**EXACT, rounding=0.0)
    found.wrong += ["a step too few", "another token"]
    assert not found.measured("rows").passed
    assert found.measured("rows").detail == "a step too few; another token"


def test_a_row_of_no_mass_counts_by_what_was_found() -> None:
    """A row that should be empty and holds 0.3 is off by 0.3, one of mass 0.5 by 0.1 of it."""
    found = agreement(**EXACT, rounding=0.0)
    found.rows(np.array([[0.1, 0.2], [0.25, 0.3]]), np.array([[0.0, 0.0], [0.25, 0.25]]))
    assert np.concatenate(found._rows) == pytest.approx([0.3, 0.1])


def test_differences_are_shares_of_what_was_expected() -> None:
    assert relative(np.array([1.0, -3.0]), np.array([2.0, -4.0])) == 0.25
    assert _apart(torch.tensor([1.0, -3.0]), torch.tensor([2.0, -4.0])) == 0.25
    assert np.isnan(_apart(torch.ones(2), torch.zeros(2)))


def test_the_time_left_is_by_the_shares_of_the_checks() -> None:
    """`locality` takes 60 parts, `image tokens` 2, `rows` 3."""
    chosen = ["image tokens", "locality", "rows"]
    done = [
        CheckResult(name, True, 0.0, "", 1.0, False, "", n)
        for name, n in zip(chosen, (1.0, 30.0, 2.0), strict=True)
    ]
    assert [seconds_left(done[:n], chosen) for n in (1, 2, 3)] == [31.5, 1.5, 0]


def test_errors_of_gradients_are_of_all_samples_together() -> None:
    """By layer: 3/5 of one sample's (3, 4) with (0, 4), beside a sample of zeros; and 1/2."""
    true = [[torch.tensor([3.0, 4.0]), torch.tensor([2.0])], [torch.zeros(2), torch.tensor([0.0])]]
    found = [[torch.tensor([0.0, 4.0]), torch.tensor([3.0])], [torch.zeros(2), torch.tensor([0.0])]]
    assert _errors(found, true) == pytest.approx([0.6, 0.5])


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_weights_are_frozen_again(frozen: bool) -> None:
    words = torch.nn.Embedding(2, 2)
    words.weight.requires_grad_(not frozen)
    model: Any = torch.nn.Module()
    model.get_input_embeddings = lambda: words
    for error in (None, ZeroDivisionError):
        with pytest.raises(ZeroDivisionError) if error else nullcontext(), _differentiable(model):
            assert words.weight.requires_grad
            if error:
                raise error
        assert words.weight.requires_grad is not frozen


@pytest.mark.parametrize(("row", "worst"), [(0.4, 0.2), (0.5, 0.1)])
def test_rounding_is_the_worst_of_all_rows_and_logits(row: float, worst: float) -> None:
    """Logits are 0.2 of 2 and 0.4 of 8 off; a row of the first sample is 0.1 off in each of two keys."""
    eager = [([1.0, 2.2], [0.5, 0.5]), ([1.0, -7.6], [0.5, 0.5])]
    true = [([1.0, 2.0], [row, 1 - row]), ([1.0, -8.0], [0.5, 0.5])]

    def reader(of: list[Any]) -> Any:
        found = [(torch.tensor([a]), [torch.tensor([[b]]), torch.tensor([[[0.0, 1.0]]])]) for a, b in of]
        return type("Reads", (), {"reading": lambda self, sample, keep: found[sample]})()

    own = {"samples": [0, 0], "plain": lambda self, i: i, "eager": reader(eager), "finer": reader(true)}
    kind: Any = type("Numbers", (Subject,), own)
    assert kind.__new__(kind).rounding == pytest.approx(worst)


@pytest.mark.parametrize(
    ("seen", "wrong"),
    [([(0, 1, 2)], 0), ([(1, 1, 2)], 0), ([], 1), ([(0, 1, 2), (1, 0, 3)], 1), ([(0, 2, 3)], 2)],
)
def test_a_later_token_that_any_head_sees_is_seen(seen: list[tuple[int, int, int]], wrong: int) -> None:
    """Positions 1 and 2 of four are an image's; entries are (head, row, key) of the second of two layers."""
    weights = torch.ones(2, 1, 2, 4, 4).tril()
    for head, row, key in seen:
        weights[1, 0, head, row, key] = 0.1
    model: Any = type("Given", (Mllm,), {"layer_kinds": ("attention", "attention")})
    own: dict[str, Any] = {"samples": [0], "tokens": [tokens([1, 2], 4)], "attends": "image_blocks"}
    own["eager"] = type(
        "Reads", (), {"reading": lambda self, sample, keep: (0, [keep(one) for one in weights])}
    )()
    own |= {"plain": lambda self, i: i, "mllm": model.__new__(model)}
    kind: Any = type("Numbers", (Subject,), own)
    found = attends(kind.__new__(kind))
    assert (found.value, found.passed) == (wrong, not wrong)
    assert f"; {len(seen)} pairs of a row" in found.detail
