"""Each check of reads fails for each kind of result that it is there for, spoilt alone in a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from interp.conformance import Measured, Subject, read_checks
from interp.conformance.read_checks import (
    Agreement,
    attends,
    batching,
    compare_answer,
    decoding,
    idle_tap,
    image_prefix,
    row_gradients,
    rows,
    wrong_choices,
)
from interp.inputs.footprints import CrossKeys
from interp.tracing import Mllm, Trace
from interp.tracing.prefix import Prefix
from interp.tracing.trace import SampleTrace
from tests.conformance.token_maps import token_map


def louder(trace: Trace) -> Trace:
    """The trace with the logits of its last sample a thousandth larger."""
    values = trace.logits.values.copy()
    values[-1] *= 1.001
    return replace(trace, logits=trace.logits.copy(data=values))


def higher(trace: Trace) -> Trace:
    """The trace with the first row of everything read a hundredth larger."""

    def changed(read: xr.DataArray) -> xr.DataArray:
        values = read.values.copy()
        values[..., 0, :] *= 1.01  # (…, query, key)
        return read.copy(data=values)

    return replace(
        trace,
        samples=tuple(replace(one, reads=tuple(map(changed, one.reads))) for one in trace.samples),
    )


def spoil(monkeypatch: Any, when: Callable[..., bool], how: Callable[[Trace], Trace]) -> None:
    """Changes the traces of which `when`, called with what is traced and the options, says so."""
    own = Mllm.trace

    def trace(mllm: Mllm, what: Any, *given: Any, **options: Any) -> Trace:
        found = own(mllm, what, *given, **options)
        return how(found) if when(what, options) else found

    monkeypatch.setattr(Mllm, "trace", trace)


def numbers(**own: Any) -> Any:
    """A subject that has these attributes and no model."""
    kind: Any = type("Numbers", (Subject,), own)
    return kind.__new__(kind)


def model(*kinds: str, **own: Any) -> Any:
    """A model of layers of these kinds, without weights."""
    kind: Any = type("Given", (Mllm,), {"layer_kinds": kinds, **own})
    return kind.__new__(kind)


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("llava", "used: only what follows the image was run, as declared by the adapter: 'causal', 'self'"),
        ("paligemma", "not used: full passes, as declared by the adapter: 'prefix', 'self'"),
        ("mllama", "not used: full passes, as declared by the adapter: 'causal', 'cross'"),
        (
            "instructblip",
            "not used: full passes, as declared by the adapter: 'causal', 'composed', image_reads_prompt",
        ),
    ],
)
def test_a_prefix_is_used_where_the_image_comes_first(subject, family: str, said: str) -> None:
    found = image_prefix(subject(family))
    assert (found.passed, found.detail) == (True, said)


@pytest.mark.parametrize(
    ("when", "how"),
    [
        (lambda what, options: isinstance(what, Prefix) and bool(options.get("edits")), louder),
        (lambda what, options: isinstance(what, Prefix) and options.get("edits") == [], louder),
        (lambda what, options: isinstance(what, Prefix) and bool(options.get("edits")), higher),
        (lambda what, options: not options.get("reads"), louder),  # eager's logits alone tell
    ],
)
def test_a_prefix_that_changes_one_result_fails(subject, monkeypatch, when: Any, how: Any) -> None:
    spoil(monkeypatch, when, how)
    assert not image_prefix(subject("llava")).passed


@pytest.mark.parametrize("family", ["llava", "mllama"])
def test_a_prefixs_earlier_rows_of_every_group_are_compared(subject, monkeypatch, family: str) -> None:
    """Only rows before the last of the last group are changed: in mllama's cross-attention layers."""

    def earlier(trace: Trace) -> Trace:
        changed = []
        for one in trace.samples:
            *others, read = one.reads
            values = read.values.copy()
            values[..., :-1, :] *= 1.01
            changed.append(replace(one, reads=(*others, read.copy(data=values))))
        return replace(trace, samples=tuple(changed))

    spoil(monkeypatch, lambda what, options: isinstance(what, Prefix) and bool(options.get("reads")), earlier)
    assert not image_prefix(subject(family)).passed


def test_a_prefix_that_saves_nothing_fails_where_it_could(subject, monkeypatch) -> None:
    monkeypatch.setattr(Mllm, "prefix", lambda mllm, samples: samples)
    found = image_prefix(subject("llava"))
    assert (found.value < 1e-5, found.passed) == (True, False)
    assert found.detail == "not used: full passes, but the adapter declares 'causal', 'self'"


