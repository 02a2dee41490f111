"""No number of any study changes when all samples have one id, as when ids are patients or images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from interp.study.head_attribution.page import agreements
from interp.study.layer_choice import LayerChoice
from interp.study.layer_sweep.failures import thresholds, verdicts
from interp.study.logit_lens.page import lens_gaps
from interp.study.runs import GridCell

Found = Callable[[Any], list[pd.DataFrame]]


def swept(result: Any) -> list[pd.DataFrame]:
    choice = LayerChoice("ar", {"organism": 3}, frozenset())
    limits = thresholds(result, choice)
    return [result.summary(), result.at_layer(3), verdicts(result, choice, limits)]


FOUND: Mapping[str, Found] = {
    "sweep": swept,
    "attribution": lambda result: [result.summary(), agreements(result, {})],
    "lens": lambda result: [result.summary(), lens_gaps(result)],
    "knockout": lambda result: [result.summary(), result.tests()],
    "methods": lambda result: [result.summary(), result.compare(), result.frame],
    "comparison": lambda result: [result.summary(), result.compare(), result.found(), result.curves],
    "ranking": lambda result: [result.summary(), result.ranked],
}


@pytest.fixture(scope="session")
def ranking(rankings: dict[str, Any]) -> Any:
    return rankings["medical"]


@pytest.mark.by_default(kind=["sweep", "knockout", "methods", "ranking"])
@pytest.mark.parametrize("kind", FOUND)
def test_numbers_do_not_depend_on_ids(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    result = request.getfixturevalue(kind)
    before = FOUND[kind](result)
    read = GridCell.frame

    def named_alike(self: GridCell, table: str) -> pd.DataFrame:
        frame = read(self, table)
        return frame.assign(sample="one") if "sample" in frame else frame

    monkeypatch.setattr(GridCell, "frame", named_alike)
    again = type(result).of(result.study, result.cells, result.folder)
    assert set(again.scores["sample"]) == {"one"}
    for one, other in zip(before, FOUND[kind](again), strict=True):
        assert_frame_equal(*(frame.drop(columns="sample", errors="ignore") for frame in (one, other)))
