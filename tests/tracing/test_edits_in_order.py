"""Several edits of one layer: each is applied, in the order of the list, and each sample has its own values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tests.tiny as tiny
from interp.tracing import (
    AblateHeads,
    AddResidual,
    Boost,
    Knockout,
    Mllm,
    PatchResidual,
    PatchRows,
    Residual,
    Rows,
    ScaleScores,
    ScaleWeights,
    Site,
    positions,
)

ONE = Site(layers=[1], keys="all")
LAST = Residual([1], "last")


def rows(mllm: Mllm, *edits: Any) -> np.ndarray:
    """The last row of layer 1 of one sample."""
    return mllm.trace(tiny.sample(), reads=[Rows(ONE)], edits=edits)[0].rows.values


def stream(mllm: Mllm, *edits: Any) -> np.ndarray:
    return mllm.trace(tiny.sample(), reads=[LAST], edits=edits)[0].residual.values[0, 0]


def test_edits_of_weights_are_applied_in_turn(mllm: Mllm) -> None:
    plain, scale = rows(mllm), ScaleWeights(ONE, 3)
    patch = PatchRows(ONE, np.full(plain.shape, 0.01))
    assert_allclose(rows(mllm, patch, scale), 0.03, atol=1e-7)
    assert_allclose(rows(mllm, scale, patch), 0.01, atol=1e-7)
    first = Knockout(Site(layers=[1], keys=positions([0])), "zero")
    found = rows(mllm, first, scale, scale)
    assert not found[..., 0].any()
    assert_allclose(found[..., 1:], 9 * plain[..., 1:], rtol=1e-5)


def test_edits_of_scores_are_applied_in_turn(mllm: Mllm) -> None:
    """Twice e + |e| of −e is not the other way round; two scales are their product."""
    assert_allclose(
        rows(mllm, ScaleScores(ONE, 2), ScaleScores(ONE, 3)), rows(mllm, ScaleScores(ONE, 6)), atol=1e-5
    )
    boosts = [Boost(ONE, 0.5), Boost(ONE, -3)]
    there, back = rows(mllm, *boosts), rows(mllm, *boosts[::-1])
    assert np.abs(there - back).max() > 1e-2


def test_knockouts_hide_what_any_of_them_hides(mllm: Mllm) -> None:
    apart = [
        Knockout(Site(layers=[1], heads=heads, keys=positions(at)))
        for heads, at in (([0], [4]), ("all", [7, 8]))
    ]
    found = rows(mllm, *apart)[0]
    assert not found[:, 0, [7, 8]].any()
    assert (found[:, 0, 4] == 0).tolist() == [True, False, False, False]
    assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_edits_of_a_stream_are_applied_in_turn(mllm: Mllm) -> None:
    plain, vector = stream(mllm), np.linspace(-1, 1, 64)
    add, patch = AddResidual([1], "last", vector), PatchResidual([1], "last", np.full((1, 1, 64), 5.0))
    assert_allclose(stream(mllm, add, AddResidual([1], "last", vector, -3)), plain - 2 * vector, atol=1e-5)
    assert_allclose(stream(mllm, add, patch), 5.0, atol=1e-6)
    assert_allclose(stream(mllm, patch, add), 5 + vector, atol=1e-5)


@pytest.mark.parametrize("steps", ["prefill", "all"])
def test_heads_ablated_apart_are_heads_ablated_together(mllm: Mllm, steps: Any) -> None:
    site, means = Site(heads=[(1, 0), (1, 2)]), np.random.default_rng(0).normal(size=(2, 16))
    together = mllm.trace(tiny.samples(), edits=[AblateHeads(site, "mean", means, steps)], generate=3)
    edits = [
        AblateHeads(Site(heads=[pair]), "mean", means[i : i + 1], steps)
        for i, pair in enumerate(site.pairs or ())
    ]
    apart = mllm.trace(tiny.samples(), edits=edits, generate=3)
    assert_allclose(apart.logits, together.logits, atol=1e-5)
    assert apart.answers == together.answers
    alone = mllm.trace(tiny.samples(), edits=edits[:1])
    assert np.abs(alone.logits - together.logits).max() > 1e-3


def test_each_sample_has_its_own_means(mllm: Mllm) -> None:
    draw, given = np.random.default_rng(0), tiny.samples()
    site, means = Site(layers=[2, 1], heads=[3, 0]), [draw.normal(size=(2, 2, 16)) for _ in given]
    found = mllm.trace(given, edits=[AblateHeads(site, "mean", means)])
    small = mllm.trace(given, edits=[AblateHeads(site, "mean", means)], batch_size=1)
    assert_allclose(small.logits, found.logits, atol=1e-5)
    for i, sample in enumerate(given):
        alone = mllm.trace(sample, edits=[AblateHeads(site, "mean", means[i])])
        assert_allclose(found.logits[i], alone.logits[0], atol=1e-5)
    turned = [one[::-1][:, ::-1] for one in means]
    other = mllm.trace(given, edits=[AblateHeads(Site(layers=[1, 2], heads=[0, 3]), "mean", turned)])
    assert_allclose(other.logits, found.logits, atol=1e-5)