@pytest.mark.parametrize(
    ("found", "told"),
    [([(1e-6, True), (5e-6, True), (2e-6, True)], 1), ([(1e-6, True), (1e-9, False), (9e-6, True)], 1),
     ([(0.2, False), (0.1, False), (9.0, True)], 0)],
)  # fmt: skip
def test_hybrid_models_have_a_prefix_for_each_sample(monkeypatch, found: list[Any], told: int) -> None:
    """The worst of them is reported: one that failed, and of those the largest."""
    given = [Measured(value, "", 10, str(i), holds=holds) for i, (value, holds) in enumerate(found)]
    asked: list[Any] = []

    def after_prefix(subject: Subject, samples: Any) -> Measured:
        asked.append(samples)
        return given[samples[0]]

    monkeypatch.setattr(read_checks, "_after_prefix", after_prefix)
    assert image_prefix(numbers(mllm=model(linear_heads={0: 2}), samples=[0, 1, 2])) is given[told]
    assert asked == [[0], [1], [2]]
    image_prefix(numbers(mllm=model(linear_heads={}), samples=[0, 1, 2]))
    assert asked[3:] == [[0, 1, 2]]


@pytest.mark.parametrize("how", [louder, higher])
def test_batching_compares_logits_and_rows(subject, monkeypatch, how: Any) -> None:
    spoil(monkeypatch, lambda what, options: len(what.tokens) > 1, how)
    assert not batching(subject("llava")).passed


def test_a_batch_without_padding_is_no_check(subject) -> None:
    one = subject("llava")
    one.__dict__["samples"] = [one.samples[0]] * 2
    found = batching(one)
    assert (found.passed, found.detail) == (False, "no prompt was padded")


@pytest.mark.parametrize("how", [louder, higher])
def test_rows_compares_logits_and_rows_of_each_prompt(subject, monkeypatch, how: Any) -> None:
    one = subject("llava")
    last = one.singles[-1]
    spoil(monkeypatch, lambda what, options: what is last, how)
    assert not rows(one).passed


def test_rows_of_recurrent_layers_are_compared(subject, monkeypatch) -> None:
    one = subject("qwen3_5")
    one.__dict__["samples"] = [one.samples[0]]
    assert rows(one).passed
    spoil(monkeypatch, lambda what, options: options["reads"][0].site.layers == "linear", higher)
    assert not rows(one).passed


def test_answers_that_end_at_once_are_no_check(subject, monkeypatch) -> None:
    monkeypatch.setattr(read_checks, "_STEPS", 1)
    found = decoding(subject("llava"))
    assert not found.passed
    assert found.detail == "every answer ended at its first token, so no generated row was compared"


@pytest.mark.parametrize("off", [None, (0, 0), (1, 1)])
def test_an_answers_rows_are_compared_step_by_step(monkeypatch, off: tuple[int, int] | None) -> None:
    """Two layers of one head, three prompt tokens; the second step's rows have one more key, which is not compared."""
    steps = [[torch.tensor([[0.5, 0.25, 0.25]])] * 2, [torch.tensor([[0.25, 0.25, 0.25, 0.25]])] * 2]
    own = np.array([[[[[0.5, 0.25, 0.25]]]] * 2, [[[[0.25, 0.25, 0.25]]]] * 2])
    if off is not None:
        own[off][0, 0, 0] += 0.1
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    eager = SimpleNamespace(following=lambda inputs, ids: (steps, logits))
    words = SimpleNamespace(convert_ids_to_tokens=lambda one: f"w{one}")
    one = numbers(
        mllm=model("attention", "attention", processor=SimpleNamespace(tokenizer=words)),
        plain=lambda self, sample: sample, eager=eager, tokens=[token_map([1], 3)],
        exact=True, tolerance=1e-5, rounding=0.0, eps=1e-7,
    )  # fmt: skip
    found = Agreement(one)
    trace = SampleTrace((xr.DataArray(own),), one.tokens[0], ids=(1, 0))
    assert compare_answer(one, found, 0, trace) is logits
    assert found.measured("").value == pytest.approx({None: 0, (0, 0): 0.1, (1, 1): 0.1 / 0.75}[off])
    short = SampleTrace((xr.DataArray(own[:1]),), one.tokens[0], ids=(1, 1))
    compare_answer(one, found, 0, short)
    assert found.wrong == ["token 1 is 'w1', eager's best is 'w0'", "1 steps, eager 2"]


