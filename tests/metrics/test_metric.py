"""What holds for every metric: the table itself, invariances, ranges, even maps, undefined cases, errors."""

from __future__ import annotations

import inspect
import math
import pickle

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import interp.metrics
from interp.errors import MapError, StudyError
from interp.metrics import METRICS, named
from interp.metrics.map_and_mask import check

NAMES = ["ar", "ar_sliding", "kl", "js", "kl_gain", "pointing", "iou", "auroc", "ap"]
EVERY = pytest.mark.parametrize("metric", list(METRICS.values()), ids=list(METRICS))
ROWS, COLS = 4, 5
N = ROWS * COLS


@st.composite
def cases(draw):
    """A non-negative map on a 4×5 grid, often with ties and zeros, and a rectangular box on it."""
    kind = draw(st.sampled_from(["smooth", "tied", "sparse"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = {
        "smooth": rng.random(N) + 1e-3,
        "tied": rng.integers(1, 4, N).astype(float),
        "sparse": np.where(rng.random(N) < 0.3, rng.random(N), 0.0),
    }[kind]
    values[draw(st.integers(0, N - 1))] += 1.0
    y0, x0 = draw(st.integers(0, ROWS - 2)), draw(st.integers(0, COLS - 2))
    y1, x1 = draw(st.integers(y0 + 1, ROWS - 1)), draw(st.integers(x0 + 1, COLS - 1))
    mask = np.zeros((ROWS, COLS), bool)
    mask[y0:y1, x0:x1] = True
    return values, mask.ravel()


def test_the_table_names_every_metric_and_says_how_to_read_it():
    assert list(METRICS) == NAMES
    assert [name for name, metric in METRICS.items() if metric.better == "lower"] == ["kl", "js"]
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.chance
        assert metric.label
        assert metric.formula
        assert getattr(interp.metrics, metric.function.__name__) is metric.function
        takes_grid = "grid" in inspect.signature(metric.function).parameters
        assert metric.needs_grid == takes_grid
        assert pickle.loads(pickle.dumps(metric)) == metric


def test_named_keeps_the_order_and_names_what_it_does_not_know():
    assert [metric.name for metric in named(("kl_gain", "ar"))] == ["kl_gain", "ar"]
    assert named("js") == (METRICS["js"],)
    with pytest.raises(StudyError, match=r"named ar, ar_sliding, kl, .* ap; got 'attention_ratio'"):
        named(["ar", "attention_ratio"])
    with pytest.raises(StudyError, match="named once; got ar, js, ar"):
        named(["ar", "js", "ar"])


@EVERY
@given(case=cases(), scale=st.sampled_from([1e-12, 1e-9, 0.3, 17.0, 1e9]))
@settings(max_examples=25, deadline=None)
def test_scaling_a_map_changes_nothing(metric, case, scale):
    values, mask = case
    expected = metric(values, mask, (ROWS, COLS))
    np.testing.assert_allclose(metric(values * scale, mask, (ROWS, COLS)), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ar_sliding"])
@given(case=cases(), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_tokens_does_not_matter(name, case, seed):
    values, mask = case
    order = np.random.default_rng(seed).permutation(N)
    expected = METRICS[name](values, mask)
    np.testing.assert_allclose(METRICS[name](values[order], mask[order]), expected, rtol=1e-9, atol=1e-12)


@EVERY
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_values_stay_in_the_documented_range(metric, case):
    values, mask = case
    size = mask.sum()
    low, high = {
        "ar": (0, N / size),
        "ar_sliding": (0, N),
        "kl": (0, math.log(1e12 / size)),
        "js": (0, math.log(2)),
        "kl_gain": (math.log(N / 1e12), math.log(N / size)),
    }.get(metric.name, (0, 1))
    score = float(metric(values, mask, (ROWS, COLS)))
    assert low - 1e-9 <= score <= high + 1e-9 or (metric.name == "ar_sliding" and math.isnan(score))


@EVERY
@given(case=cases(), level=st.sampled_from([1e-9, 1 / N, 3.0]))
@settings(max_examples=25, deadline=None)
def test_an_even_map_scores_chance(metric, case, level):
    _, mask = case
    size = mask.sum()
    share = size / N
    middle = (1 / N + 1 / size) / 2
    js = 0.5 * math.log((1 / size) / middle) + 0.5 * share * math.log((1 / N) / middle)
    js += 0.5 * (1 - share) * math.log(2)
    expected = {"kl": -math.log(share), "js": js, "pointing": share, "ap": share, "iou": share / (2 - share)}
    score = metric(np.full(N, level), mask, (ROWS, COLS))
    np.testing.assert_allclose(score, expected.get(metric.name, metric.chance_value), rtol=1e-9, atol=1e-12)


@EVERY
@given(case=cases())
@settings(max_examples=25, deadline=None)
def test_moving_mass_into_the_box_never_makes_a_score_worse(metric, case):
    values, mask = case
    better = np.where(mask, values * 2.0, values)
    before, after = (float(metric(v, mask, (ROWS, COLS))) for v in (values, better))
    sign = 1 if metric.better == "higher" else -1
    assert math.isnan(before) or sign * (after - before) >= -1e-9


@EVERY
def test_undefined_cases_are_nan_and_leave_neighbours_alone(metric):
    good = np.linspace(1.0, 2.0, N)
    mask = np.zeros((ROWS, COLS), bool)
    mask[1:3, 1:3] = True
    mask = mask.ravel()
    spoiled = [good.copy() for _ in range(3)]
    spoiled[0][3] = np.nan
    spoiled[1][7] = np.inf
    spoiled[2][:] = 0.0
    scores = metric(np.stack([good, *spoiled, good]), mask, (ROWS, COLS))
    np.testing.assert_array_equal(np.isnan(scores), [False, True, True, True, False])
    assert scores[0] == scores[4] == metric(good, mask, (ROWS, COLS))
    for nothing_asked in (np.zeros(N, bool), np.ones(N, bool)):
        assert np.isnan(metric(good, nothing_asked, (ROWS, COLS)))


@EVERY
def test_maps_of_any_leading_axes_give_float64_of_those_axes(metric):
    rng = np.random.default_rng(3)
    maps = xr.DataArray(rng.random((2, 3, N)).astype(np.float32), dims=("layer", "head", "token"))
    mask = np.zeros((ROWS, COLS), bool)
    mask[:2, 1:3] = True
    scores = metric(maps, mask.ravel(), (ROWS, COLS))
    assert scores.shape == (2, 3)
    assert scores.dtype == np.float64
    for layer in range(2):
        for head in range(3):
            one = metric(maps[layer, head].to_numpy(), mask.ravel(), (ROWS, COLS))
            assert one.shape == ()
            np.testing.assert_allclose(scores[layer, head], one, rtol=1e-12)


@EVERY
def test_a_map_and_a_mask_that_do_not_fit_are_refused(metric):
    mask = np.arange(N) < 4
    with pytest.raises(MapError, match=r"same image tokens .* map \(19,\) and mask \(20,\).*same sample"):
        metric(np.ones(N - 1), mask, (ROWS, COLS))
    with pytest.raises(MapError, match=r"mask is bool .* got dtype float64.*coverage"):
        metric(np.ones(N), 2.0 * mask, (ROWS, COLS))
    with pytest.raises(MapError, match=r"leading axes .* map \(2, 20\) and mask \(3, 20\)"):
        metric(np.ones((2, N)), np.stack([mask] * 3), (ROWS, COLS))
    with pytest.raises(MapError, match=r"real numbers .* got complex128"):
        metric(np.ones(N, complex), mask, (ROWS, COLS))
    with pytest.raises(MapError, match="same image tokens"):
        metric(np.ones(N), np.array([True]), (ROWS, COLS))
    with pytest.raises(MapError, match="real numbers"):
        metric(np.array(1.0), mask, (ROWS, COLS))


@EVERY
@pytest.mark.parametrize("whole", [True, False])
def test_a_checked_pair_scores_as_its_maps_under_each_mask(metric, whole):
    rng = np.random.default_rng(3)
    maps, inside = rng.integers(1, 9, (4, N)) / 8, rng.random((2, N)) < 0.3
    masks = inside if whole else inside * rng.integers(1, 5, (2, N)) / 4
    maps[1], maps[2, 0] = 0.0, np.nan
    found = metric(check(maps[:, None], masks), masks, (ROWS, COLS))
    alone = [[metric(one, mask, (ROWS, COLS)) for mask in masks] for one in maps]
    np.testing.assert_allclose(found, np.array(alone), rtol=1e-12)
