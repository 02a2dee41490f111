from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interp.data import slake
from interp.data.readers.slake import is_named
from interp.errors import DataError
from tests.data.source_files import as_json, image, slake_folder, slake_row


def test_boxes_of_the_labels_that_a_row_names(tmp_path: Path) -> None:
    rows = [
        slake_row(),
        slake_row("Which organ is abnormal?", "Left lung"),
        slake_row("What modality is used?", "CT"),
    ]
    liver, lung, none = slake(slake_folder(tmp_path, *rows))
    assert [box.as_tuple() for box in liver.boxes] == [(4, 2, 14, 10)]
    assert [box.as_tuple() for box in lung.boxes] == [(20, 4, 28, 14)]
    assert none.boxes == ()
    assert none.meta["regions"] == {"Liver": [[4, 2, 14, 10]], "Left Lung": [[20, 4, 28, 14]]}
    assert (liver.meta["label"], liver.meta["modality"], liver.meta["split"], liver.group) == (
        "Liver",
        "CT",
        "test",
        "xmlab0",
    )
    assert (liver.answer, liver.id) == ("Left", "test:9")


def test_all_regions_masks_and_languages(tmp_path: Path) -> None:
    folder = slake_folder(tmp_path, slake_row(), slake_row("肝在哪里?", q_lang="zh"))
    assert [len(sample.boxes) for sample in slake(folder, regions="all", language=None)] == [2, 2]
    assert slake(folder, regions="none")[0].boxes == ()
    (masked,) = slake(folder, masks={7: "Liver", 8: "Spleen"})
    assert [box.as_tuple() for box in masked.boxes] == [(4, 2, 14, 10)]
    assert masked.meta["regions"] == {"Liver": [[4, 2, 14, 10]]}
    assert masked.masks[0].inside.sum() == 80


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        (
            [{"Liver": [4, 2, 100, 8]}],
            r"detection\.json, item 0, field 'Liver': the box .* outside its 40×20 image.*box_format='xyxy'",
        ),
        ([{"Liver": [4, 2, 10]}], r"detection\.json, item 0, field 'Liver': a box is"),
        ([{"Liver": "x"}], r"detection\.json, item 0, field 'Liver': a box is"),
        ([3], r"detection\.json, item 0: expected an object of a label and its box"),
        ({"Liver": [1, 2, 3, 4]}, r"detection\.json: expected a JSON list of rows, got dict"),
    ],
)
def test_a_bad_detection_is_named(tmp_path: Path, detections: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        slake(slake_folder(tmp_path, slake_row(), detections=detections))


def test_a_bad_row_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.json, item 1, field 'img_name': no file 'xmlab9/source.jpg'"):
        slake(slake_folder(tmp_path, slake_row(), slake_row(img_name="xmlab9/source.jpg")))
    with pytest.raises(DataError, match=r"test\.json, item 0, field 'question'"):
        slake(slake_folder(tmp_path, slake_row("")))
    with pytest.raises(DataError, match=r"validation\.json cannot be read"):
        slake(tmp_path, "validation")
    with pytest.raises(DataError, match=r"SLAKE has the splits train, validation, test, .*got 'val'"):
        slake(tmp_path, "val")


def test_a_folder_without_all_splits_names_those_it_has(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text("[]")
    message = r"every split of SLAKE needs train.json, .* lacks train.json, validation.json. .*split='test'"
    with pytest.raises(DataError, match=message):
        slake(tmp_path, split="all")


def test_boxes_without_area_are_counted(tmp_path: Path) -> None:
    folder = slake_folder(tmp_path, slake_row(), detections=[{"Liver": [4, 2, 0, 8]}])
    assert slake(folder).skipped == {"boxes without an area": 1}
    (folder / "imgs/xmlab0/detection.json").unlink()
    assert slake(folder)[0].boxes == ()


def test_the_kind_the_label_and_the_rest_of_a_row(tmp_path: Path) -> None:
    folder = slake_folder(
        tmp_path, slake_row("Is it?", "Yes", answer_type=" closed\n"), slake_row(answer=None)
    )
    closed, open_one = slake(folder, name="mine", questions="all")
    assert dict(closed.meta) == {
        "img_id": 0, "q_lang": "en", "modality": "CT", "answer_type": " closed\n", "qid": 9, "label": None,
        "regions": closed.meta["regions"], "benchmark": "SLAKE", "kind": "closed", "split": "test",
    }  # fmt: skip
    assert (open_one.meta["label"], open_one.meta["kind"], open_one.answer) == ("Liver", "open", None)
    assert closed.masks == ()
    (folder / "imgs/xmlab0/mask.png").unlink()
    assert slake(folder, masks={7: "Liver"}, questions="all")[1].boxes == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least": 0}, "least is a whole number of at least 1"),
        ({"regions": "some"}, "regions is 'named' or 'all' or 'none'"),
        ({"language": "de"}, "language is 'en' or 'zh'"),
        ({"questions": "few"}, "questions is 'closed' or 'open' or 'all'"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        slake(slake_folder(tmp_path, slake_row()), **options)
    with pytest.raises(DataError, match=r"field 'answer': expected a text or null, got 3"):
        slake(slake_folder(tmp_path, slake_row(answer=3)))  # type: ignore[arg-type]


def test_closed_and_open_questions_of_all_splits(tmp_path: Path) -> None:
    rows = [
        slake_row(answer_type="OPEN"),
        slake_row("Is it?", "Yes", answer_type="CLOSED"),
        slake_row("?", "CT"),
    ]
    for row in rows[2:]:
        del row["answer_type"]
    folder = slake_folder(tmp_path, *rows)
    closed = slake(folder, questions="closed")
    assert [sample.meta["kind"] for sample in closed] == ["closed"]
    assert closed.skipped == {"open questions of test": 2}
    for name in ("train", "validation"):
        (tmp_path / f"{name}.json").write_text((tmp_path / "test.json").read_text())
    samples = slake(folder, "all", questions="open", regions="none")
    assert [sample.meta["split"] for sample in samples] == [
        "train",
        "train",
        "validation",
        "validation",
        "test",
        "test",
    ]


@pytest.mark.parametrize(
    ("label", "text", "named"),
    [("Liver", "Is the LIVER large?", True), ("Lung", "Are the lungs clear?", True), ("Lung", "A lunge.", False),
     ("Mass", "Two masses.", True), ("Left Lung", "the left-lung", True), ("Left Lung", "the lung on the left", False),
     ("Left Lung", "left_lung", True), ("Small Bowel", "the small  bowel", True),
     ("Ear", "the heart", False), ("-", "-", False)],
)  # fmt: skip
def test_a_label_is_named_by_its_words(label: str, text: str, named: bool) -> None:
    assert is_named(label, text) == named


def test_an_answer_names_labels_too_and_several_are_joined(tmp_path: Path) -> None:
    found = [{"Liver": [4, 2, 10, 8]}, {"Left Lung": [20, 4, 8, 10], "Liver": [0, 0, 3, 3]}]
    rows = [slake_row("What is left of the liver?", "Left lung"), slake_row("Where is it?", None, qid=4)]
    both, none = slake(slake_folder(tmp_path, *rows, detections=found))
    assert both.meta["label"] == "Liver, Left Lung"
    assert [box.as_tuple() for box in both.boxes] == [(4, 2, 14, 10), (0, 0, 3, 3), (20, 4, 28, 14)]
    assert (none.meta["label"], none.boxes, none.id) == (None, (), "test:4")


def test_pieces_of_a_mask_are_of_the_least_size(tmp_path: Path) -> None:
    folder = slake_folder(tmp_path, slake_row())
    assert slake(folder, masks={7: "Liver"}, least=80)[0].boxes != ()
    found = slake(folder, masks={7: "Liver"}, least=81)
    assert (found[0].boxes, found[0].masks, found.skipped) == (
        (),
        (),
        {"pieces of a mask under 81 pixels": 1},
    )
    as_json(folder / "imgs/xmlab0/detection.json", [{"Liver": [4, 2, 10, 8]}])
    assert slake(folder, box_format="xyxy")[0].boxes[0].as_tuple() == (4, 2, 10, 8)


@pytest.mark.parametrize("name", ["validation.json", "validate.json"])
def test_the_validation_split_has_either_name(tmp_path: Path, name: str) -> None:
    folder = slake_folder(tmp_path, slake_row())
    (folder / "test.json").rename(folder / name)
    found = slake(folder, "validation")
    assert (found.name, found[0].meta["split"], found[0].id) == (
        "SLAKE validation",
        "validation",
        "validation:9",
    )


def test_each_image_has_its_own_regions(tmp_path: Path) -> None:
    folder = slake_folder(tmp_path, slake_row(), slake_row(img_name="xmlab1/source.jpg"))
    image(folder / "imgs/xmlab1/source.jpg")
    as_json(folder / "imgs/xmlab1/detection.json", [{"Liver": [1, 1, 5, 5]}])
    assert [one.boxes[0].as_tuple() for one in slake(folder)] == [(4, 2, 14, 10), (1, 1, 6, 6)]
    assert [one.group for one in slake(folder)] == ["xmlab0", "xmlab1"]
