from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import medsg
from interp.data.readers.medsg import ORDINALS, target_image
from interp.errors import DataError
from tests.data.source_files import image, medsg_folder, medsg_row


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


def test_the_image_that_a_question_names() -> None:
    for place, word in enumerate(ORDINALS):
        assert (
            target_image(f"Marked in the last image. Locate it In The {word.capitalize()} Image.", 12)
            == place
        )
    assert target_image("In the third image.", 2) == 1  # there is no third
    assert target_image("Marked in the first image, locate it in the last image.", 4) == 3
    assert ORDINALS == (
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
    )


def test_fractions_are_of_the_image_that_is_asked_for(tmp_path: Path) -> None:
    path = medsg_folder(tmp_path, medsg_row(answer=[0.1, 0.1, 0.5, 0.5]))
    image(tmp_path / "Task3/heart_top.png", (10, 30))
    (sample,) = medsg(path, box_format="fraction", reference=True)
    assert [(box.image, box.as_tuple()) for box in sample.boxes] == [(1, (1, 3, 5, 15)), (0, (15, 2, 20, 17))]


def test_a_samples_group_is_its_first_image_and_meta_the_rest(tmp_path: Path) -> None:
    names = [f"elsewhere/{view}.png" for view in ("heart_side", "heart_top")]
    plain = medsg_row(images=names, question="Find <image> it.", answer=[11, 0, 17.5, 5], organ="heart")
    (sample,) = medsg(medsg_folder(tmp_path, plain), tmp_path / "Task3", reference=True)
    assert [Path(str(one)) for one in sample.images] == [tmp_path / "Task3" / Path(one).name for one in names]
    assert (sample.group, sample.question, sample.id) == ("heart_side", "Find it.", "Task3:0")
    assert dict(sample.meta) == {"task": "multi_view", "organ": "heart", "target": 1, "reference": None}
    assert [(box.image, box.as_tuple()) for box in sample.boxes] == [(1, (11, 0, 17.5, 5))]
    with pytest.raises(DataError, match="holds no rows; expected a list of tasks"):
        medsg(medsg_folder(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": [1, 2, 3]}, "item 1, field 'answer': expected a box of four numbers"),
        ({"answer": [1, 2, 3, "4"]}, "item 1, field 'answer': expected a box of four numbers"),
        ({"answer": [1, True, 3, 4]}, "item 1, field 'answer': expected a box of four numbers"),
        ({"answer": "1234"}, "item 1, field 'answer': expected a box of four numbers"),
        ({"images": "a.png"}, "item 1, field 'images': expected a list of paths"),
        ({"images": [""]}, "item 1, field 'images': expected an image or its path"),
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


def test_the_longest_part_of_a_path_that_exists_is_taken(tmp_path: Path) -> None:
    path = medsg_folder(tmp_path, medsg_row())
    for name in ("heart_front.png", "heart_top.png", "heart_side.png"):
        image(tmp_path / name, level=200)
    found = medsg(path)[0]
    assert {Path(str(one)).parent.name for one in found.images} == {"Task3"}
    image(tmp_path / "MedSG-Bench/MedSG-Bench/Task3/heart_top.png", level=100)
    whole = medsg(path)[0]
    assert [Path(str(one)).parts[-4:-1] == ("MedSG-Bench", "MedSG-Bench", "Task3") for one in whole.images] == [
        False, True, False,
    ]  # fmt: skip


def test_a_format_of_boxes_is_of_the_answer_alone(tmp_path: Path) -> None:
    (found,) = medsg(medsg_folder(tmp_path, medsg_row()), name="mine", box_format="xywh", reference=True)
    assert [box.as_tuple() for box in found.boxes] == [(11, 0, 28, 5), (15, 2, 20, 17)]
    assert medsg(medsg_folder(tmp_path, medsg_row()), name="mine").name == "mine"
