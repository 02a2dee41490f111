"""One call of a layer's attention by hand: what its rows see, and which lines and samples its parts hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.tracing.attention.rows import Block, Call, only_visible

T, F = True, False


def numbered(n: int, length: int) -> Tensor:
    """(sample, 1, row, 1): 10 · sample + row."""
    return (10.0 * torch.arange(n)[:, None] + torch.arange(length))[:, None, :, None]


def call(n: int = 1, queries: int = 4, mask: Any = None, before: int = 0, **kwargs: Any) -> Call:
    """A call of a layer with one head; `before` keys of a prefix, whose one line serves every sample."""
    own = numbered(n, queries)
    prefix = (-numbered(1, before), -numbered(1, before)) if before else None
    return Call.of(nn.Identity(), (own, own, own), mask, kwargs, prefix)


def seen(found: Call) -> list[list[bool]]:
    """What each row of the first sample sees."""
    return found.dense_mask()[0, 0].tolist()


def test_a_call_has_the_models_scale_and_direction() -> None:
    module = nn.Identity()
    own = torch.zeros(1, 1, 2, 16)
    found = Call.of(module, (own, own, own), None, {})
    assert (found.scaling, found.softcap, found.causal) == (0.25, None, True)
    module.is_causal = False  # type: ignore[assignment]
    assert not Call.of(module, (own, own, own), None, {}).causal
    told = Call.of(module, (own, own, own), None, {"scaling": 0.0, "softcap": 3.0, "is_causal": True})
    assert (told.scaling, told.softcap, told.causal) == (0.0, 3.0, True)


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ({}, [[T, F, F], [T, T, F], [T, T, T]]),
        ({"sliding_window": 2}, [[T, F, F], [T, T, F], [F, T, T]]),
        ({"sliding_window": 1}, [[T, F, F], [F, T, F], [F, F, T]]),
        ({"sliding_window": 3}, [[T, F, F], [T, T, F], [T, T, T]]),
        ({"is_causal": False}, [[T, T, T]] * 3),
        ({"sliding_window": 2, "is_causal": False}, [[T, T, F], [T, T, T], [F, T, T]]),
        ({"mask": torch.tensor([[0, 1, 1]]), "sliding_window": 2}, [[F, F, F], [F, T, F], [F, T, T]]),
        ({"mask": torch.ones(1, 1, 3, 3).bool(), "sliding_window": 2}, [[T, T, T]] * 3),
    ],
)
def test_rows_see_a_window_unless_their_mask_says_all(given: Any, rows: list[list[bool]]) -> None:
    assert seen(call(queries=3, **given)) == rows


def test_a_window_reaches_back_into_a_prefix() -> None:
    assert seen(call(queries=2, before=3, sliding_window=3)) == [[F, T, T, T, F], [F, F, T, T, T]]
    assert seen(call(queries=2, before=3)) == [[T, T, T, T, F], [T] * 5]
    assert call(queries=2, before=3, sliding_window=5).mask is None
    assert call(queries=2, before=3, sliding_window=4).mask is not None


def test_lines_of_a_prefix_are_given_to_samples_in_their_order() -> None:
    own = numbered(3, 2)
    held = numbered(2, 4)
    found = Call.of(nn.Identity(), (own, own, own), None, {}, (held, -held)).on_lines(torch.tensor([1, 0, 1]))
    assert found.keys[0][:, 0, 0, 0].tolist() == [10, 0, 10]
    assert found.values[0][:, 0, 1, 0].tolist() == [-11, -1, -11]
    assert found.keys[1] is found.values[1] is own
    assert found.n_keys == 6


def test_some_samples_keep_their_own_mask() -> None:
    every = torch.ones(3, 1, 4, 4, dtype=torch.bool)
    every[2] = False
    part = call(3, mask=every).of_samples(slice(1, 3))
    assert part.queries[:, 0, 0, 0].tolist() == part.keys[0][:, 0, 0, 0].tolist() == [10, 20]
    assert part.mask is not None
    assert part.mask[:, 0, 0, 0].tolist() == [True, False]
    shared = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    assert call(3, mask=shared).of_samples(slice(2, 3)).mask is shared
    assert call(3).of_samples(slice(2, 3)).mask is None


def test_what_a_row_cannot_see_gets_nothing() -> None:
    rows = torch.full((1, 2, 1, 3), 0.5)
    assert only_visible(rows, None) is rows
    closed = torch.tensor([[[[True, False, True]]]])
    least = torch.finfo(torch.float32).min
    for given in (closed, torch.zeros(1, 1, 1, 3).masked_fill(~closed, least)):
        assert only_visible(rows, given)[0, :, 0].tolist() == [[0.5, 0, 0.5]] * 2
    bias = torch.tensor([[[[-3.0, 0.0, 1.0]]]])  # a bias, which hides nothing
    assert torch.equal(only_visible(rows, bias), rows)


def test_only_rows_that_change_are_put_back() -> None:
    """Rows 3 and 1, of which the second is as before; the first sees key 2 alone."""
    found = call()
    cells = torch.tensor([0, 0]), torch.tensor([0, 1])
    block = Block(torch.tensor([[3, 1]]), cells, found.all_heads)
    plain = torch.full((1, 4, 1, 1), -7.0)
    wanted = torch.tensor([[[[0.0, 0, 1, 0], [0.5, 0.5, 0, 0]]]])
    before = wanted.clone()
    before[0, 0, 0] = 0.25
    assert found.splice(plain.clone(), block, wanted)[0, :, 0, 0].tolist() == [-7, 0.5, -7, 2]
    assert found.splice(plain.clone(), block, wanted, before)[0, :, 0, 0].tolist() == [-7, -7, -7, 2]
