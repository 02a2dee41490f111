"""Any number of samples in micro-batches: the same values for every size, in the order given."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from interp.conformance.tiny import tiny
from interp.errors import EditError, ModelError, PromptError, SampleError, SiteError
from interp.indicators import TokenKnockout
from interp.inputs.prompt import GENERIC_PROMPT, Target, diff
from interp.inputs.sample import Sample
from interp.tracing import (
    Decoding,
    Knockout,
    Mllm,
    PatchResidual,
    PatchRows,
    Residual,
    Rows,
    Site,
    image_mask,
    wrap,
)
from interp.tracing.passes import out_of_memory, progress_bar
from interp.tracing.passes.micro_batches import MicroBatch, in_batches, in_order
from tests.batch_sizes import SIZES, WHOLE, masks, samples

FAMILIES = ("llava", "qwen2_5_vl", "gemma3", "llava_next")
READS = [
    Rows(Site(queries="last", keys="image")),
    Rows(Site(layers=[1], queries="question", keys="all"), reduce="head"),
    Residual(layers=[0, 2]),
]


@pytest.fixture(scope="module", params=FAMILIES)
def mllm(request: pytest.FixtureRequest) -> Mllm:
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def llava() -> Mllm:
    return wrap(*tiny("llava"))


def assert_same(found: Any, wanted: Any) -> None:
    """Two traces with the same values and labels."""
    np.testing.assert_allclose(found.logits.values, wanted.logits.values, atol=1e-5, rtol=1e-5)
    assert found.logits.dims == wanted.logits.dims
    assert found.answers == wanted.answers
    for one, other in zip(found, wanted, strict=True):
        assert (one.ids, one.answer, one.tokens.length) == (other.ids, other.answer, other.tokens.length)
        for read, same in zip(one.reads, other.reads, strict=True):
            xr.testing.assert_allclose(read, same, atol=1e-5, rtol=1e-5)
            assert read.name == same.name


@pytest.mark.by_default(mllm=("gemma3", "llava"), size=(2,))
@pytest.mark.parametrize("size", SIZES)
def test_reads_and_answers_are_the_same_for_every_size(mllm, size):
    whole = mllm.trace(samples(), reads=READS, generate=3, batch_size=WHOLE)
    assert_same(mllm.trace(samples(), reads=READS, generate=3, batch_size=size), whole)


def test_what_comes_encoded_is_cut_too(llava):
    whole = llava.trace(samples(), reads=READS, batch_size=WHOLE)
    prefix = llava.prefix(samples())
    for encoded in (llava.encode(samples()), prefix):
        assert_same(llava.trace(encoded, reads=READS, batch_size=2), whole)
    generic = llava.trace(samples(), GENERIC_PROMPT, batch_size=WHOLE)
    assert_same(llava.trace(prefix, GENERIC_PROMPT, batch_size=2), generic)


def test_a_part_of_a_prefix_keeps_each_samples_line(llava):
    """Lines 0, 1, 0: of the last two samples the second line comes first."""
    own = [samples()[i] for i in (0, 1, 2)]
    prefix = llava.prefix(own)
    assert prefix.lines == (0, 1, 0)
    batch = llava.encoder.part(prefix.batch, [1, 2])
    found = llava.trace(prefix.part([1, 2], batch))
    assert found.cost.tokens < sum(tokens.length for tokens in batch.tokens)
    np.testing.assert_allclose(found.logits.values, llava.trace(own[1:]).logits.values, atol=1e-5)


def test_each_sample_keeps_its_own_masks_and_values(llava):
    own = samples()
    counts = [tokens.n for tokens in llava.encode(own).tokens]
    site = Site(layers=[1], queries="last", keys=["last", image_mask(masks(counts))])
    found = llava.trace(own, reads=[Rows(site), Residual([1])], batch_size=WHOLE)
    edits = [
        Knockout(Site(layers=[0], queries="last", keys=image_mask(masks(counts)))),
        PatchRows(site, [one.rows / 2 for one in found]),
        PatchResidual([1], "last", [one.residual * 2 for one in found]),
    ]
    whole = llava.trace(own, reads=READS[:1], edits=edits, batch_size=WHOLE)
    assert np.abs(whole.logits.values - found.logits.values).max() > 1e-3
    scores = llava.score(own, Target("left"), edits=edits, batch_size=WHOLE).values
    assert_same(llava.trace(own, reads=READS[:1], edits=edits, batch_size=2), whole)
    found = llava.score(own, Target("left"), edits=edits, batch_size=2)
    np.testing.assert_allclose(found.values, scores, atol=1e-5)


def test_one_mask_or_value_too_few_is_refused_at_once(llava):
    mask = np.ones((4, 16), bool)
    with pytest.raises(SiteError, match="holds 4 masks for a batch of 5 samples"):
        llava.trace(samples(), reads=[Rows(Site(keys=image_mask(mask)))], batch_size=2)
    values = np.zeros((4, 1, 1, 64))
    with pytest.raises(EditError, match="hold 4 arrays for a batch of 5 samples"):
        llava.trace(samples(), edits=[PatchResidual([0], "last", values)], batch_size=2)


@pytest.mark.by_default(mllm=("llava", "qwen2_5_vl"))
@pytest.mark.parametrize("target", [Target("greedy", tokens=2), Target(diff("left lung", "right"))])
def test_scores_are_the_same_for_every_size(mllm, target):
    whole = mllm.score(samples(), target, batch_size=WHOLE)
    found = mllm.score(samples(), target, batch_size=2)
    np.testing.assert_allclose(found.values, whole.values, atol=1e-5, rtol=1e-5)
    assert found.aims.each == whole.aims.each


def test_draws_do_not_depend_on_the_size(llava):
    options: dict[str, Any] = {"generate": 6, "seed": 3, "decoding": Decoding(temperature=1.5)}
    whole = llava.trace(samples(), batch_size=WHOLE, **options)
    assert len(set(whole.answers)) > 1
    for size in (1, 3):
        assert llava.answers(samples(), batch_size=size, **options) == whole.answers


def test_costs_add_up(llava):
    own = samples()
    alone = [llava.trace(sample).cost for sample in own]
    cost = llava.trace(own, batch_size=1).cost
    assert cost.forwards == 5
    assert cost.tokens == sum(one.tokens for one in alone)
    assert cost.seconds > 0
    assert cost.peak_bytes > 0


def test_at_once_means_one_pass_whatever_the_size(llava):
    own = [sample.replace(question="is it red?", id=f"{i}") for i, sample in enumerate(samples()[1::2])]
    assert llava.at_once().trace(own, batch_size=1).cost.forwards == 1
    assert llava.trace(own, batch_size=1).cost.forwards == 2


def test_rows_of_all_samples_are_padded_as_before(llava):
    read = [Rows(Site(queries="question", keys="all"))]
    whole, cut = (llava.trace(samples(), reads=read, batch_size=size).rows for size in (WHOLE, 2))
    xr.testing.assert_allclose(cut, whole, atol=1e-5)
    assert np.isnan(cut.values).any()


@pytest.mark.parametrize("wrong", [0, -1, True, 2.0, "8", None])
def test_sizes_that_are_none_are_refused(llava, unchecked, wrong):
    with pytest.raises(
        ModelError, match=r"batch_size, the samples in one pass, is a whole number of at least 1"
    ):
        llava.trace(samples(), batch_size=wrong)


def test_an_answer_has_a_token(llava):
    with pytest.raises(PromptError, match="Write generate=1 or more"):
        llava.answers(samples(), generate=0)


class Narrow:
    """Passes of more samples than `room` do not fit in memory; a hook for a model's forward."""

    def __init__(self, room: int) -> None:
        self.room, self.passes = room, []

    def __call__(self, module: Any, arguments: Any, named: dict[str, Any]) -> None:
        n = len(named["input_ids"])
        self.passes.append(n)
        if n > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")


