"""Tokens hidden by shared prefix equal the naive loop of knockouts, in every family that has a rule of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import interp.tracing.attention.shared_keys as shared_keys
import tests.tiny as small
from interp.conformance.tiny import tiny
from interp.errors import MapError, ModelError, SiteError
from interp.indicators import HideTokens, Removal
from interp.inputs.prompt import PAPER_PROMPT, Prompt, Target, diff
from interp.tracing import Knockout, Mllm, Site, image_mask, wrap
from tests.indicators.family_models import FAMILIES, SAMPLE, family, log_p, masks


def naive(
    mllm: Mllm, removal: HideTokens, variants: np.ndarray, target: Target, prompt: Prompt
) -> list[float]:
    """One trace per variant, through the public edits; answers of several tokens are fed token by token."""
    answer = mllm.score(SAMPLE, target, prompt=prompt).aims[0].answers[0]
    queries = "last" if removal.queries == "last" else ("after_image", "answer")
    found = []
    for mask in variants:
        site = Site(layers=removal.layers, queries=queries, keys=image_mask(mask))
        edits = [Knockout(site, steps="all")] if mask.any() else []
        if target.spec == "greedy":  # what the untouched model says, not what the edited one would
            found.append(log_p(mllm.trace(SAMPLE, prompt, edits=edits).logits.values[0])[answer[0]])
        else:
            found.append(float(mllm.score(SAMPLE, target, prompt=prompt, edits=edits).values[0]))
    return found


@pytest.mark.covering
@pytest.mark.parametrize(("queries", "layers"), [("after_image", "all"), ("last", [1, 2])])
@pytest.mark.parametrize("name", FAMILIES)
def test_it_equals_the_naive_loop(name: str, queries: Any, layers: Any) -> None:
    mllm, removal = family(name), HideTokens(layers, queries)
    variants = masks(mllm.encode([SAMPLE]).tokens[0].n, 3)
    for target in (
        Target(),
        Target(diff("yes", "no") if name == "paligemma" else diff("left lung", "no"), "mean"),
    ):
        found = removal.scores(mllm, SAMPLE, variants, target=target, batch=1)
        expected = naive(mllm, removal, variants, target, PAPER_PROMPT)
        np.testing.assert_allclose(found.values, expected, atol=1e-5)
        assert found.values[0] == found.plain
        assert np.ptp(expected) > 1e-3


def test_hiding_an_image_that_follows_the_question(mllm: Mllm) -> None:
    late = Prompt(image_first=False)
    variants = masks(16, 3)
    for queries in ("after_image", "last"):
        removal = HideTokens(queries=queries)
        found = removal.scores(mllm, SAMPLE, variants, prompt=late).values
        np.testing.assert_allclose(found, naive(mllm, removal, variants, Target(), late), atol=1e-5)


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(small.llava(), small.processor())


def test_batches_and_chunks_change_no_number(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = masks(16, 9)
    expected = HideTokens().scores(mllm, SAMPLE, variants).values
    np.testing.assert_allclose(
        HideTokens().scores(mllm, SAMPLE, variants, batch=1).values, expected, atol=1e-5
    )
    monkeypatch.setattr(shared_keys, "TOGETHER", 60)  # two variants as one sequence, of nine
    np.testing.assert_allclose(HideTokens().scores(mllm, SAMPLE, variants).values, expected, atol=1e-5)
    by_source = HideTokens().scores(mllm.using("source"), SAMPLE, variants).values
    np.testing.assert_allclose(by_source, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_attention_written_out_agrees_with_the_fused_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fused, written = family(name), wrap(*tiny(name, "eager"))
    shapes = masks(fused.encode([SAMPLE]).tokens[0].n, 7)
    removal = HideTokens([1, 2])
    expected = removal.scores(fused, SAMPLE, shapes).values
    calls, product = [], shared_keys.SharedKeys._part
    monkeypatch.setattr(shared_keys.SharedKeys, "_part", lambda *given: calls.append(1) or product(*given))
    np.testing.assert_allclose(removal.scores(written, SAMPLE, shapes).values, expected, atol=1e-5)
    together = len(calls)
    monkeypatch.setattr(shared_keys, "CHUNK_BYTES", 1)
    np.testing.assert_allclose(removal.scores(written, SAMPLE, shapes, batch=6).values, expected, atol=1e-5)
    assert (together, len(calls) - together) == (2, 2 * 6)  # layers, times the variants that hide something


def test_a_variant_costs_the_rows_after_what_is_shared(mllm: Mllm) -> None:
    tokens = mllm.encode([SAMPLE]).tokens[0]
    rows = len(tokens.positions("after_image"))
    every = HideTokens().scores(mllm, SAMPLE, np.eye(16, dtype=bool), batch=4).cost
    assert (every.forwards, every.tokens) == (5, tokens.length + 16 * rows)
    last = HideTokens(queries="last").scores(mllm, SAMPLE, np.eye(16, dtype=bool), batch=1).cost
    assert (last.forwards, last.tokens) == (2, tokens.length + 16)  # short variants go together
    nothing = HideTokens().scores(mllm, SAMPLE, np.zeros((3, 16), bool)).cost
    assert nothing.forwards == 1


def test_it_describes_itself_and_refuses_what_makes_no_sense(mllm: Mllm, unchecked: None) -> None:
    removal = HideTokens([2, 1], "last")
    assert removal.to_dict() == {"removal": "hide_tokens", "layers": [2, 1], "queries": "last"}
    assert isinstance(removal, Removal)
    assert hash(removal) == hash(HideTokens((2, 1), "last"))
    with pytest.raises(SiteError, match="queries of HideTokens is 'after_image' or 'last'; got 'question'"):
        HideTokens(queries="question")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SiteError, match="the model has 3 layers"):
        HideTokens([7]).scores(mllm, SAMPLE, masks(16))
    with pytest.raises(
        MapError, match=r"one column for each of the sample's 16 image tokens.*float64 of shape \(2, 9\)"
    ):
        HideTokens().scores(mllm, SAMPLE, np.ones((2, 9)))
    with pytest.raises(MapError, match="batch is a whole number of at least 1; got 0"):
        HideTokens().scores(mllm, SAMPLE, masks(16), batch=0)
    with pytest.raises(ModelError, match="lets every row of its prompt see the whole prompt"):
        HideTokens().scores(family("paligemma"), SAMPLE, masks(16)[:, :4], target=Target("left lung"))
