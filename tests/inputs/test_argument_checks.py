"""Arguments at the edges of what is allowed, and what an error says of the others."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from interp.errors import MapError, StudyError
from interp.inputs.argument_checks import check_bool, check_number, check_one_of, check_text, check_whole


@pytest.mark.parametrize("value", [0, 1, None, "True", np.True_])
def test_only_true_and_false_are_bools(value: Any) -> None:
    check_bool("all", False)
    with pytest.raises(StudyError, match=r"^all is True or False; got "):
        check_bool("all", value, StudyError)


@pytest.mark.parametrize("value", ["tokn", "TOKEN", 3, None, ["token"]])
def test_only_a_known_name_is_one_of_them(value: Any) -> None:
    check_one_of("by", "layer", ["token", "layer"])
    with pytest.raises(MapError, match=r"^by is 'token' or 'layer'; got "):
        check_one_of("by", value, iter(["token", "layer"]))


def test_a_misspelt_name_is_met_with_the_one_meant() -> None:
    with pytest.raises(MapError, match=r"got 'tokn'\..*'token'"):
        check_one_of("by", "tokn", ["layer", "token"])


def test_text_that_no_file_takes_is_named() -> None:
    check_text("question", "naïve\n文")
    with pytest.raises(StudyError, match=r"^question holds the lone surrogate .*Read it as UTF-8"):
        check_text("question", "a\ud83d", StudyError)


def test_whole_numbers_include_their_bounds() -> None:
    for value in (2, np.int64(2), 5, np.uint8(5)):
        found = check_whole("n", value, 2, most=5)
        assert (found, type(found)) == (int(value), int)
    assert check_whole("n", 10**30, 2) == 10**30


@pytest.mark.parametrize("value", [1, 6, True, 2.0, "3", None, np.float64(3), -3])
def test_other_numbers_are_not_whole_ones(value: Any) -> None:
    with pytest.raises(MapError, match=r"^n is a whole number of at least 2 and at most 5; got "):
        check_whole("n", value, 2, most=5)
    with pytest.raises(StudyError, match=r"^n is a whole number of at least 7; got "):
        check_whole("n", value, 7, StudyError)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1), Fraction(1, 2)])
def test_numbers_include_closed_bounds(value: Any) -> None:
    found = check_number("share", value, low=0, high=1)
    assert (found, type(found)) == (float(value), float)


@pytest.mark.parametrize(
    ("value", "bounds", "wanted"),
    [
        (0, {"low": 0, "open_low": True}, "a finite number above 0"),
        (1, {"high": 1, "open_high": True}, "a finite number below 1"),
        (-0.1, {"low": 0}, "a finite number of at least 0"),
        (1.5, {"high": 1}, "a finite number at most 1"),
        (1.5, {"low": 0.25, "high": 1}, "a finite number of at least 0.25 and at most 1"),
        (0.0, {"low": 0, "high": 1, "open_low": True, "open_high": True}, "a finite number above 0 and below 1"),
        (1.0, {"low": 0, "high": 1, "open_low": True, "open_high": True}, "a finite number above 0 and below 1"),
        *((value, {}, "a finite number") for value in (np.nan, np.inf, -np.inf, 10**400, True, "1", None, 1j)),
    ],
)  # fmt: skip
def test_numbers_outside_are_told_the_bounds(value: Any, bounds: dict[str, Any], wanted: str) -> None:
    with pytest.raises(StudyError, match=f"^share is {wanted}; got "):
        check_number("share", value, **bounds, error=StudyError)


def test_open_bounds_let_their_neighbours_pass() -> None:
    for value in (np.nextafter(0, 1), np.nextafter(1, 0)):
        assert check_number("share", value, low=0, high=1, open_low=True, open_high=True) == value
    assert check_number("gamma", -1e300) == -1e300