def test_what_does_not_fit_is_run_in_halves(monkeypatch, llava):
    monkeypatch.setattr(out_of_memory, "free_memory", lambda: None)  # takes 50 ms
    whole = llava.trace(samples(), reads=READS, batch_size=WHOLE)
    hook = Narrow(2)
    handle = llava.hf.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        found = llava.trace(samples(), reads=READS, batch_size=WHOLE)
        hook.room = 0
        with pytest.raises(
            ModelError,
            match=r"number \d of those given \(from 0\), does not fit in memory even alone \(OutOf",
        ):
            llava.trace(samples())
    finally:
        handle.remove()
    assert 3 in hook.passes
    assert_same(found, whole)


def test_an_error_names_the_samples_of_its_micro_batch(llava):
    read = Rows(Site(queries="last", keys=image_mask(np.zeros(16, bool))))
    with pytest.raises(SiteError, match="selects nothing in sample 0 of the batch") as caught:
        llava.trace(samples(), reads=[read], batch_size=2)
    assert caught.value.__notes__ == [
        "The batch held the samples with these numbers among those given, counted from 0: [4]."
    ]
    with pytest.raises(SiteError, match="selects nothing in sample 0 of the batch") as caught:
        llava.trace(samples(), reads=[read], batch_size=WHOLE)
    assert not hasattr(caught.value, "__notes__")


# the loop alone


