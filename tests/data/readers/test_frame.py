from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from interp.data import frame
from interp.errors import BoxError, DataError
from tests.data.source_files import image


def table(**columns: Any) -> pd.DataFrame:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    return pd.DataFrame({"image": [pixels, Image.new("L", (8, 6))], "question": ["a?", "b?"], **columns})


def test_rows_become_samples(tmp_path: Path) -> None:
    samples = frame(
        table(boxes=[[[1, 1, 3, 4]], "[[2, 2, 5, 5]]"], answer=["yes", None], group=[1.0, 2.0], age=[3, 4])
    )
    assert [sample.boxes[0].as_tuple() for sample in samples] == [(1, 1, 3, 4), (2, 2, 5, 5)]
    assert [sample.answer for sample in samples] == ["yes", None]
    assert [sample.group for sample in samples] == ["1", "2"]
    assert [dict(sample.meta) for sample in samples] == [{"age": 3}, {"age": 4}]
    assert samples[0].sizes == ((8, 6),)


def test_paths_are_relative_to_the_folder(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png")
    rows = pd.DataFrame(
        {
            "image": ["a.png", path.relative_to(tmp_path)],
            "question": ["?", "?"],
            "day": pd.Timestamp("2026-01-02"),
        }
    )
    samples = frame(rows, images=tmp_path)
    assert [str(sample.image) for sample in samples] == [str(path)] * 2
    assert samples[0].meta["day"] == "2026-01-02T00:00:00"


def test_a_bad_row_is_named_by_its_position() -> None:
    with pytest.raises(DataError, match="the table, row 1, field 'boxes': a box needs x1 > x0"):
        frame(table(boxes=[None, [[3, 3, 1, 5]]]))
    with pytest.raises(DataError, match="the table, row 0, field 'answer': expected a text or a number"):
        frame(table(answer=[["a"], "b"]))
    with pytest.raises(DataError, match=r"the table, row 0, field 'image': no file 'no.png'"):
        frame(pd.DataFrame({"image": ["no.png"], "question": ["?"]}))
    with pytest.raises(
        DataError, match="the table, row 0, field 'image': expected an image or its path, got 3"
    ):
        frame(pd.DataFrame({"image": [3], "question": ["?"]}))


def test_one_question_for_all_rows_and_the_format_of_boxes() -> None:
    rows = table(finding=["mass", "cyst"], boxes=[[[1, 1, 2, 4]], [[1, 1, 3, 3]]]).drop(columns="question")
    samples = frame(rows, "mine", question="Is there a {finding}?", box_format="xywh")
    assert [one.question for one in samples] == ["Is there a mass?", "Is there a cyst?"]
    assert samples[0].boxes[0].as_tuple() == (1, 1, 3, 5)
    assert samples.name == "mine"
    named = frame(rows, columns={"question": "finding"})
    assert [one.question for one in named] == ["mass", "cyst"]
    with pytest.raises(BoxError, match="box_format is one of 'xyxy', 'xywh'"):
        frame(rows, box_format="yolo")


def test_what_is_no_table() -> None:
    with pytest.raises(DataError, match="frame reads a pandas DataFrame; got list"):
        frame([{"image": "a.png"}])
    with pytest.raises(DataError, match="rows, and columns that each have a name"):
        frame(pd.DataFrame({"image": [], "question": []}))


def test_two_columns_of_one_name_are_refused() -> None:
    twice = pd.DataFrame([["a.png", "?", "b.png"]], columns=["image", "question", "image"])
    with pytest.raises(DataError, match="columns that each have a name"):
        frame(twice)