@pytest.mark.parametrize(
    ("exact", "rounding", "behind", "taken"),
    [(True, 2e-5, 7e-5, True), (True, 2e-5, 9e-5, False), (True, 1.0, 2e-3, False), (False, 1.0, 5e-4, False),
     (False, 0.0, 9e-6, True)],
)  # fmt: skip
def test_a_near_tie_is_within_four_times_the_rounding(
    exact: bool, rounding: float, behind: float, taken: bool
) -> None:
    words = SimpleNamespace(convert_ids_to_tokens=str)
    given = model(processor=SimpleNamespace(tokenizer=words))
    one = numbers(mllm=given, exact=exact, tolerance=1e-5, rounding=rounding)
    wrong = wrong_choices(one, [1], 2 * torch.tensor([[1.0, 1.0 - behind]], dtype=torch.float64))
    assert wrong == ([] if taken else ["token 0 is '1', eager's best is '0'"])


@pytest.mark.parametrize("reading", [False, True])
def test_traces_must_keep_every_bit(subject, monkeypatch, reading: bool) -> None:
    spoil(monkeypatch, lambda what, options: bool(options["reads"]) == reading, louder)
    found = idle_tap(subject("llava"))
    vocabulary = subject("llava").mllm.hf.config.get_text_config().vocab_size
    assert vocabulary / 2 < found.value <= vocabulary


def test_a_plain_pass_must_keep_every_bit(subject, monkeypatch) -> None:
    """The wrapped model is changed outside of traces alone."""
    one, own, traced = subject("llava"), Mllm.trace, []

    def trace(mllm: Mllm, *given: Any, **options: Any) -> Trace:
        traced.append(True)
        try:
            return own(mllm, *given, **options)
        finally:
            traced.pop()

    monkeypatch.setattr(Mllm, "trace", trace)
    layer = one.mllm.layers[0]
    handle = layer.register_forward_hook(lambda module, given, output: output if traced else output * 1.001)
    try:
        assert not idle_tap(one).passed
    finally:
        handle.remove()
    assert idle_tap(one).passed


def test_cross_attention_must_see_the_declared_keys() -> None:
    """Row 0 of three sees nothing, the others the first of two blocks of two keys."""
    blocks = np.array([[False, False], [True, False], [True, False]])
    weights = [torch.ones(1, 1, 3, 3).tril(), torch.tensor(blocks.repeat(2, axis=1)[None, None] / 2.0)]
    eager = SimpleNamespace(reading=lambda inputs, keep: (0, [keep(one) for one in weights]))
    declared = CrossKeys(np.array([0]), blocks, 2)
    made: dict[str, Any] = {
        "mllm": model("attention", "cross"), "samples": [0], "plain": lambda self, sample: sample,
        "eager": eager, "attends": "causal",
    }  # fmt: skip
    assert attends(numbers(**made, tokens=[token_map([0, 1], 3, declared)])).value == 0
    other = CrossKeys(np.array([0]), np.array([[False, False], [True, True], [True, False]]), 2)
    assert attends(numbers(**made, tokens=[token_map([0, 1], 3, other)])).value == 2


@pytest.mark.parametrize(
    ("exact", "ours", "eager", "value", "limit"),
    [
        (True, 4e-5, 0.0, 4e-5, 5e-5),
        (True, 2e-3, 0.0, 2e-3, 5e-5),  # no rounding excuses this
        (True, 4e-4, 2e-4, 2.0, 3),
        (True, 2e-4, 1e-6, 4.0, 3),  # eager's own error counts as 5e-5 at least
        (False, 0.05, 0.02, 2.5, 3),
        (False, 0.05, 0.001, 5.0, 3),  # eps at least
    ],
)
def test_gradients_are_as_exact_as_eagers(
    monkeypatch, exact: bool, ours: float, eager: float, value: float, limit: float
) -> None:
    """Gradients of one number in two samples: those of the first are right."""
    monkeypatch.setattr(read_checks, "_differentiable", lambda hf: nullcontext())
    monkeypatch.setattr(
        read_checks,
        "_in_nnsight_trace",
        lambda mllm, sample: [torch.tensor([1.0 + ours * sample], dtype=torch.float64)],
    )

    def reference(error: float) -> Any:
        def gradients(sample: int) -> list[torch.Tensor]:
            return [torch.tensor([1.0 + error * sample], dtype=torch.float64)]

        return SimpleNamespace(hf=None, gradients=gradients)

    one = numbers(
        mllm=model(hf=None), samples=[0, 1], plain=lambda self, sample: sample, eager=reference(eager),
        finer=reference(0.0), exact=exact, tolerance=1e-5, eps=0.01,
    )  # fmt: skip
    found = row_gradients(one)
    # norms over both samples: of the errors, error·1; of the true ones, √2; floors count after that division
    if limit == 3:
        floor = 5e-5 if exact else 0.01
        value = (ours / 2**0.5) / max(eager / 2**0.5, floor)
    assert (found.value, found.limit) == (pytest.approx(value, rel=1e-3), pytest.approx(limit))
    assert found.passed is (value <= limit)
