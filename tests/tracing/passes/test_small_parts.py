"""Parts of the passes on values worked by hand: micro-batches, bars, memory, outcomes, streams."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tests.tiny as tiny
from interp.tracing import Cost, Mllm
from interp.tracing.cost import Meter
from interp.tracing.layers.layer_plan import Recorder
from interp.tracing.passes import progress_bar
from interp.tracing.passes.micro_batches import _groups, in_order
from interp.tracing.passes.out_of_memory import in_halves, out_of_memory
from interp.tracing.passes.run import (
    ContrastStream,
    Generation,
    Outcome,
    embeddings,
    next_tokens,
    without_choice,
)


def test_results_come_back_in_the_order_given() -> None:
    assert in_order([((2, 0), "ca"), ((1,), "b")]) == ["a", "b", "c"]


def test_as_many_samples_as_fit_run_together() -> None:
    samples = tuple(tiny.samples())
    assert _groups(samples, 3) == [(0, 1, 2)]
    assert sorted(map(len, _groups(samples, 2))) == [1, 2]


def test_bars_are_shown_again_after_an_error() -> None:
    def fail(hidden: bool) -> None:
        with progress_bar.without_bars(hidden):
            raise ValueError("boom")

    with progress_bar.without_bars(), progress_bar.without_bars(False):
        assert progress_bar._HIDDEN.get()
    with pytest.raises(ValueError, match="boom"):
        fail(True)
    assert not progress_bar._HIDDEN.get()


@pytest.mark.parametrize(
    ("terminal", "notebook", "widgets", "shows"),
    [
        (True, False, False, True),
        (False, True, True, True),
        (False, True, False, False),
        (False, False, True, False),
    ],
)
def test_a_notebook_shows_bars_where_it_has_widgets(
    terminal: bool,
    notebook: bool,
    widgets: bool,
    shows: bool,
    monkeypatch: pytest.MonkeyPatch,
    unchecked: None,
) -> None:
    monkeypatch.setattr(progress_bar, "find_spec", lambda name: (name == "ipywidgets" and widgets) or None)
    console: Any = SimpleNamespace(is_terminal=terminal, is_jupyter=notebook)
    assert progress_bar._shows(console) is shows


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("x"), True),
        (RuntimeError("MPS backend Out Of Memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_memory_ran_out(error: Exception, ran_out: bool) -> None:
    assert out_of_memory(error) is ran_out


def test_what_is_kept_is_dropped_before_anything_is_split() -> None:
    """Five things of which three fit; the cache takes the room of the others until it is freed."""
    kept, parts = [True], []

    def compute(part: tuple[int, ...]) -> int:
        parts.append(part)
        if len(part) > (2 if kept[0] else 3):
            raise MemoryError
        return sum(part)

    def free() -> bool:
        had, kept[0] = kept[0], False
        return had

    options: Any = {"too_large": lambda one, problem: ValueError(problem), "free_cache": free}
    assert in_halves((1, 2, 3), compute, **options) == [6]
    assert parts == [(1, 2, 3), (1, 2, 3)]
    assert in_halves((1, 2, 3, 4, 5), compute, **options) == [6, 9]  # the first half is the larger

    def broken(part: tuple[int, ...]) -> int:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_halves((1, 2), broken, **options)


def test_an_outcome_of_lines_that_repeat() -> None:
    """Samples 0 and 2 are line 1, sample 1 is line 0."""
    numbers = torch.tensor([[1.0], [2.0]])
    rows = {(0, 0): [numbers, 10 * numbers]}
    one = Outcome(numbers, numbers[:, None], numbers.long(), rows, torch.tensor([True, False]))
    found = one.of_lines([1, 0, 1])
    assert found.logits[:, 0].tolist() == found.tail[:, 0, 0].tolist() == [2, 1, 2]
    assert found.ids is not None
    assert found.ids[:, 0].tolist() == [2, 1, 2]
    assert [layer[:, 0].tolist() for layer in found.rows[0, 0]] == [[2, 1, 2], [20, 10, 20]]
    assert found.lost.tolist() == [False, True, False]


def test_from_which_logits_no_token_can_be_chosen() -> None:
    """Of every position of the tail; −∞ in some places is a mask."""
    inf, nan = math.inf, math.nan
    lines = torch.tensor(
        [
            [[0.0, 1.0], [0.0, -inf]],
            [[nan, 1.0], [0.0, 1.0]],
            [[0.0, 1.0], [0.0, nan]],
            [[-inf, -inf], [0.0, 1.0]],
            [[0.0, inf], [0.0, 1.0]],
        ]
    )
    assert without_choice(lines).tolist() == [False, True, True, True, True]
    assert without_choice(lines[:, 0]).tolist() == [False, True, False, True, True]


def test_an_answer_ends_at_any_of_its_end_tokens() -> None:
    logits = torch.eye(4)[[2, 3, 1, 1]]
    generation = Generation(9, frozenset({2, 3}), 0, lambda given: given.argmax(-1))
    ended = torch.tensor([False, False, False, True])
    token, ended = next_tokens(logits, ended, ended, generation, torch.tensor([2, 3]))
    assert token.tolist() == [2, 3, 1, 0]
    assert ended.tolist() == [True, True, False, True]


def test_an_error_in_the_second_stream_lets_reads_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()

    def fail(inputs: Any) -> Any:
        assert recorder.paused
        raise ValueError("boom")

    stream = ContrastStream.__new__(ContrastStream)
    stream.recorder, stream.inputs, stream._pass = recorder, {}, fail
    with pytest.raises(ValueError, match="boom"):
        stream.guide(torch.zeros(1, 2))
    assert not recorder.paused


def test_embeddings_leave_no_hook_after_an_error(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any, **named: Any) -> Any:
        raise ValueError("boom")

    first, batch = mllm.installation.layers[0], mllm.encode(tiny.sample())
    monkeypatch.setattr("interp.tracing.passes.run.run_pass", fail)
    with pytest.raises(ValueError, match="boom"):
        embeddings(mllm, batch)
    assert not first._forward_pre_hooks


def test_a_part_measured_before_counts_in_the_whole() -> None:
    """Its passes and its peak; its seconds are the block's already."""
    with Meter(torch.device("cpu")) as meter:
        meter.count(Cost(1000.0, 2**60, 2, 1, 30))
        meter.count(Cost(0.0, 5, 1, 1, 10))
    cost = meter.cost
    assert (cost.forwards, cost.backwards, cost.tokens, cost.peak_bytes) == (3, 2, 40, 2**60)
    assert cost.seconds < 100
