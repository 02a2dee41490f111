"""Columns are recognised by their names; slips of one letter are named, and no more."""

from __future__ import annotations

import pytest

from interp.data.row_fields import as_number, recognised, resembling


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
