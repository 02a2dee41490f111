"""The maps that a study of head roles borrows, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from interp.errors import ImageTokenMismatch
from interp.study.head_roles.task import HeadRolesTask, row_measures

pytestmark = pytest.mark.usefixtures("unchecked")


def borrowed(bad: set[str], lenders: dict[int, int | None]) -> tuple[list[Any], list[list[str]]]:
    """The maps of samples 5, 6 and 7, where some borrowed images cannot be encoded, and what was traced."""
    traced: list[list[str]] = []

    def keep(samples: list[str], places: list[int], found: list[Any], costs: list[float]) -> None:
        traced.append(samples)
        if bad & {*samples}:
            raise ImageTokenMismatch("no")
        for place, one in zip(places, samples, strict=True):
            found[place] = f"map of {one}"

    own: Any = SimpleNamespace(
        _lender=lenders.get, _swapped=lambda index: f"on {lenders[index]}", _keep_maps=keep
    )
    return HeadRolesTask._borrowed(own, (5, 6, 7), []), traced


def test_an_image_that_cannot_be_borrowed_costs_no_other() -> None:
    found, traced = borrowed({"on 2"}, {5: 1, 6: 2, 7: 3})
    assert found == ["map of on 1", None, "map of on 3"]
    assert traced == [["on 1", "on 2", "on 3"], ["on 1"], ["on 2"], ["on 3"]]


def test_a_sample_without_a_lender_keeps_its_place() -> None:
    found, traced = borrowed(set(), {5: None, 6: 2, 7: 3})
    assert found == [None, "map of on 2", "map of on 3"]
    assert traced == [["on 2", "on 3"]]
    assert borrowed(set(), dict.fromkeys((5, 6, 7))) == ([None] * 3, [])


def test_the_position_needs_as_many_tokens_on_both_images() -> None:
    rows = np.array([[[0.25, 0.5, 0.25]]])
    image = np.array([1, 2])
    same = row_measures(rows, image, np.array([[[0.5, 0.25]]]))
    assert same["position"] == pytest.approx(1.0)  # the same map, whatever its weight
    assert np.isnan(row_measures(rows, image, None)["position"]).all()
    assert same["entropy"].item() == pytest.approx(
        -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)) / np.log(2)
    )
