"""Metrics of a mask of fractions against the same metric on the pixels of the tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import metrics
from interp.errors import MapError

PIXELS = 4  # a token
COMMON = (
    "attention_ratio",
    "kl_divergence",
    "kl_gain",
    "js_divergence",
    "pointing_game",
    "auroc",
    "average_precision",
)


@st.composite
def maps_and_counts(draw) -> tuple[np.ndarray, np.ndarray]:
    """A map with ties, and how many of each token's pixels are inside: some, but not all."""
    n = draw(st.integers(2, 8))
    values = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), float)
    counts = np.array(draw(st.lists(st.integers(0, PIXELS), min_size=n, max_size=n)))
    if not values.any():
        values[0] = 1.0
    if not counts.any() or (counts == PIXELS).all():
        counts[0], counts[1] = 0, 1
    return values, counts


def on_pixels(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map painted on the pixels, and which of them are inside."""
    return np.repeat(values, PIXELS), np.concatenate([np.arange(PIXELS) < count for count in counts])


@pytest.mark.parametrize("name", ["attention_ratio", "pointing_game", "auroc", "average_precision"])
@settings(max_examples=40, deadline=None)
@given(given_=maps_and_counts())
def test_fractions_score_as_their_pixels(name: str, given_) -> None:
    values, counts = given_
    metric = getattr(metrics, name)
    assert metric(values, counts / PIXELS) == pytest.approx(
        float(metric(*on_pixels(values, counts))), abs=1e-9
    )


@settings(max_examples=40, deadline=None)
@given(given_=maps_and_counts())
def test_divergences_follow_their_formulas(given_) -> None:
    values, counts = given_
    share, wanted = values / values.sum(), counts / counts.sum()
    used = wanted > 0
    kl = sum(w * np.log(w / max(s, 1e-12)) for w, s in zip(wanted[used], share[used], strict=True))
    even = sum(w * np.log(w * len(values)) for w in wanted[used])
    middle = (share + wanted) / 2
    js = sum(s * np.log(s / m) for s, m in zip(share, middle, strict=True) if s > 0) / 2
    js += sum(w * np.log(w / m) for w, m in zip(wanted, middle, strict=True) if w > 0) / 2
    fractions = counts / PIXELS
    assert float(metrics.kl_divergence(values, fractions)) == pytest.approx(max(kl, 0), abs=1e-9)
    assert float(metrics.kl_gain(values, fractions)) == pytest.approx(even - max(kl, 0), abs=1e-9)
    assert float(metrics.js_divergence(values, fractions)) == pytest.approx(js, abs=1e-9)


@pytest.mark.parametrize("name", [*COMMON, "box_iou"])
@settings(max_examples=30, deadline=None)
@given(given_=maps_and_counts())
def test_whole_fractions_score_as_a_bool_mask(name: str, given_) -> None:
    values, counts = given_
    inside = counts > 0
    if inside.all():
        inside[0] = False
    metric = getattr(metrics, name)
    np.testing.assert_allclose(metric(values, inside.astype(float)), metric(values, inside), atol=1e-12)


def test_iou_keeps_a_part_of_the_last_token() -> None:
    # |B| = 1.5: the first token whole and half of the second; common 0.5·1 + 1·0.5 = 1 of 2·1.5 − 1
    assert float(metrics.box_iou([3.0, 2.0, 1.0], [0.5, 1.0, 0.0])) == pytest.approx(0.5)


def test_sliding_ratio_takes_fractions() -> None:
    whole = metrics.attention_ratio_sliding([3.0, 1.0, 2.0], [True, False, False], (1, 3))
    half = metrics.attention_ratio_sliding([3.0, 1.0, 2.0], [0.5, 0.0, 0.0], (1, 3))
    assert float(half) == pytest.approx(float(whole))


def test_empty_and_full_fractions_have_no_value() -> None:
    assert np.isnan(metrics.auroc([1.0, 2.0], [0.0, 0.0]))
    assert np.isnan(metrics.auroc([1.0, 2.0], [1.0, 1.0]))


def test_numbers_beyond_fractions_are_refused() -> None:
    with pytest.raises(MapError, match=r"fractions in \[0, 1\] of each token inside; got dtype float64"):
        metrics.auroc([1.0, 2.0], [0.0, 1.5])
    with pytest.raises(MapError, match=r"got dtype int64. Make one with tokens.mask"):
        metrics.auroc([1.0, 2.0], [0, 1])
