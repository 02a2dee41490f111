"""Parts of prefixes by hand: lines that samples share, and which columns a part keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ModelError
from interp.inputs.tokens import TokenMap
from interp.tracing.passes import non_finite
from interp.tracing.passes.non_finite import _advice, _tensors, check_prefix
from interp.tracing.prefix import After, Prefix, expanded, prefix_lengths

pytestmark = pytest.mark.usefixtures("unchecked")


def held(lines: int, columns: int) -> torch.Tensor:
    """(line, head, column, dim): 10 · line + column."""
    return (10.0 * torch.arange(lines)[:, None] + torch.arange(columns))[:, None, :, None]


def prefix(lengths: tuple[int, ...], lines: tuple[int, ...] | None, n_lines: int, **more: Any) -> Prefix:
    batch: Any = list(range(len(lengths)))
    both, cost = (held(n_lines, max(lengths)),) * 2, SimpleNamespace()
    return Prefix(batch, lengths, both, tuple(-one for one in both), cost, None, lines, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "in_turn"),
    [(None, True), ((0, 0, 1, 1), True), ((0, 1, 2, 3), True), ((0, 1, 0, 1), False), ((0, 0, 1), False),
     ((0, 1, 1, 0), False)],
)  # fmt: skip
def test_lines_in_turn_need_no_copy(lines: tuple[int, ...] | None, in_turn: bool) -> None:
    n = 4 if lines is None else len(lines)
    assert prefix((2,) * n, lines, 4).in_turn is in_turn


def test_a_layer_repeats_the_lines_that_samples_share() -> None:
    found = prefix((2, 2, 2), (0, 1, 0), 2)
    keys, values = found.layer(1)
    assert keys[:, 0, :, 0].tolist() == [[0, 1], [10, 11], [0, 1]]
    assert torch.equal(values, -keys)
    own = prefix((2, 2), None, 2)
    assert own.layer(0)[0] is own.keys[0]


def test_a_part_keeps_its_lines_and_the_columns_they_need() -> None:
    batch: Any = ["b", "c"]
    found = prefix((4, 2, 3), None, 3).part([2, 1], batch)
    assert (found.lengths, found.lines, found.batch) == ((3, 2), None, batch)
    assert [one[:, 0, :, 0].tolist() for one in found.keys] == [[[21, 22, 23], [11, 12, 13]]] * 2
    assert found.values[1][0, 0].flatten().tolist() == [-21, -22, -23]
    shared = prefix((3, 3, 2), (0, 0, 1), 2)
    turned = shared.part([2, 0, 1], batch)
    assert (turned.lengths, turned.lines) == ((2, 3, 3), (0, 1, 1))
    assert turned.keys[0][:, 0, 0, 0].tolist() == [10, 0]
    assert shared.part([0, 2], batch).keys[0] is shared.keys[0]
    assert shared.part([0, 2], batch).lines is None


def test_states_of_a_part_keep_all_they_hold() -> None:
    found = prefix((4, 2), None, 2, linear=frozenset({1})).part([1], [0])  # type: ignore[arg-type]
    assert [one.shape[2] for one in found.keys] == [2, 4]
    assert [one[0, 0, 0, 0].item() for one in found.values] == [-12, -10]


def prompt(*image: int) -> TokenMap:
    n = len(image)
    nan, sizes = np.full((n, 4), np.nan), ((8, 8),) if n else ()
    return TokenMap(np.array(image, int), nan, None, np.full(n, ""), np.zeros(n, int), sizes, 6)


def test_a_prefix_ends_after_the_image_or_before_the_last_token() -> None:
    batch: Any = SimpleNamespace(tokens=(prompt(1, 2), prompt(0, 3)))
    assert prefix_lengths(batch) == (3, 4)
    assert prefix_lengths(batch, "last") == (5, 5)
    batch.tokens = (prompt(1), prompt())
    assert prefix_lengths(batch, "last") == (5, 5)
    with pytest.raises(ModelError, match="sample 1 of the batch has no image tokens"):
        prefix_lengths(batch)
    with pytest.raises(ModelError, match='is "image" or "last"; got None'):
        prefix_lengths(batch, None)  # type: ignore[arg-type]


def test_columns_stored_elsewhere_count() -> None:
    layer = After(5)
    assert layer.get_seq_length() == 5
    layer.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))
    assert layer.get_seq_length() == 7


def test_latents_are_expanded_where_a_layer_says_how() -> None:
    one = torch.ones(1)
    layers: list[Any] = [
        SimpleNamespace(self_attn=SimpleNamespace()),
        SimpleNamespace(self_attn=SimpleNamespace(expand_kv=lambda key, value: (2 * key, 3 * value))),
        SimpleNamespace(),
    ]
    found = expanded(layers, [(one, one)] * 3)
    assert [(key.item(), value.item()) for key, value in found] == [(1, 1), (2, 3), (1, 1)]
    assert expanded(layers, []) == []


@pytest.mark.parametrize(
    ("kind", "column", "lost"),
    [("attention", 0, [False, False]), ("attention", 1, [True, False]), ("linear", 0, [True, False])],
)
@pytest.mark.parametrize("which", [0, 1])
def test_padding_of_keys_may_be_anything(
    kind: str, column: int, lost: list[bool], which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines of one and two tokens; states have no padding."""
    told: list[Any] = []
    monkeypatch.setattr(non_finite, "refuse", lambda *given: told.append(given[2].tolist()))
    last = [torch.ones(2, 1, 2, 1), torch.ones(2, 1, 2, 1)]
    mllm: Any = SimpleNamespace(layer_kinds=("attention", kind))
    check_prefix(mllm, None, [1, 2], [(last[0], last[1])])  # type: ignore[arg-type]
    check_prefix(mllm, None, [1, 2], [])  # type: ignore[arg-type]
    assert told == []
    last[which][0, 0, column] = torch.nan
    check_prefix(mllm, None, [1, 2], [(last[0] * torch.inf, last[1]), (last[0], last[1])])  # type: ignore[arg-type]
    assert told == [lost]


def test_tensors_in_what_a_module_returns() -> None:
    one, two, whole = torch.ones(1), torch.ones(2), torch.ones(3, dtype=torch.long)
    found = _tensors((one, {"a": [two, whole], "b": None}, "text"))
    assert [len(part) for part in found] == [1, 2]
    assert [_advice(kind)[:13] for kind in (torch.float64, torch.float32, torch.float16)] == [
        "Are the model",
        "Are the model",
        "Does the mode",
    ]
