"""Knockouts in gated DeltaNet layers: a token's write erased for some rows, against the recurrence in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import interp
from interp.conformance.tiny import tiny
from interp.errors import EditError
from interp.tracing import Knockout, Mllm, Rows, Site
from interp.tracing.cost import Meter
from interp.tracing.variants.knockouts import Knockouts, KnockoutVariant
from tests.tiny import uneven_samples as samples
from tests.tracing.naive_delta import Erase, written_out

N = 3


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return interp.wrap(*tiny("qwen3_5"))


@pytest.fixture(scope="module")
def plain() -> Any:
    return tiny("qwen3_5")[0]


def greedy(
    mllm: Mllm, plain: Any, sample: int, erase: Erase, n: int = N
) -> tuple[list[int], list[np.ndarray]]:
    """`n` greedy tokens of one sample without a cache, and the logits of each."""
    now = {k: v for k, v in mllm.encode(samples()[sample]).inputs.items() if k != "position_ids"}
    ids, logits = [], []
    with torch.no_grad(), written_out(plain, erase):
        for _ in range(n):
            logits.append(plain(**now, use_cache=False).logits[0, -1].numpy())
            ids.append(int(logits[-1].argmax()))
            if ids[-1] == 2:
                break
            now["input_ids"] = torch.cat([now["input_ids"], torch.tensor([ids[-1:]])], dim=1)
            now["attention_mask"] = torch.ones_like(now["input_ids"])
            now["mm_token_type_ids"] = torch.nn.functional.pad(now["mm_token_type_ids"], (0, 1))
    return ids, logits


def hidden(tokens: Any, mask: np.ndarray, n: int, queries: str, steps: str, heads: Any = None) -> np.ndarray:
    """Which tokens' writes are erased for each row, (head, row, token), by the words of `Knockout`."""
    rows = np.zeros(n, bool)
    first = {"after_image": int(tokens.image[-1]) + 1, "last": tokens.length - 1}[queries]
    if steps != "decode":
        rows[first : tokens.length] = True
    if steps != "prefill":
        rows[tokens.length :] = True
    found = np.zeros((6, n, n), bool)
    found[np.ix_(range(6) if heads is None else heads, np.flatnonzero(rows), tokens.image[mask])] = True
    return found


CASES = {
    "prompt": (("after_image",), "prefill", None),
    "all": (("after_image", "answer"), "all", None),
    "last row and answer": (("last",), "all", [1, 4]),
    "answer": (("last",), "decode", None),
}


def _by_default(executor: str, case: str) -> bool:
    return (executor, case) in {("tap", "all"), ("source", "last row and answer")}


@pytest.mark.parametrize(
    ("executor", "case"),
    [
        pytest.param(executor, case, marks=[] if _by_default(executor, case) else pytest.mark.slow)
        for executor in ("tap", "source")
        for case in CASES
    ],
)
def test_knockouts_are_the_recurrence_without_the_writes(mllm, plain, executor, case):
    queries, steps, heads = CASES[case]
    masks = [np.arange(tokens.n) % 3 > 0 for tokens in mllm.encode(samples()).tokens]
    site = Site(
        layers=[1, 4], heads="all" if heads is None else heads, queries=queries, keys=interp.image_mask(masks)
    )
    trace = mllm.using(executor).trace(samples(), edits=[Knockout(site, steps=steps)], generate=N)
    unedited = mllm.trace(samples(), generate=N)
    for i, mask in list(enumerate(masks))[::2]:

        def erase(layer: int, n: int, i: int = i, mask: np.ndarray = mask) -> np.ndarray | None:
            return hidden(trace.tokens[i], mask, n, queries[0], steps, heads) if layer in (1, 4) else None

        ids, logits = greedy(mllm, plain, i, erase)
        assert list(trace[i].ids) == ids
        assert_allclose(trace.logits[i], logits[0], atol=3e-5)
    moved = float(abs(trace.logits - unedited.logits).max())
    assert (moved > 1e-2) == (steps != "decode")


@pytest.mark.slow
def test_an_answers_later_logits_follow_the_erased_state(mllm, plain):
    """The tokens of an answer that is forced, so that rounding chooses none."""
    site = Site(layers="linear", queries="last")
    scores = mllm.score(samples(), interp.Target("red nodule lung"), edits=[Knockout(site, steps="all")])
    for i, sample in enumerate(samples()):
        tokens = mllm.encode(sample).tokens[0]
        whole = np.ones(tokens.n, bool)
        now = {k: v for k, v in mllm.encode(sample).inputs.items() if k != "position_ids"}
        ids = mllm.processor.tokenizer("red nodule lung", add_special_tokens=False)["input_ids"]
        now["input_ids"] = torch.cat([now["input_ids"], torch.tensor([ids])], dim=1)
        now["attention_mask"] = torch.ones_like(now["input_ids"])
        now["mm_token_type_ids"] = torch.nn.functional.pad(now["mm_token_type_ids"], (0, len(ids)))
        with (
            torch.no_grad(),
            written_out(
                plain, lambda _, n, tokens=tokens, whole=whole: hidden(tokens, whole, n, "last", "all")
            ),
        ):
            logits = plain(**now, use_cache=False).logits[0, -len(ids) - 1 : -1].log_softmax(-1)
        expected = float(logits[torch.arange(len(ids)), ids].sum())
        assert float(scores.values[i]) == pytest.approx(expected, abs=1e-4)


