from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import medsg
from interp.errors import DataError
from tests.data.source_files import medsg_folder, medsg_row


def test_the_box_lies_in_the_image_that_the_question_names(tmp_path: Path) -> None:
    (sample,) = medsg(medsg_folder(tmp_path, medsg_row()))
    (box,) = sample.boxes
    assert (box.as_tuple(), box.image, sample.meta["target"]) == ((11, 0, 17, 5), 1, 1)
    assert [Path(str(one)).name for one in sample.images] == [
        "heart_front.png",
        "heart_top.png",
        "heart_side.png",
    ]
    assert sample.meta["reference"] == [15, 2, 20, 17]
    assert "box_start" not in sample.question
    assert "(15,2),(20,17)" in sample.question
    assert (sample.answer, sample.meta["task"]) == ("(11,0),(17,5)", "multi_view")


def test_source_and_last_images_and_the_reference(tmp_path: Path) -> None:
    rows = [
        medsg_row(question="Locate the first region picture in the source image."),
        medsg_row(question="Find the difference."),
    ]
    source, last = medsg(medsg_folder(tmp_path, *rows))
    assert (source.boxes[0].image, last.boxes[0].image) == (0, 2)
    (both,) = medsg(medsg_folder(tmp_path, medsg_row()), reference=True)
    assert [(box.image, box.as_tuple()) for box in both.boxes] == [(1, (11, 0, 17, 5)), (0, (15, 2, 20, 17))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": [1, 2, 3]}, "item 1, field 'answer': expected a box of four numbers"),
        ({"answer": [9, 2, 3, 4]}, "item 1, field 'answer': a box needs x1 > x0"),
        ({"images": []}, "item 1, field 'images': expected a list of paths"),
        ({"images": ["no.png"]}, "item 1, field 'images': no file 'no.png'"),
        ({"question": None}, "item 1, field 'question': expected a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = medsg_folder(tmp_path, medsg_row(), medsg_row(**change))
    with pytest.raises(DataError, match=rf"Task3\.json, {message}"):
        medsg(path)
    assert [sample.is_usable for sample in medsg(path, bad_rows="record")] == [True, False]
