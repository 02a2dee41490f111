"""What every result counts and says, on cells whose tables are written by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.data import Samples
from interp.run import UNDEFINED
from interp.study.result import GridResult, _frames, counted, differences, mean_text, summarise
from tests.study.planted import samples

ONE, TWO = samples(4, "one"), samples(3, "two", start=10)

pytestmark = pytest.mark.usefixtures("unchecked")


def cell(model: str, data: Samples, indices: list[int], seed: int = 3) -> Any:
    frame = pd.DataFrame({"index": indices, "group": [data.groups[i] for i in indices]})
    return SimpleNamespace(
        labels={"model": model, "data": data.name},
        key=(model, data.name),
        study=SimpleNamespace(data=data, seed=seed),
        frame=lambda _: frame,
    )


def result(*cells: Any) -> GridResult:
    study: Any = SimpleNamespace(title="A study")
    return GridResult(study, cells, Path("runs"))


def test_a_sample_of_two_models_counts_once() -> None:
    """Of the first data one model measured 0 and 1, the other 1 and 3; of the second one measured 0."""
    found = result(cell("a", ONE, [0, 1]), cell("b", ONE, [1, 3]), cell("a", TWO, [0]))
    assert found.n_samples == 3 + 1
    assert found.groups == {"patient-0", "patient-1", "patient-5"}
    assert found.axes == found.varied == ("model", "data")
    assert result(cell("a", ONE, [0]), cell("a", TWO, [0])).varied == ("data",)
    assert found.seed == 3


def test_cells_of_like_counts_share_a_line() -> None:
    """Samples 0 and 1 are of one patient, 2 of another."""
    first, second, third = cell("a", ONE, [0, 1]), cell("b", ONE, [2]), cell("a", TWO, [0, 1])
    assert counted(result(first)) == ["one: 2 samples in 1 group."]
    assert counted(result(first, third)) == ["Each: 2 samples in 1 group."]
    assert counted(result(first, second, third)) == [
        "a · one, a · two: 2 samples in 1 group.",
        "b · one: 1 sample in 1 group.",
    ]


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([], "0 failures"),
        (["A"], "1 failure (A ×1)"),
        ([UNDEFINED] * 2, "0 failures, 2 undefined values"),
        (["A", UNDEFINED, "B", "A"], "3 failures (A ×2, B ×1), 1 undefined value"),
    ],
)
def test_undefined_values_are_counted_apart_from_failures(errors: list[str], said: str) -> None:
    made: Any = SimpleNamespace(failures=pd.DataFrame({"error": pd.Series(errors, dtype=object)}))
    assert GridResult.failure_counts(made) == said


def test_a_mean_has_its_interval_where_groups_are_enough() -> None:
    row = {"mean": 0.5, "low": 0.25, "high": 0.75}
    assert mean_text({**row, "note": ""}) == "0.500 [0.250, 0.750]"
    assert mean_text({**row, "note": "Only 3 groups"}) == "0.500"


def test_a_token_of_several_frames_ends_where_the_next_begins() -> None:
    found = _frames(np.array([0, 0, 2, 2, 4, 0]), 5)
    assert found.tolist() == [[0, 2], [0, 2], [2, 4], [2, 4], [4, 5], [0, 2]]


def test_differences_are_of_the_same_sample_and_baseline() -> None:
    """Own boxes 5 and 7, others' 1 and (undefined), the centre 2 and 6: two samples of one id."""
    rows = [
        (index, "same", f"g{index}", control, value)
        for control, values in {
            "boxes": (5, 7),
            "shuffled_boxes": (1, np.nan),
            "centre_prior": (2, 6),
        }.items()
        for index, value in enumerate(values)
    ]
    columns = ["index", "sample", "group", "control", "value"]
    scores = pd.DataFrame(rows, columns=columns).assign(data="d", layer=0, metric="ar")
    found = differences(scores, ["data"]).set_index("control")
    assert found["mean"].to_dict() == {"boxes − shuffled_boxes": 4, "boxes − centre_prior": 2}
    assert found.n.to_dict() == {"boxes − shuffled_boxes": 1, "boxes − centre_prior": 2}


def test_rows_without_a_label_have_a_mean_of_their_own() -> None:
    scores = pd.DataFrame(
        {
            "sample": list("abcd"),
            "group": list("abcd"),
            "part": ["x", None, None, "x"],
            "value": [1, 2, 4, np.nan],
        }
    )
    found = summarise(scores)
    assert found["mean"].tolist() == [1, 3]
    assert (found.n.tolist(), found.n_undefined.tolist(), found.n_groups.tolist()) == ([1, 2], [1, 0], [1, 2])
