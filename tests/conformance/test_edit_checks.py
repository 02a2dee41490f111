"""Each check of edits fails for each edit, mode and kind of result that it is there for, spoilt alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.conformance import Subject, edit_checks
from interp.conformance.edit_checks import executors, knockout_arithmetic, knockout_mass, no_op_edits
from interp.inputs.footprints import CrossKeys
from interp.tracing import Apply, Knockout, Mllm, PatchRows, Trace
from tests.conformance.token_maps import token_map


def louder(trace: Trace) -> Trace:
    """The trace with the logits of its last sample a thousandth larger."""
    values = trace.logits.values.copy()
    values[-1] *= 1.001
    return replace(trace, logits=trace.logits.copy(data=values))


def higher(trace: Trace) -> Trace:
    """The trace with what was read of its last sample a hundredth larger, in the last step alone if it has steps."""

    def changed(read: Any) -> Any:
        return (
            read * 1.01 if "step" not in read.dims else read.where(read.step < read.step.max(), read * 1.01)
        )

    *others, last = trace.samples
    return replace(trace, samples=(*others, replace(last, reads=tuple(map(changed, last.reads)))))


def spoil(monkeypatch: Any, when: Callable[..., bool], how: Callable[[Trace], Trace]) -> None:
    """Changes the traces of which `when`, called with the model and the edits, says so."""
    own = Mllm.trace

    def trace(mllm: Mllm, *given: Any, edits: Any = (), **options: Any) -> Trace:
        found = own(mllm, *given, edits=edits, **options)
        return how(found) if when(mllm, edits) else found

    monkeypatch.setattr(Mllm, "trace", trace)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (Knockout, {"mode": "renormalise"}),
        (Knockout, {"mode": "zero"}),
        (Apply, {"stage": "scores"}),
        (Apply, {"stage": "probabilities"}),
        (PatchRows, {}),
    ],
)
def test_each_edit_without_effect_is_tried(subject, monkeypatch, kind: Any, setting: dict[str, str]) -> None:
    def one(mllm: Mllm, edits: Any) -> bool:
        return any(
            isinstance(e, kind) and all(getattr(e, name) == own for name, own in setting.items())
            for e in edits
        )

    spoil(monkeypatch, one, louder)
    found = no_op_edits(subject("llava"))
    assert not found.passed
    assert found.value > 0


@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_hidden_keys_with_mass_fail_in_either_mode(subject, monkeypatch, mode: str) -> None:
    own = Knockout.__post_init__

    def nothing(edit: Knockout) -> None:
        if edit.mode == mode:
            object.__setattr__(edit, "steps", "decode")
        own(edit)

    assert knockout_mass(subject("llava")).passed
    monkeypatch.setattr(Knockout, "__post_init__", nothing)
    found = knockout_mass(subject("llava"))
    assert not found.passed
    assert 0 < found.value < 1


def test_keys_hidden_beyond_those_named_fail_the_mass(subject, monkeypatch) -> None:
    own = Knockout.__post_init__

    def whole(edit: Knockout) -> None:
        object.__setattr__(edit, "site", replace(edit.site, keys="image"))
        own(edit)

    monkeypatch.setattr(Knockout, "__post_init__", whole)
    found = knockout_mass(subject("llava"))
    assert (found.value, found.passed) == (0, False)
    assert "the other image tokens keep up to 0" in found.detail


def test_a_mass_of_the_prompt_alone_is_no_check(subject, monkeypatch) -> None:
    monkeypatch.setattr(edit_checks, "_STEPS", 1)
    assert not knockout_mass(subject("llava")).passed


@pytest.mark.parametrize("how", [louder, higher])
@pytest.mark.parametrize("mode", ["renormalise", "zero"])
def test_arithmetic_is_of_logits_and_rows_in_both_modes(subject, monkeypatch, how: Any, mode: str) -> None:
    spoil(monkeypatch, lambda mllm, edits: any(edit.mode == mode for edit in edits), how)
    assert not knockout_arithmetic(subject("llava")).passed


def test_an_edit_that_moves_nothing_is_no_check(subject, monkeypatch) -> None:
    def nothing(subject: Subject) -> list[np.ndarray]:
        return [np.zeros(tokens.n, bool) for tokens in subject.tokens]

    monkeypatch.setattr(edit_checks, "two_thirds", nothing)
    found = knockout_arithmetic(subject("llava"))
    assert not found.passed
    assert found.detail == "the edit moves the logits by 0 only: use float32"


def test_hidden_columns_are_those_of_the_layer() -> None:
    """Positions 1 and 4 of seven; a sliding layer of 4 columns begins at position 4 once a token is generated."""
    mask = np.array([True, False, True])
    hidden = edit_checks._flags(token_map([1, 2, 4], 7), mask, [(0, 1), (2, 0)], 2)
    for layer, step, queries, keys, cells in (
        (0, 0, 7, 7, [(1, 6, 1), (1, 6, 4)]),
        (2, 0, 7, 7, [(0, 6, 1), (0, 6, 4)]),
        (0, 1, 1, 8, [(1, 0, 1), (1, 0, 4)]),
        (0, 1, 1, 4, [(1, 0, 0)]),
    ):
        flags = hidden(layer, step, queries, keys)
        assert flags is not None
        assert [tuple(cell) for cell in flags.nonzero().tolist()] == cells
    assert hidden(1, 0, 7, 7) is None
    cross = CrossKeys(np.array([0]), np.ones((7, 2), bool), 4)
    flags = edit_checks._flags(token_map([1, 2, 4], 7, cross), mask, [(0, 0)], 1)(0, 2, 1, 8)
    assert flags is not None
    assert flags[0, 0].nonzero()[:, 0].tolist() == [1, 4]


def other_words(trace: Trace) -> Trace:
    return replace(trace, samples=tuple(replace(one, answer="another") for one in trace.samples))


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("how", [louder, higher, other_words])
def test_executors_agree_on_logits_steps_and_answers(subject, monkeypatch, how: Any, edited: bool) -> None:
    one = subject("llava")
    other = replace(one.mllm)
    monkeypatch.setattr(Mllm, "using", lambda mllm, executor: other)
    assert executors(one).passed
    spoil(monkeypatch, lambda mllm, edits: mllm is other and bool(edits) == edited, how)
    found = executors(one)
    assert not found.passed
    assert ("by source 'another'" in found.detail) == (how is other_words)


def test_executors_of_a_hybrid_model_read_its_recurrent_layers(subject, monkeypatch) -> None:
    one = subject("qwen3_5")
    one.__dict__["samples"] = [one.samples[0]]
    asked, read_at = [], set()
    own = Mllm.trace

    def trace(mllm: Mllm, *given: Any, reads: Any = (), edits: Any = (), **options: Any) -> Trace:
        read_at.update(name for one in reads for name in one.site.queries)
        asked.append([any(one.site.layers == "linear" for one in some) for some in (reads, edits)])
        return own(mllm, *given, reads=reads, edits=edits, **options)

    monkeypatch.setattr(Mllm, "using", lambda mllm, executor: replace(mllm))
    monkeypatch.setattr(Mllm, "trace", trace)
    assert executors(one).passed
    assert read_at == {"after_image", "last"}
    assert asked == [[True, False]] * 2 + [[True, True]] * 2


def test_two_of_three_image_tokens_are_hidden(subject) -> None:
    (first, *_), (tokens, *_) = edit_checks.two_thirds(subject("llava")), subject("llava").tokens
    assert first[:6].tolist() == [True, False, True, True, False, True]
    assert len(first) == tokens.n
