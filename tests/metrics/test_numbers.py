"""Whatever holds a map: the same number as a plain array of it, or an error that says what to pass."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from interp.errors import InterpError, MapError, StudyError
from interp.metrics import (
    attention_ratio,
    attention_ratio_sliding,
    auroc,
    curve_area,
    kendall,
    most_important,
    named,
    normalised,
    spearman,
    tokens_first,
)
from interp.stats import bootstrap, bootstrap_statistic, flips, holm, paired, paired_test, per_group

pytestmark = pytest.mark.usefixtures("unchecked")

MAP = [1.0, 4.0, 2.0, 1.0]
MASK = [False, True, False, False]

READ = {
    "bfloat16": torch.tensor(MAP, dtype=torch.bfloat16),
    "a tensor with a gradient": torch.tensor(MAP, requires_grad=True),
    "a list of tensors": [torch.tensor(one, dtype=torch.bfloat16) for one in MAP],
    "float16": np.array(MAP, np.float16),
    "whole numbers": [1, 4, 2, 1],
    "a column": pd.Series(MAP, index=[7, 3, 1, 0]),
    "a nullable column": pd.Series(MAP, dtype="Float64"),
    "a labelled array": xr.DataArray(MAP, dims="token"),
    "a masked array without masked entries": np.ma.masked_array(MAP, [0, 0, 0, 0]),
    "numpy scalars": [np.float16(one) for one in MAP],
}


@pytest.mark.parametrize("given", READ.values(), ids=READ)
def test_numbers_are_read_from(given: Any) -> None:
    assert attention_ratio(given, MASK) == 2.0
    assert tokens_first(given).tolist()[:2] == [1, 2]
    assert bootstrap(given, None).mean == 2.0


REFUSED = {
    "masked": (np.ma.masked_array(MAP, [0, 1, 0, 0]), "masked array with 1 masked entries.*filled"),
    "masked inside a list": ([np.ma.masked_array(MAP, [0, 1, 0, 0])], "masked array with 1 masked entries"),
    "a masked scalar": ([1.0, np.ma.masked, 2.0, 1.0], "masked array with 1 masked entries"),
    "text": (["1", "4", "2", "1"], "Pass real numbers"),
    "one text": ("1421", "Pass real numbers"),
    "complex": ([1j, 2, 3, 4], "got complex128"),
    "a complex tensor": (torch.tensor([1j, 2, 3, 4]), "got complex64"),
    "ragged": ([[1.0, 2.0], [3.0]], "Pass real numbers, as an array or as lists of equal lengths"),
    "ragged tensors": ([torch.ones(2), torch.ones(3)], "lists of equal lengths"),
    "objects": ([1, 2, object(), 4], "got object"),
    "too large a number": ([1, 2, 3, 10**400], "got object"),
    "a mapping": ({0: 1.0, 1: 2.0}, "got a dict, which has no order"),
    "a set": ({1.0, 2.0}, "got a set, which has no order"),
    "dates": (np.array(["2020-01-01"] * 4, "datetime64[D]"), "got datetime64"),
    "a generator": ((one for one in MAP), "got object"),
    "a tensor without data": (torch.ones(4, device="meta"), "is no array"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_no_numbers_are_read_from(given: Any, message: str) -> None:
    with pytest.raises(MapError, match=message):
        attention_ratio(given, MASK)
    with pytest.raises(MapError, match=message):
        tokens_first(given)
    with pytest.raises(StudyError, match=message):
        bootstrap(given, None)


def test_none_is_undefined_in_statistics_and_refused_in_maps() -> None:
    found = bootstrap([1.0, None, 3.0, pd.NA], None)
    assert (found.mean, found.n, found.n_nan) == (2.0, 2, 2)
    assert bootstrap([Fraction(1, 2), None], None).mean == 0.5
    with pytest.raises(MapError, match="got object"):
        attention_ratio([1.0, None, 2.0, 1.0], MASK)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ma.masked_array(MASK, [0, 0, 1, 0]), "a mask is bool.*1 masked entries"),
        ([0.0, 2.0, 0.0, 0.0], "got dtype float64"),
        ([0, 1, 0, 0], "got dtype int64"),
        (["", "x", "", ""], "got dtype <U1"),
        (pd.Series([True, None, False, False], dtype="boolean"), "got dtype object"),
        (True, "same image tokens"),
        ([[True], [True, False]], "lists of equal lengths"),
    ],
    ids=str,
)
def test_a_mask_that_is_none(mask: Any, message: str) -> None:
    with pytest.raises(MapError, match=message):
        auroc(MAP, mask)


@pytest.mark.parametrize(
    "mask",
    [torch.tensor(MASK), pd.Series(MASK), pd.Series(MASK, dtype="boolean"), xr.DataArray(MASK, dims="token")],
    ids=lambda mask: f"{type(mask).__name__} {mask.dtype}",
)
def test_a_mask_of_another_kind(mask: Any) -> None:
    assert attention_ratio(MAP, mask) == 2.0


def test_tokens_are_found_by_name_and_put_last() -> None:
    maps = np.random.default_rng(0).random((4, 3))
    labelled = xr.DataArray(maps, dims=["token", "layer"])
    np.testing.assert_array_equal(attention_ratio(labelled, MASK), attention_ratio(maps.T, MASK))


def test_axes_that_would_be_matched_with_others_are_refused() -> None:
    maps = xr.DataArray(np.ones((2, 2, 4)), dims=["layer", "head", "token"])
    mask = xr.DataArray(np.tile(MASK, (2, 1)), dims=["layer", "token"])
    with pytest.raises(MapError, match=r"puts 'head' beside 'layer'\. Transpose or expand"):
        attention_ratio(maps, mask)
    assert attention_ratio(maps, mask.expand_dims("head", axis=1)).shape == (2, 2)


def test_labels_in_another_order_are_refused() -> None:
    turned = xr.DataArray(MAP, dims="token", coords={"token": [3, 2, 1, 0]})
    mask = xr.DataArray(MASK, dims="token", coords={"token": [0, 1, 2, 3]})
    with pytest.raises(MapError, match=r"different labels along 'token'.*xarray\.align"):
        attention_ratio(turned, mask)
    assert attention_ratio(turned[::-1], mask) == attention_ratio(MAP[::-1], MASK)
    assert attention_ratio(pd.Series(MAP, index=[3, 2, 1, 0]), pd.Series(MASK, index=[3, 2, 1, 0])) == 2.0
    with pytest.raises(MapError, match=r"index differ.*to_numpy"):
        attention_ratio(pd.Series(MAP, index=[3, 2, 1, 0]), pd.Series(MASK))


@pytest.mark.parametrize(
    "grid",
    [(2.5, 2), "22", ("2", "2"), (-2, -2), (2, 2, 1), 5, (True, 4), (0, 4), {2, 1}, [[2, 2]], (None, 4)],
)
def test_a_grid_that_is_none(grid: Any) -> None:
    with pytest.raises(MapError, match="token grid is two whole numbers above 0"):
        attention_ratio_sliding(MAP, MASK, grid)


@pytest.mark.parametrize("grid", [[2, 2], np.array([2, 2]), (np.int32(2), 2)], ids=repr)
def test_a_grid_of_another_kind(grid: Any) -> None:
    assert attention_ratio_sliding(MAP, MASK, grid) == attention_ratio_sliding(MAP, MASK, (2, 2))


NOT_ALIKE: dict[str, tuple[Any, type[InterpError], str]] = {
    "a seed of text": (lambda: tokens_first(MAP, seed="x"), MapError, "seed is a whole number of at least 0; got 'x'"),
    "a seed below 0": (lambda: most_important(MAP, [0.5], seed=-1), MapError, "seed is a whole number"),
    "fractions of text": (lambda: most_important(MAP, "half"), MapError, "fractions are a list of numbers"),
    "least": (lambda: normalised([0.5], 1.0, 0.0, least="x"), MapError, "least is a number ≥ 0; got 'x'"),
    "a curve": (lambda: curve_area([0, 1], ["a", "b"]), MapError, "values of the target are real numbers"),
    "a rank": (lambda: spearman(MAP, ["a"] * 4), MapError, "a map is one number per token"),
    "a second rank": (lambda: kendall(MAP, {1, 2}), MapError, "got a set"),
    "a metric": (lambda: named(3), StudyError, "metrics are named .*; got 3"),
    "metrics": (lambda: named([["ar"]]), StudyError, r"got \['ar'\]"),
    "n": (lambda: bootstrap(MAP, None, n="x"), StudyError, "n is a number of resamplings, 1 to 10,000,000"),
    "half an n": (lambda: bootstrap(MAP, None, n=2.5), StudyError, "n is a number of resamplings, 1 to 10,000,000"),
    "a level": (lambda: bootstrap(MAP, None, level="x"), StudyError, "level between 0 and 1"),
    "a seed": (lambda: bootstrap(MAP, None, seed=1.5), StudyError, "seed is a whole number"),
    "n of a test": (lambda: paired_test(MAP, MAP, None, n=1.5), StudyError, "n ≥ 1 arrangements"),
    "a pair": (lambda: paired(MAP, "abcd", None), StudyError, "values are one number for each row"),
    "p-values": (lambda: holm(["0.1"]), StudyError, "p-values are one list of numbers"),
    "marks": (lambda: flips([1, 0], ["1", "0"]), StudyError, "marks are 1 for right"),
    "a statistic": (lambda: bootstrap_statistic("mean", [MAP], None), StudyError, "a function of columns"),
    "groups of text": (lambda: bootstrap(MAP, "abcd"), StudyError, "one label for each row; got 'abcd'"),
    "groups by row": (lambda: bootstrap(MAP, dict.fromkeys(range(4), "a")), StudyError, "one label for each row"),
    "lists as groups": (lambda: bootstrap(MAP, [["a"], ["b"], ["c"], ["d"]]), StudyError, "labels that are none"),
    "masked groups": (
        lambda: bootstrap(MAP, np.ma.masked_array([1, 1, 2, 2], [0, 1, 0, 0])), StudyError, "1 masked entries",
    ),
    "no groups": (lambda: per_group(MAP, None), StudyError, "per_group needs the group of each row"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), NOT_ALIKE.values(), ids=NOT_ALIKE)
def test_other_arguments_that_are_none(call: Any, error: type[InterpError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "groups", [torch.tensor([5, 5, 6, 6]), [torch.tensor(n) for n in (5, 5, 6, 6)]], ids=["one", "list"]
)
def test_groups_of_a_tensor_are_its_numbers(groups: Any) -> None:
    assert bootstrap(MAP, groups).n_groups == 2
