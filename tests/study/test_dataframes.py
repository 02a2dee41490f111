"""Rows by their labels, rows as dicts, and frames below one another."""

from __future__ import annotations

import pandas as pd

from interp.study.dataframes import below, records, rows_of, where

FRAME = pd.DataFrame({"model": list("aab"), "data": list("xyx"), "value": [1, 2, 3]})


def test_rows_carry_every_label_that_is_asked_for() -> None:
    assert rows_of(FRAME, {"model": "a", "data": "x"}).value.tolist() == [1]
    assert rows_of(FRAME, {"model": "a"}).value.tolist() == [1, 2]
    assert rows_of(FRAME, {"model": "c"}).empty
    assert rows_of(FRAME, {}).equals(FRAME)
    turned = FRAME.iloc[::-1]  # whatever its index
    assert rows_of(turned, {"data": "x"}).value.tolist() == [3, 1]
    assert where(turned, turned.value > 1).value.tolist() == [3, 2]


def test_records_are_the_rows_in_their_order() -> None:
    frame = pd.DataFrame({"x": [1, 2], 0.5: ["a", "b"]})
    assert records(frame) == [{"x": 1, "0.5": "a"}, {"x": 2, "0.5": "b"}]


def test_frames_stand_below_one_another_in_order() -> None:
    found = below(pd.DataFrame({"n": [n]}, index=[7]) for n in (3, 1, 2))
    assert (found.n.tolist(), found.index.tolist()) == ([3, 1, 2], [0, 1, 2])


def test_an_empty_frame_changes_no_type() -> None:
    empty = pd.DataFrame({"n": pd.Series([], dtype=object)})
    assert below([empty, FRAME[["value"]].rename(columns={"value": "n"}), empty]).n.dtype == "int64"
    assert list(below([empty, empty])) == ["n"]
    assert len(below([empty, empty])) == 0


def test_categories_become_text_and_numbers_stay() -> None:
    frame = FRAME.astype({"model": "category"})
    found = below([frame, frame])
    assert found.model.dtype != "category"
    assert found.model.tolist() == list("aab") * 2
    assert found.value.dtype == "int64"
