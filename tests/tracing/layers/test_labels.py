"""Labels of rows and vectors by hand: layers in the site's order, steps of each sample's own tokens, kinds of keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from interp.inputs.tokens import TokenMap
from interp.tracing.layers.labels import _numbers, label_rows, relabelled
from interp.tracing.layers.request import Selection, StreamSelection


def prompt(*image: int) -> TokenMap:
    """Four tokens, of which these are of the image."""
    n = len(image)
    nan = np.full((n, 4), np.nan)
    return TokenMap(
        np.array(image, int), nan, None, np.full(n, ""), np.zeros(n, int), ((8, 8),) if n else (), 4
    )


def places(*each: list[int]) -> tuple[Any, ...]:
    return tuple(np.array(one, np.int64) for one in each)


@pytest.mark.parametrize(
    ("image", "keys", "numbers"),
    [
        ([1, 2, 3], [1, 2, 3], [0, 1, 2]),
        ([1, 2, 3], [3], [2]),
        ([1, 2, 3], [1, 3], [0, 2]),
        ([1, 2], [0, 1], None),
        ([1, 2], [2, 3], None),
        ([], [0], None),
    ],
)
def test_keys_are_numbered_among_image_tokens(
    image: list[int], keys: list[int], numbers: list[int] | None
) -> None:
    found = _numbers(np.array(keys), prompt(*image))
    assert (None if found is None else found.tolist()) == numbers


def vectors(steps: range) -> list[list[torch.Tensor]]:
    """For each step, layers 0 and 2 of two samples: 100 · layer + 10 · step + sample."""
    return [
        [torch.tensor([100.0 * layer + 10 * step + i for i in range(2)])[:, None, None] for layer in (0, 2)]
        for step in steps
    ]


def stream(queries: Any, steps: range, **more: Any) -> list[Any]:
    """Each sample's steps and numbers; they generated 2 and 4 tokens, of which 1 and 2 are a thought."""
    selection = StreamSelection((2, 0), queries, more.pop("decodes", True), **more)
    other = StreamSelection((0, 2), queries, True)
    rows: dict[Any, Any] = {}
    for step, layers in zip(steps, vectors(steps), strict=True):
        rows |= {(1, step): layers, (0, step): [9 * one for one in layers]}
    found = label_rows(rows, [other, selection], [prompt(1)] * 2, [2, 4], n_reasoning=[1, 2])
    assert all(one[1]["layer"].values.tolist() == [2, 0] for one in found)
    return [(one[1]["step"].values.tolist(), one[1].values[..., 0, 0].tolist()) for one in found]


def test_steps_are_of_each_samples_own_tokens() -> None:
    assert stream(places([3], [3]), range(4)) == [
        ([0, 1], [[200, 0], [210, 10]]),
        ([0, 1, 2, 3], [[201, 1], [211, 11], [221, 21], [231, 31]]),
    ]
    assert stream(places([3], [3]), range(1), decodes=False) == [([0], [[200, 0]]), ([0], [[201, 1]])]


@pytest.mark.parametrize(
    ("stage", "first", "second"),
    [
        (None, [1], [1, 2, 3]),
        ("reasoning", [1], [1, 2]),
        ("answer", [], [3]),
    ],
)
def test_rows_of_generated_tokens_begin_at_step_one(
    stage: str | None, first: list[int], second: list[int]
) -> None:
    found = stream(places([], []), range(1, 4), stage=stage)
    assert [steps for steps, _ in found] == [first, second]
    assert [[line[0] for line in lines] for _, lines in found] == [
        [200 + 10 * step for step in first],
        [201 + 10 * step for step in second],
    ]


def weights(layer: int, heads: tuple[int, ...]) -> torch.Tensor:
    """(sample, head, query, key): 1000 · layer + 100 · head + 10 · query + key + ½ · sample, two queries and keys."""
    cells = [[[10.0 * q + k for k in range(2)] for q in range(2)]]
    own = torch.tensor(cells) + 1000 * layer + 100 * torch.tensor(heads)[:, None, None]
    return torch.stack([own, own + 0.5])


def attention(heads: dict[int, tuple[int, ...]], pairs: Any, keys: Any) -> list[xr.DataArray]:
    """Of two samples with rows [3] and [2, 3]; the layers' tensors come in the order of the model."""
    selection = Selection(heads, pairs, False, places([3], [2, 3]), keys, False)
    rows = {(0, 0): [weights(layer, heads[layer]) for layer in sorted(heads)]}
    return [one[0] for one in label_rows(rows, [selection], [prompt(1, 2)] * 2, None)]


def test_rows_have_the_sites_order_and_each_samples_size() -> None:
    first, second = attention({1: (2, 0), 0: (2, 0)}, None, places([1, 2], [2]))
    assert first.dims == second.dims == ("layer", "head", "query", "token")
    assert (first["layer"].values.tolist(), first["head"].values.tolist()) == ([1, 0], [2, 0])
    assert first.values.tolist() == [[[[1200, 1201]], [[1000, 1001]]], [[[200, 201]], [[0, 1]]]]
    assert (second["query"].values.tolist(), second["token"].values.tolist()) == ([2, 3], [1])
    assert second["position"].values.tolist() == [2]
    assert second.values[0, 0].tolist() == [[1200.5], [1210.5]]