def pictures(kinds: Sequence[int]) -> list[Sample]:
    return [
        Sample(np.full((4, 4, 3), kind, np.uint8), f"question {'x' * (7 * i % 40)}?", id=f"{i}")
        for i, kind in enumerate(kinds)
    ]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 6), st.integers(1, 6))
def test_each_sample_runs_once_and_comes_back_in_its_place(kinds, size, room):
    own = pictures(kinds)
    fitted: list[tuple[int, ...]] = []

    def run(_: Any, some: MicroBatch) -> list[str]:
        assert some.n_all == len(own)
        assert [sample.id for sample in some.samples] == [str(place) for place in some.at]
        if len(some.at) > room:
            raise MemoryError
        fitted.append(some.at)
        return [sample.id for sample in some.samples]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(out_of_memory, "free_memory", lambda: None)  # takes 50 ms
        found = in_order(in_batches(SimpleNamespace(), own, run, batch_size=size))
    assert found == [sample.id for sample in own]
    assert sorted(place for at in fitted for place in at) == list(range(len(own)))
    assert all(len(at) <= min(size, room) for at in fitted)
    if room >= size:
        for kind in set(kinds):
            pieces = sum(any(kinds[i] == kind for i in at) for at in fitted)
            assert pieces <= -(-kinds.count(kind) // size)


def test_the_longest_run_first_and_a_split_is_made_once():
    tried: list[int] = []

    def run(_: Any, some: MicroBatch) -> list[int]:
        tried.append(len(some.at))
        if len(some.at) > 2:
            raise RuntimeError("MPS backend out of memory")
        return list(some.at)

    own = [Sample(np.full((4, 4, 3), i, np.uint8), "x" * (20 * i + 1)) for i in range(12)]
    parts = in_batches(SimpleNamespace(), own, run, batch_size=4)
    assert tried == [4, 2, 2, 2, 2, 2, 2]
    assert parts[0][0] == (8, 9)
    assert in_order(parts) == list(range(12))


def test_later_parts_are_as_large_as_the_largest_that_fitted():
    """Of five samples three fit; their halves are of three and two."""
    tried: list[int] = []

    def run(_: Any, some: MicroBatch) -> list[int]:
        tried.append(len(some.at))
        if len(some.at) > 3:
            raise MemoryError
        return list(some.at)

    in_batches(SimpleNamespace(), pictures(range(10)), run, batch_size=5)
    assert tried == [5, 3, 2, 3, 2]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def run(_: Any, some: MicroBatch) -> list[int]:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(SimpleNamespace(), pictures([0, 1]), run)
    with pytest.raises(SampleError, match="at least one sample"):
        in_batches(SimpleNamespace(), [], run)


class Terminal(Console):
    """A terminal that keeps what is written; one class for all tests, because annotations are resolved once."""

    page: ClassVar[io.StringIO] = io.StringIO()

    def __init__(self, **_: Any) -> None:
        super().__init__(file=self.page, force_terminal=True, width=80)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal."""
    with progress_bar.progress_bar("annotations", 1):  # resolved once, by what Console is then
        Terminal.page = io.StringIO()
    monkeypatch.setattr(progress_bar, "Console", Terminal)
    return Terminal.page


def test_a_terminal_shows_how_many_are_done(llava, shown):
    llava.trace(samples(), batch_size=2)
    page = shown.getvalue()
    assert "micro-batches of 2" in page
    assert "5/5" in page
    assert "samples" in page


@pytest.mark.parametrize("options", [{"batch_size": WHOLE}, {"batch_size": 2, "progress": False}])
def test_one_micro_batch_or_none_wanted_shows_no_bar(llava, shown, options):
    llava.trace(samples(), **options)
    llava.at_once().trace(samples(), batch_size=2)
    assert shown.getvalue() == ""


def test_long_work_on_one_sample_counts_its_variants(llava, shown):
    one = samples()[:1]
    knockout = TokenKnockout(batch=1)
    knockout(llava, one, progress=False)
    assert shown.getvalue() == ""
    knockout(llava, one)
    page = shown.getvalue()
    assert "hiding tokens" in page
    assert "variants" in page


def test_work_inside_a_bar_shows_none_of_its_own(llava, shown):
    TokenKnockout(batch=1)(llava, samples()[:2])
    page = shown.getvalue()
    assert "one by one" in page
    assert "hiding tokens" not in page


def test_nothing_is_written_where_no_terminal_is(llava, capsys):
    llava.trace(samples(), batch_size=2)
    assert capsys.readouterr() == ("", "")


def test_samples_may_come_from_a_generator(llava):
    whole = llava.trace(samples(), batch_size=WHOLE)
    assert_same(llava.trace((sample for sample in samples()), batch_size=2), whole)
