"""Columns are recognised by their names; slips of one letter are named, and no more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from interp.data.lines import Row
from interp.data.row_fields import Fields, as_number, boxes_of, optional_text, recognised, resembling
from interp.errors import DataError


@pytest.mark.parametrize(
    ("column", "field"),
    [("choices", "options"), ("patient", "group"), ("patient_id", "group"), ("volume", "group"), ("case", "group"),
     ("qid", "id"), ("question_id", "id"), ("bboxes", "boxes"), ("box", "boxes"), ("answers", "answer"),
     (" Answer ", "answer")],
)  # fmt: skip
def test_a_column_is_recognised(column: str, field: str) -> None:
    assert recognised(["img", "prompt", column], None) == {
        "image": "img",
        "question": "prompt",
        field: column,
    }


@pytest.mark.parametrize("names", [("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max")])
def test_corners_are_recognised_unless_there_are_boxes(names: tuple[str, ...]) -> None:
    found = recognised(["path", "query", *names], None)
    assert found == {
        "image": "path",
        "question": "query",
        **dict(zip(("x0", "y0", "x1", "y1"), names, strict=True)),
    }
    assert "x0" not in recognised(["path", "query", *names, "bbox"], None)


def test_the_best_name_and_the_callers_come_first() -> None:
    assert recognised(["file", "image", "question"], None)["image"] == "image"
    found = recognised(["file", "image", "question", "text"], {"image": "file", "question": "text"})
    assert found == {"image": "file", "question": "text"}
    assert recognised(["image", "question"], None, question="Is it?") == {"image": "image"}


@pytest.mark.parametrize(
    ("name", "like"),
    [("grop", "group"), ("groupp", "group"), ("gruop", "group"), ("grouq", "group"), ("G-r.o u_p", "group"),
     ("gruog", None), ("grxxp", None), ("grupos", None), ("quest", None), ("questionnaire", None), ("ig", None),
     ("imf", None), ("xmim", "xmin"), ("age", None)],
)  # fmt: skip
def test_a_slip_is_one_letter_or_two_that_are_swapped(name: str, like: str | None) -> None:
    assert resembling(name) == like
    assert resembling(name, ["answer"]) is None


def test_numbers_as_numbers_or_texts() -> None:
    assert [as_number(one) for one in (3, "2.5", " -1 ")] == [3, 2.5, -1]
    assert all(
        as_number(one) != as_number(one) for one in (True, "x", "inf", float("nan"), None, [1], 10**400)
    )


@pytest.mark.parametrize(
    ("cell", "text"),
    [(" a ", " a "), (7, "7"), (7.0, "7"), (7.5, "7.5"), (True, "True"), (np.int64(3), "3"), (np.float32(2), "2"),
     (None, None), (float("nan"), None), ("  ", None)],
)  # fmt: skip
def test_a_number_is_a_text_without_its_point(cell: object, text: str | None) -> None:
    row = Row(Path("a.csv"), 2, {"x": cell})
    assert (optional_text(row, "x"), optional_text(row, None), optional_text(row, "y")) == (text, None, None)


def test_the_first_of_two_columns_of_one_name_is_read() -> None:
    assert recognised(["IMAGE", "image", "question", "Question"], None) == {
        "image": "IMAGE",
        "question": "question",
    }
    assert recognised(["img", "question"], {"answer": "question", "question": "question"}) == {
        "image": "img", "answer": "question", "question": "question",
    }  # fmt: skip


def test_rows_of_lists_and_texts_between_bars() -> None:
    fields = Fields(
        {"image": "image", "options": "options", "boxes": "box"}, None, lambda *_: "a.png", "{n} of {{x}}?"
    )
    given = {
        "image": ["a", "b"],
        "options": " yes | no ",
        "box": "[1, 2, 3, 4, 1]",
        "n": 3,
        "note": [np.int64(1)],
    }
    sample = fields.sample(Row(Path("a.csv"), 2, given))
    assert (sample.question, sample.options, len(sample.images)) == ("3 of {x}?", ("yes", "no"), 2)
    assert [(box.as_tuple(), box.image) for box in sample.boxes] == [((1, 2, 3, 4), 1)]
    assert (dict(sample.meta), sample.id) == ({"n": 3, "note": [1]}, "a:2")
    with pytest.raises(
        DataError, match=r"line 2, field 'box': a box names an image that the row lacks: it has 1"
    ):
        fields.sample(Row(Path("a.csv"), 2, {**given, "image": ["a"]}))
    for image in ([], ["a", None], " ", None):
        with pytest.raises(DataError, match="field 'image': expected an image, got"):
            fields.sample(Row(Path("a.csv"), 2, {**given, "image": image}))


def test_each_box_is_measured_by_its_own_image(tmp_path: Path) -> None:
    for name, size in (("a.png", (40, 20)), ("b.png", (10, 30))):
        Image.new("L", size).save(tmp_path / name)
    row = Row(Path("a.csv"), 2)
    images = [str(tmp_path / name) for name in ("a.png", "b.png")]
    parts = [[0.1, 0.1, 0.5, 0.5, image] for image in (1, 0)]
    found = boxes_of(row, "box", parts, images, "fraction")
    assert [(box.image, box.as_tuple()) for box in found] == [(1, (1, 3, 5, 15)), (0, (4, 2, 20, 10))]


def test_a_column_holds_one_field_and_ids_are_the_tables_own() -> None:
    with pytest.raises(DataError, match="the list has no column for the question"):
        recognised(["image"], None, what="the list")
    with pytest.raises(DataError, match="has no column for the question"):
        recognised(["image", "question", "x"], {"answer": "question"})
    fields = Fields({"image": "image", "question": "q", "id": "id", "options": "o"}, None, lambda *_: "a.png")
    row = Row(
        Path("a.csv"),
        2,
        {"image": "a", "q": "?", "id": 7.0, "o": ' ["a|b", "c"]', "more": [Image.new("L", (2, 2))]},
    )
    sample = fields.sample(row)
    assert (sample.id, sample.options, dict(sample.meta)) == ("7", ("a|b", "c"), {})