def test_rows_under_a_knockout_leave_the_erased_tokens_out(mllm, plain):
    site = Site(layers=[2], queries=("after_image", "answer"))
    trace = mllm.trace(
        samples(), reads=[Rows(Site(layers=[2], keys="all"))], edits=[Knockout(site, steps="all")], generate=N
    )
    for i, one in enumerate(trace):
        own = one.rows.sel(key=trace.tokens[i].image)
        assert (own == 0).all()
        assert float(abs(one.rows).max()) > 0


def test_a_knockout_that_hides_nothing_changes_no_bit(mllm):
    nothing = [np.zeros(tokens.n, bool) for tokens in mllm.encode(samples()).tokens]
    site = Site(layers="linear", keys=interp.image_mask(nothing))
    plain, edited = (
        mllm.trace(samples(), edits=edits, generate=N) for edits in ([], [Knockout(site, steps="all")])
    )
    assert (plain.logits == edited.logits).all()
    assert plain.answers == edited.answers


def test_a_row_may_lose_every_token(mllm, plain):
    """There is nothing to renormalise: such a row is zero."""
    trace = mllm.trace(samples()[:1], edits=[Knockout(Site(layers=[0], queries="last", keys="all"))])

    def erase(layer: int, n: int) -> np.ndarray | None:
        found = np.zeros((1, n, n), bool)
        found[:, -1] = True
        return found if layer == 0 else None

    assert_allclose(trace.logits[0], greedy(mllm, plain, 0, erase, 1)[1][0], atol=3e-5)


EDITS = {
    "Knockout with mode='zero'": Knockout(Site(layers="linear"), "zero"),
    "ScaleWeights": interp.ScaleWeights(Site(layers=[0]), 2.0),
    "ScaleScores": interp.ScaleScores(Site(layers="linear"), 2.0),
    "Boost": interp.Boost(Site(layers=[1, 2]), 0.5),
    "Guide": interp.Guide(Site(layers="linear"), 0.5),
    "PatchRows": interp.PatchRows(Site(layers=[0]), np.zeros((1, 6, 1, 12), np.float32)),
    "Apply": interp.Apply(Site(layers=[0]), lambda values, cells: values, stage="scores"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_of_a_softmax_are_refused_where_there_is_none(mllm, name):
    with pytest.raises(EditError, match=rf"^{name} changes the scores or weights of a softmax; .* linear"):
        mllm.trace(samples()[:1], edits=[EDITS[name]])


@pytest.mark.parametrize("heads", [pytest.param(None, marks=pytest.mark.slow), (1,)])
def test_variants_side_by_side_are_traces_of_their_own(mllm, heads):
    """In layers of both kinds at once, over the whole prompt and after it."""
    (tokens,) = mllm.encode(samples()[1]).tokens
    after = tuple(range(int(tokens.image[-1]) + 1, tokens.length))
    variants = [
        KnockoutVariant((2, 3), after, tuple(tokens.image[:5].tolist()), heads),
        KnockoutVariant((3, 7), (tokens.length - 1,), tuple(tokens.image.tolist()), heads),
        KnockoutVariant((4, 5, 6), after[-2:], (0, 1, int(tokens.image[3])), heads),
    ]
    knockouts = Knockouts.of(mllm, samples()[1])
    together = knockouts.run(variants)
    by_source = Knockouts.of(mllm.using("source"), samples()[1]).run(variants)
    for i, one in enumerate(variants):
        alone = mllm.trace(samples()[1], edits=one.edits("renormalise", mllm.linear_heads)).logits.values[0]
        assert np.abs(alone - knockouts.plain.logits[0]).max() > 1e-3
        assert_allclose(together.logits[i], alone, atol=3e-5)
        assert_allclose(by_source.logits[i], alone, atol=3e-5)
    assert "mode='zero'" in str(knockouts.refusal(variants[0], "zero"))


def test_token_knockout_erases_tokens_in_layers_of_every_kind(mllm):
    """As edits of a trace: hidden from attention, and not written, for every row after the image."""
    sample = samples()[0]
    (tokens,) = mllm.encode(sample).tokens
    target = interp.Target("yes")
    found = interp.indicators.TokenKnockout()(mllm, [sample], target=target)[0]
    only = interp.indicators.TokenKnockout(layers="attention")(mllm, [sample], target=target)[0]
    before = mllm.score(sample, target).values[0]
    for place in (0, tokens.n - 1):
        key = interp.positions([int(tokens.image[place])])
        attention, linear = (
            Knockout(Site(layers=kind, queries="after_image", keys=key)) for kind in ("attention", "linear")
        )
        both = mllm.score(sample, target, edits=[attention, linear]).values[0]
        assert float(found[place]) == pytest.approx(float(before - both), abs=2e-5)
        one = mllm.score(sample, target, edits=[attention]).values[0]
        assert float(only[place]) == pytest.approx(float(before - one), abs=2e-5)
    assert float(abs(found - only).max()) > 1e-3


def test_a_kept_pass_cannot_erase_what_a_prefix_holds(mllm):
    from interp.tracing.variants.cached_pass import KeptPass

    prefix = mllm.prefix(samples()[0])
    kept = KeptPass.of(mllm, prefix.batch, Meter(mllm.device), before=prefix)
    keys = torch.ones(1, kept.tokens.length, dtype=torch.bool)
    cells = kept.hiding(keys, kept.first, kept.first, [0])
    with pytest.raises(EditError, match=r"layer 0 is linear .* name attention layers"):
        kept.run(1, kept.first, Meter(mllm.device), hidden=cells)
