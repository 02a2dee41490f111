"""A benchmark's tables on pairs written by hand: which questions are counted, and how strata are weighed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from interp.errors import StudyError
from interp.study.benchmark.tables import (
    _name_of_all,
    _parts,
    answer_rows,
    averages,
    mean_of_strata,
    pooled,
    stratum_of,
)

pytestmark = pytest.mark.usefixtures("unchecked")


def cell(
    data: str, method: str, metas: list[Any], *, measured: bool = True, answers: list[Any] | None = None
) -> Any:
    """A run on samples of these modalities; None for a sample that names none."""
    samples = [SimpleNamespace(meta={} if one is None else {"modality": one}) for one in metas]
    labels = {"model": "m", "data": data, "method": method}
    frame = pd.DataFrame({"index": range(len(metas)), "answer": answers or ["yes"] * len(metas)})
    return SimpleNamespace(
        labels=labels, measured=measured, study=SimpleNamespace(data=samples), frame=lambda _: frame
    )


def pairs(cell: Any, before: list[float], after: list[float], measure: str = "strict") -> pd.DataFrame:
    """A pair for each sample; each is its own group."""
    n = len(before)
    return pd.DataFrame(
        {
            **{axis: [label] * n for axis, label in cell.labels.items()}, "index": range(n),
            "group": [f"g{i}" for i in range(n)], "measure": measure, "before": before, "after": after,
        }
    )  # fmt: skip


def result(*parts: tuple[Any, list[float], list[float]]) -> Any:
    frames = [pairs(*one) for one in parts] + [
        pairs(one[0], [0.0] * len(one[1]), [0.0] * len(one[1]), "other") for one in parts
    ]
    return SimpleNamespace(
        cells=[one[0] for one in parts], pairs=pd.concat(frames, ignore_index=True), seed=0,
        axes=("model", "data", "method"), is_plain=lambda cell: cell.labels["method"] == "Plain",
    )  # fmt: skip


NAN = math.nan
LARGE = cell("large", "PAI", ["CT", "CT", "MR", None])
SMALL = cell("small", "PAI", ["CT", "CT"])
TWO = result((LARGE, [0, 1, 0, NAN], [1, 1, 0, 1]), (SMALL, [0, 0], [1, 0]))


def test_questions_without_a_mark_are_in_no_average() -> None:
    """Of large 1 of 3 before and 2 of 3 after, of small none of 2 and 1 of 2; groups of two sets are never one."""
    ((labels, own),) = pooled(TWO, "data", "strict")
    assert labels == {"model": "m", "method": "PAI"}
    assert own.stratum.tolist() == ["large"] * 3 + ["small"] * 2
    assert own.group.tolist() == ["large: g0", "large: g1", "large: g2", "small: g0", "small: g1"]
    found = averages(TWO, "data", "strict", None, 0.95).set_index("average")
    assert list(found.index) == ["micro", "macro"]
    assert found.before.tolist() == pytest.approx([1 / 5, 1 / 6])
    assert found.after.tolist() == pytest.approx([3 / 5, (2 / 3 + 1 / 2) / 2])
    assert found.difference.tolist() == pytest.approx([2 / 5, (1 / 3 + 1 / 2) / 2])
    assert found[["n", "n_groups", "n_strata"]].to_numpy().tolist() == [[5, 5, 2]] * 2
    assert set(found.strata) == {"large 3, small 2"}
    weighted = (
        averages(TWO, "data", "strict", {"large": 3, "small": 1}, 0.95).set_index("average").loc["weighted"]
    )
    assert weighted.after == pytest.approx((3 * 2 / 3 + 1 / 2) / 4)
    assert weighted.difference == pytest.approx((3 * 1 / 3 + 1 / 2) / 4)


def test_a_field_joins_the_questions_of_all_sets() -> None:
    rows = answer_rows(TWO, "modality", "strict").set_index("model")
    assert list(rows) == ["CT", "MR", "micro", "macro"]
    assert rows.loc["N"].tolist() == [4, 1, 5, 5]
    assert rows.loc["m, as it is"].tolist() == pytest.approx([25, 0, 20, 12.5])
    assert rows.loc["m, PAI"].tolist() == pytest.approx([75, 0, 60, 37.5])


def test_a_plain_model_has_one_line_whatever_it_stands_beside() -> None:
    plain, other = cell("large", "Plain", ["CT"] * 4), cell("large", "PAI", ["CT"] * 4)
    found = answer_rows(
        result((plain, [0, 1, 0, 1], [0, 1, 0, 1]), (other, [0, 1, 0, 1], [1, 1, 1, 1])), "data", "strict"
    )
    assert found.to_dict("list") == {
        "model": ["N", "m, as it is", "m, PAI"], "large": [4, 50, 100], "micro": [4, 50, 100], "macro": [4, 50, 100]
    }  # fmt: skip
    nothing = answer_rows(result((plain, [NAN] * 4, [NAN] * 4)), "data", "strict")
    assert nothing["model"].tolist() == ["N"]
    assert averages(result((plain, [NAN] * 4, [NAN] * 4)), "data", "strict", None, 0.95).empty


def test_means_of_strata_are_weighed_by_their_names() -> None:
    values, strata = np.array([1.0, 0.0, 4.0]), ["b", "b", "a"]
    assert mean_of_strata(values, strata, None) == pytest.approx((0.5 + 4) / 2)
    assert mean_of_strata(values, strata, {"a": 1, "b": 3}) == pytest.approx((3 * 0.5 + 4) / 4)
    assert mean_of_strata(values, strata, {"a": 0, "b": 2}) == 0.5


def test_a_sample_without_the_field_is_a_stratum_of_its_own() -> None:
    rows = pd.DataFrame({"index": [3, 0, 2]})
    assert stratum_of(rows, LARGE, "modality") == ["not given", "CT", "MR"]
    with pytest.raises(StudyError, match="no sample has a field 'scanner'"):
        pooled(TWO, "scanner", "strict")
    lost = cell("lost", "PAI", [None], measured=False)
    assert (
        pooled(result((lost, [0], [0])), "modality", "strict") == []
    )  # nothing was measured: nothing to refuse


def test_yes_or_no_questions_are_parted_by_several_values() -> None:
    """The question about an organ is none of them; the field's own "all" gets another name beside it."""
    one = cell("d", "PAI", ["all", "CT", "CT", "CT"], answers=["Yes.", "no", "lung", None])
    found: Any = SimpleNamespace(cells=[one, cell("e", "PAI", ["all questions"], measured=False)])
    assert _name_of_all(found, None) == "all"
    assert _name_of_all(found, "modality") == "all questions"
    parts = [(name, own["index"].tolist()) for name, own in _parts(one, "modality", "all questions")]
    assert parts == [("all questions", [0, 1]), ("all", [0]), ("CT", [1])]
    alike = cell("d", "PAI", ["CT"] * 2)
    assert [name for name, _ in _parts(alike, "modality", "all")] == ["all"]
    assert list(_parts(cell("d", "PAI", ["CT"], answers=["lung"]), None, "all")) == []
