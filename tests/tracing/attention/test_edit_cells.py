"""Cells and patches of edits, worked by hand."""

from __future__ import annotations

import torch

from interp.tracing import Knockout, PatchRows, ScaleWeights, Site
from interp.tracing.attention.edit_cells import At, Cells, Change, Live, Patch


def test_a_stage_follows_each_samples_own_tokens() -> None:
    """The third sample has no row whatever its token is."""
    rows = torch.tensor([[True], [True], [False]])
    for stage, inside in (("reasoning", True), ("answer", False)):
        live = Live(stage, rows)
        assert not live.awake
        live.follow([inside, not inside, inside])
        assert live.queries[:, 0].tolist() == [True, False, False]
        assert live.awake
        live.follow([not inside] * 3)
        assert not live.awake
        assert not live.queries.any()
        live.follow([not inside, inside, inside])
        assert live.queries[:, 0].tolist() == [False, True, False]
    assert rows[:, 0].tolist() == [True, True, False]


def cells(heads: list[bool] | None = None) -> Cells:
    """Two samples: rows 1 and 0 of two, keys 0 and 1 of two."""
    queries, keys = torch.tensor([[False, True], [True, False]]), torch.tensor([[True, False], [False, True]])
    return Cells(None if heads is None else torch.tensor(heads), queries, keys)


def test_cells_are_of_a_blocks_rows_and_chosen_heads() -> None:
    at = At(torch.tensor([[1, 0], [1, 1]]), torch.tensor([2, 0]), 3)
    found = cells([True, False, False]).at(at)
    assert found.shape == (2, 2, 2, 3)
    assert found.nonzero().tolist() == [[0, 1, 0, 0]]
    every = cells().at(at)
    assert every.shape == (2, 1, 2, 3)
    assert every.nonzero().tolist() == [[0, 0, 0, 0]]
    assert cells().everywhere(3).nonzero().tolist() == [[0, 0, 1, 0], [1, 0, 0, 1]]


def test_patched_values_of_each_step_sample_head_and_place() -> None:
    """Values name their place; the second sample has values for one step of two, and its keys the other way round."""
    values = torch.arange(2 * 2 * 2 * 1 * 2.0).reshape(2, 2, 2, 1, 2)
    where = torch.tensor([[0, 1], [1, 0]])
    patch = Patch(
        values, torch.tensor([1, 0]), torch.zeros(2, 2, dtype=torch.long), where, torch.tensor([2, 1])
    )
    rows, heads = torch.tensor([[1], [0]]), torch.tensor([0, 1])
    first = patch.at(At(rows, heads, 2, 0))
    assert first[:, :, 0].tolist() == [[[2, 3], [0, 1]], [[7, 6], [5, 4]]]
    assert patch.at(At(rows, heads, 2, 1))[0, 0, 0].tolist() == [10, 11]
    assert patch.at(At(rows, heads, 2, 9))[0, 0, 0].tolist() == [10, 11]
    edit = PatchRows(Site(), torch.zeros(1, 1, 1, 1))
    change = Change(edit, cells(), patch)
    plain = torch.full((2, 2, 1, 2), -1.0)
    changed = [change(plain, At(rows, heads, 2, step)) != -1 for step in (0, 1, 2)]
    assert [one.flatten(1).any(1).tolist() for one in changed] == [
        [True, True],
        [True, False],
        [False, False],
    ]


def test_only_a_knockout_of_scores_hides() -> None:
    hides = [
        Change(edit, cells()).hides
        for edit in (Knockout(Site()), Knockout(Site(), "zero"), ScaleWeights(Site(), 0))
    ]
    assert hides == [True, False, False]


def test_an_edit_of_a_stage_sleeps_until_a_token_of_it_comes() -> None:
    one = cells()
    live = Live("answer", one.queries)
    change = Change(Knockout(Site()), Cells(None, live.queries, one.keys, live))
    assert Change(Knockout(Site()), one).awake
    assert not change.awake
    live.follow([True, False])
    assert change.awake


def test_an_edit_changes_its_cells_alone() -> None:
    change = Change(ScaleWeights(Site(), 0.5), cells())
    found = change(torch.ones(2, 1, 2, 2), At(torch.tensor([[0, 1], [0, 1]]), torch.tensor([0]), 2))
    assert found[:, 0].tolist() == [[[1, 1], [0.5, 1]], [[1, 0.5], [1, 1]]]
