"""Attention over shared keys and each variant's own against attention written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from interp.tracing.attention import shared_keys
from interp.tracing.attention.rows import Call
from interp.tracing.attention.shared_keys import HiddenCells, SharedKeys


def never(*_: Any, **__: Any) -> Any:
    """The layer's own attention, which does not know the shared keys."""
    raise AssertionError("the layer's own attention ran")


@pytest.mark.parametrize("zero", [False, True])
def test_a_soft_cap_applies_to_shared_and_own_keys(zero: bool) -> None:
    torch.manual_seed(0)
    n, rows, shared, cap, scaling = 3, 2, 4, 0.7, 0.5
    queries = 2 * torch.randn(n, 4, rows, 8)
    prefix = torch.randn(1, 2, shared, 8), torch.randn(1, 2, shared, 8)
    own = torch.randn(n, 2, rows, 8), torch.randn(n, 2, rows, 8)
    hidden = torch.rand(n, shared + rows) < 0.4
    hidden[:, :1], hidden[:, 1:2] = False, True
    cells = HiddenCells(queries=torch.ones(n, rows, dtype=torch.bool), keys=hidden, zero=zero)
    kwargs = {"scaling": scaling, "softcap": cap, "is_causal": True}
    call = Call.of(nn.Identity(), (queries, *own), None, kwargs, prefix)

    found, _ = SharedKeys(prefix, cells)(never, call, kwargs)

    keys, values = (
        torch.cat([before.expand(n, -1, -1, -1), mine], dim=2).repeat_interleave(2, dim=1)
        for before, mine in zip(prefix, own, strict=True)
    )
    scores = cap * torch.tanh(queries @ keys.transpose(-1, -2) * scaling / cap)
    later = torch.ones(rows, shared + rows, dtype=torch.bool).triu(shared + 1)
    closed = later if zero else later | hidden[:, None, None]
    weights = scores.masked_fill(closed, -torch.inf).softmax(dim=-1)
    weights = weights.masked_fill(hidden[:, None, None], 0.0) if zero else weights
    torch.testing.assert_close(found, (weights @ values).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_hidden_cells_of_variants_and_one_that_hides_nothing() -> None:
    """Variant 0 hides key 1 from row 0 in both heads, variant 1 keys 0 and 2 from row 1 in head 1."""
    queries, keys = torch.tensor([[True, False], [False, True]]), torch.tensor([[0, 1, 0], [1, 0, 1]]).bool()
    heads = torch.tensor([[True, True], [False, True]])
    found = HiddenCells(queries, keys, heads, zero=True)
    assert found.cells(slice(0, 1)).nonzero().tolist() == [[0, 0, 0, 1], [0, 1, 0, 1]]
    assert found.cells(slice(1, 2)).nonzero().tolist() == [[0, 1, 1, 0], [0, 1, 1, 2]]
    more = found.with_none()
    assert more.cells(slice(0, 3)).nonzero().tolist() == found.cells(slice(0, 2)).nonzero().tolist()
    assert more.cells(slice(0, 3)).shape == (3, 2, 2, 3)
    every = HiddenCells(queries, keys)
    assert every.cells(slice(0, 2)).shape == every.with_none().cells(slice(0, 2)).shape == (2, 1, 2, 3)
    assert [one.zero for one in (found, more, every.with_none(), found.on(torch.device("cpu")))] == [
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("size", [1, 2**20], ids=["one variant at a time", "all at once"])
@pytest.mark.parametrize("shared", [0, 4])
def test_variants_are_computed_a_few_at_a_time(
    zero: bool, size: int, shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five variants of three rows, four heads on two key-value heads; each hides its own keys in its own heads."""
    for name in ("TOGETHER", "CHUNK_BYTES"):
        monkeypatch.setattr(shared_keys, name, size)
    torch.manual_seed(0)
    n, rows = 5, 3
    queries, rest = torch.randn(n, 4, rows, 8), [torch.randn(n, 2, rows, 8) for _ in range(2)]
    prefix = (torch.randn(1, 2, shared, 8), torch.randn(1, 2, shared, 8)) if shared else None
    n_keys = shared + rows
    cells = HiddenCells(
        queries=torch.rand(n, rows) < 0.7,
        keys=torch.rand(n, n_keys) < 0.4,
        heads=torch.rand(n, 4) < 0.6,
        zero=zero,
    )
    cells.keys[:, 0] = False  # every row keeps a key
    call = Call.of(nn.Identity(), (queries, *rest), None, {"scaling": 0.5, "is_causal": True}, prefix)
    found, _ = SharedKeys(prefix, cells)(never, call, {})

    before = (torch.zeros(1, 2, 0, 8),) * 2 if prefix is None else prefix
    keys, values = (
        torch.cat([one.expand(n, -1, -1, -1), mine], dim=2).repeat_interleave(2, dim=1)
        for one, mine in zip(before, rest, strict=True)
    )
    later = torch.ones(rows, n_keys, dtype=torch.bool).triu(shared + 1)
    hidden = cells.queries[:, None, :, None] & cells.keys[:, None, None] & cells.heads[:, :, None, None]
    scores = (queries @ keys.transpose(-1, -2) * 0.5).masked_fill(later, -torch.inf)
    scores = scores if zero else scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(dim=-1).masked_fill(hidden, 0.0)
    torch.testing.assert_close(found, (weights @ values).transpose(1, 2), atol=1e-5, rtol=1e-5)