def test_pairs_lie_along_heads_in_their_order() -> None:
    pairs = ((1, 3), (0, 1), (1, 2))
    first, _ = attention({1: (3, 2), 0: (1,)}, pairs, places([0, 1], [0, 1]))
    assert first.dims == ("head", "query", "key")
    assert first[:, 0, 0].values.tolist() == [1300, 100, 1200]
    assert list(first["head"].values) == list(pairs)


def test_an_array_gets_other_values() -> None:
    first, _ = attention({1: (2, 0), 0: (2, 0)}, None, places([1, 2], [2]))
    first.attrs = {"signed": True}
    again = relabelled(first, first.values + 1)
    assert again.identical((first + 1).assign_attrs(first.attrs).rename(first.name))
    without = relabelled(first, first.values[:, 1], "head")
    assert without.dims == ("layer", "query", "token")
    assert "head" not in without.coords
    assert without["position"].values.tolist() == [1, 2]


def test_rows_of_generated_tokens_have_steps_and_no_positions() -> None:
    selection = Selection({1: (2, 0)}, None, False, places([], []), places([1, 2], [1, 2]), True)
    rows = {(0, step): [weights(1, (2, 0))[:, :, :1] + 10_000 * step] for step in (1, 2)}
    found = [one[0] for one in label_rows(rows, [selection], [prompt(1, 2)] * 2, [2, 3])]
    assert [one.dims for one in found] == [("step", "layer", "head", "query", "token")] * 2
    assert [one["step"].values.tolist() for one in found] == [[1], [1, 2]]
    assert [one.shape for one in found] == [(1, 1, 2, 1, 2), (2, 1, 2, 1, 2)]
    assert found[1][:, 0, 0, 0, 0].values.tolist() == [11200.5, 21200.5]
    assert "query" not in found[0].coords


def test_routing_lies_along_tokens_where_all_are_of_the_image() -> None:
    rows = {(0, 0): [torch.arange(12.0).reshape(2, 2, 3)]}
    for queries, dim, numbers in (([1, 2], "token", [0, 1]), ([2, 3], "position", [2, 3])):
        selection = StreamSelection((1,), places(queries, queries), False, "experts")
        (first,), (second,) = label_rows(rows, [selection], [prompt(1, 2)] * 2, None)
        assert first.dims == ("layer", dim, "expert")
        assert first[dim].values.tolist() == numbers
        assert first["expert"].values.tolist() == [0, 1, 2]
        assert first["position"].values.tolist() == queries
        assert second.values.tolist() == [[[6, 7, 8], [9, 10, 11]]]


def test_vectors_of_prompts_have_no_step() -> None:
    rows = {(0, 0): [torch.tensor([[[1.0], [2]], [[3], [4]]]) + 10 * layer for layer in (0, 2)]}
    selection = StreamSelection((2, 0), places([3], [2, 3]), False)
    (first,), (second,) = label_rows(rows, [selection], [prompt(1)] * 2, None)
    assert first.dims == second.dims == ("layer", "position", "hidden")
    assert (first["position"].values.tolist(), second["position"].values.tolist()) == ([3], [2, 3])
    assert (first.values.tolist(), second[1].values.tolist()) == ([[[21]], [[1]]], [[3], [4]])


def test_what_was_never_run_has_no_steps() -> None:
    """Each sample's only token is not run: no rows, of the right sizes."""
    heads, none, keys = {1: (2, 0), 0: (2, 0)}, places([], []), places([1, 2], [1])
    selections = [
        Selection(heads, None, False, none, keys, True),
        Selection({1: (2,), 0: (0,)}, ((1, 2), (0, 0)), False, none, keys, True),
        Selection(heads, None, True, none, keys, True),
        StreamSelection((2, 0), none, True),
    ]
    first, second = label_rows({}, selections, [prompt(1, 2)] * 2, [1, 1])
    assert [one.shape for one in first] == [(0, 2, 2, 1, 2), (0, 2, 1, 2), (0, 2, 1, 2), (0, 2, 1, 0)]
    assert [one.shape for one in second[:3]] == [(0, 2, 2, 1, 1), (0, 2, 1, 1), (0, 2, 1, 1)]
    assert [one.dims[1] for one in first] == ["layer", "head", "layer", "layer"]


def test_rows_of_linear_layers_say_that_they_are_signed() -> None:
    rows = {(0, 0): [weights(1, (2, 0))]}
    for kind, name in (("linear", "linear attention"), ("attention", "attention")):
        kept: Any = kind
        selection = Selection({1: (2, 0)}, None, False, places([3], [3]), places([1], [2]), False, kept)
        found = label_rows(rows, [selection], [prompt(1, 2)] * 2, None)[0][0]
        assert found.name == name
        assert found.attrs.get("signed") is (True if kind == "linear" else None)
        assert bool(found.attrs) == bool(found.attrs.get("long_name")) == (kind == "linear")
