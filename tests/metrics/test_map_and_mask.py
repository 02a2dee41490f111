"""Signed weights: refused as a distribution, ranked as they are, and their positive part on request."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from interp.errors import MapError
from interp.metrics import METRICS, positive_part

MASK = np.array([True, False, False, False])
SIGNED = xr.DataArray([4.0, -1.0, 0.0, 4.0], dims="token", name="linear attention", attrs={"signed": True})
RANKS = ("pointing", "iou", "auroc", "ap")


@pytest.mark.parametrize("name", [name for name in METRICS if name not in RANKS])
def test_signed_weights_are_no_distribution(name: str) -> None:
    metric, positive = METRICS[name], positive_part(SIGNED)
    with pytest.raises(MapError, match=r"the weights of 'linear attention' are signed \(the least is -1\)"):
        metric(SIGNED, MASK, (2, 2))
    assert metric(positive, MASK, (2, 2)) == metric([4.0, 0.0, 0.0, 4.0], MASK, (2, 2))
    assert positive.attrs["signed"] is False
    assert positive.name == "positive part of linear attention"
    unlabelled = SIGNED.assign_attrs(signed=False)
    assert metric(unlabelled, MASK, (2, 2)) == metric(positive, MASK, (2, 2))
    above = SIGNED.clip(min=0).assign_attrs(signed=True)
    assert metric(above, MASK, (2, 2)) == metric(positive, MASK, (2, 2))


@pytest.mark.parametrize("name", RANKS)
def test_signed_weights_are_ranked_as_they_are(name: str) -> None:
    assert METRICS[name](SIGNED, MASK) == METRICS[name](SIGNED.values, MASK)
    assert METRICS["auroc"](SIGNED, MASK) == pytest.approx(2.5 / 3)  # above two, tied with one


def test_the_positive_part_of_an_array_is_an_array() -> None:
    weights = np.array([[0.5, -0.25], [np.nan, 0.0]])
    np.testing.assert_array_equal(positive_part(weights), [[0.5, 0.0], [np.nan, 0.0]])
    assert weights[0, 1] == -0.25
    named = SIGNED.assign_coords(token=[4, 5, 6, 7])
    found = positive_part(named)
    assert found.values.tolist() == [4, 0, 0, 4]
    assert found["token"].values.tolist() == [4, 5, 6, 7]
    assert named.values.tolist() == [4, -1, 0, 4]
    assert named.attrs["signed"] is True
    assert positive_part(SIGNED.rename(None)).name == "positive part of a map"
    with pytest.raises(MapError, match="positive_part takes an array of real numbers"):
        positive_part(np.array(["a"]))


def test_axes_without_a_name_are_matched_from_the_last() -> None:
    maps = xr.DataArray(np.arange(8.0).reshape(2, 4))
    mask = xr.DataArray(np.stack([MASK, MASK[::-1]]), dims=["layer", "token"])
    plain = METRICS["auroc"](maps.values, mask.values)
    np.testing.assert_array_equal(METRICS["auroc"](maps, mask), plain)
    single = xr.DataArray(MASK[None], dims=["sample", "token"])  # of length 1, so it fits any axis
    named = xr.DataArray(maps.values, dims=["layer", "token"])
    np.testing.assert_array_equal(METRICS["auroc"](named, single), METRICS["auroc"](maps.values, MASK))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_changes_neither_map_nor_mask(name: str) -> None:
    weights, mask = np.array([2.0, -1.0, np.nan, 4.0]), np.array([0.5, 0.0, 0.0, 0.0])
    maps = np.stack([weights, np.array([3.0, 1.0, 0.0, 2.0])])
    METRICS[name](maps, mask, (2, 2))
    np.testing.assert_array_equal(maps, [[2, -1, np.nan, 4], [3, 1, 0, 2]])
    np.testing.assert_array_equal(mask, [0.5, 0, 0, 0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("mask", [True, np.array(True), np.float64(0.5)])
def test_one_number_is_no_mask(mask: object) -> None:
    with pytest.raises(
        MapError, match=r"the same image tokens on their last axis; got map \(4,\) and mask \(\)"
    ):
        METRICS["ar"]([1.0, 2.0, 3.0, 4.0], mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ar", "kl", "kl_gain", "js"])
def test_a_map_without_mass_has_no_distribution(name: str) -> None:
    """Beside a map that has some: the second, of no value above 0, is undefined."""
    found = METRICS[name](
        np.array([[2.0, -1.0, 1.0, 4.0], [-2.0, -1.0, 0.0, -4.0]]), np.array([True, *[False] * 3])
    )
    assert np.isnan(found).tolist() == [False, True]


def test_an_index_matters_only_where_both_have_one() -> None:
    mask = [True, False, False, False]
    labelled = pd.Series(mask, index=[9, 8, 7, 6])
    for given in ([1.0, 2.0, 3.0, 2.0], np.array([1.0, 2.0, 3.0, 2.0])):
        assert float(METRICS["ar"](given, labelled)) == float(METRICS["ar"](given, mask)) == 0.5
    assert float(METRICS["ar"](pd.Series([1.0, 2.0, 3.0, 2.0], index=[9, 8, 7, 6]), mask)) == 0.5
