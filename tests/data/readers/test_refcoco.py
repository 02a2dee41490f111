from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.data import refcoco
from interp.errors import DataError
from tests.data.source_files import image, refcoco_files


def test_the_original_layout_as_json(tmp_path: Path) -> None:
    refs, instances, images = refcoco_files(tmp_path)
    first, second = refcoco(refs, images, "val", instances=instances)
    assert (first.question, second.question) == ("Where is the man in red?", "Where is left guy?")
    assert [box.as_tuple() for box in first.boxes] == [(4, 2, 20, 10)]
    assert (first.group, first.meta["split"], first.meta["ann_id"]) == ("7", "validation", 5)
    assert len(refcoco(refs, images, instances=instances, expressions="first")) == 2
    assert (
        refcoco(refs, images, instances=instances, question="{expression}?")[0].question == "the man in red?"
    )


def test_the_layouts_of_the_hub(tmp_path: Path) -> None:
    image(tmp_path / "COCO_train2014_000000000007.jpg")
    row: dict[str, Any] = {
        "file_name": "COCO_train2014_000000000007_0.jpg",
        "image_path": "coco/train2014/COCO_train2014_000000000007.jpg",
        "raw_anns": json.dumps({"bbox": [4, 2, 16, 8]}),
        "bbox": [4, 2, 20, 10],
        "sentences": [{"raw": "Left Guy", "sent": "left guy"}],
        "image_id": 7,
    }
    (sample,) = refcoco([row], tmp_path)
    assert (sample.boxes[0].as_tuple(), sample.meta["expression"]) == ((4, 2, 20, 10), "left guy")
    (other,) = refcoco([{"image": Image.new("L", (40, 20)), "answer": ["left guy"], "bbox": [4, 2, 16, 8]}])
    assert other.boxes == sample.boxes
    samples = refcoco([{**row, "raw_anns": None, "bbox": [1, 1, 0, 4]}], tmp_path)
    assert (len(samples), samples.skipped) == (0, {"boxes without an area": 1})


def test_the_pickle_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"is a pickle, which can run code .*docs/data\.md"):
        refcoco(tmp_path / "refs(unc).p", tmp_path)


@pytest.mark.parametrize("question", ["Where?", "x?", "{expression", "{other} x", "{expression}\0", 3])
def test_the_question_holds_the_expression(tmp_path: Path, question: Any, unchecked: None) -> None:
    with pytest.raises(DataError, match=r"question is a text with \{expression\} in it"):
        refcoco([], tmp_path, question=question)


def test_where_boxes_files_and_expressions_are_found(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg")
    base: dict[str, Any] = {"file_name": "a.jpg", "bbox": [4, 2, 16, 8]}
    for said in ({"sentences": ["one", "two"]}, {"captions": ["one", "two"]}, {"answer": ["one", "two"]}):
        found = refcoco([base | said], tmp_path)
        assert [one.meta["expression"] for one in found] == ["one", "two"]
        assert len({one.id for one in found}) == 2
    raw = refcoco([base | {"sentences": [{"raw": "Left Guy"}]}], tmp_path)
    assert (raw[0].meta["expression"], raw[0].group, raw[0].meta["split"]) == ("Left Guy", "a.jpg", None)
    for box in ([1, 1, 4, 0], [1, 1, 0, 4]):
        assert refcoco([base | {"bbox": box, "answer": ["a"]}], tmp_path).skipped == {
            "boxes without an area": 1
        }
    (corners,) = refcoco([base | {"bbox": [4, 2, 20, 10], "answer": ["a"]}], tmp_path, box_format="xyxy")
    assert corners.boxes[0].as_tuple() == (4, 2, 20, 10)
    for wrong in (["one", 3], ["one", " "], "one", []):
        with pytest.raises(DataError, match="field 'sentences': expected a list of expressions"):
            refcoco([base | {"answer": wrong}], tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ann_id": 9}, r"refs\.json, item 0, field 'ann_id': no annotation 9 in .*instances\.json"),
        ({"sentences": []}, r"refs\.json, item 0, field 'sentences': expected a list of expressions"),
        ({"image_id": 8}, r"refs\.json, item 0, field 'file_name': expected an image or its path, got None"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    refs, instances, images = refcoco_files(tmp_path)
    rows = json.loads(refs.read_text())
    refs.write_text(json.dumps([rows[0] | change]))
    with pytest.raises(DataError, match=message):
        refcoco(refs, images, instances=instances)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    refs, instances, images = refcoco_files(tmp_path)
    with pytest.raises(
        DataError, match=r"field 'bbox': the row has no box. For the original layout pass instances="
    ):
        refcoco(refs, images)
    with pytest.raises(DataError, match="Pass the folder of the images as images="):
        refcoco(refs, instances=instances)
    with pytest.raises(DataError, match=r"question is a text with \{expression\} in it"):
        refcoco(refs, images, question="Where?")
    instances.write_text(json.dumps({"images": [{"file_name": "a"}], "annotations": []}))
    with pytest.raises(DataError, match=r"instances\.json, images, item 0: expected an id"):
        refcoco(refs, images, instances=instances)
    instances.write_text("{}")
    with pytest.raises(DataError, match="expected annotations and images"):
        refcoco(refs, images, instances=instances)


def test_the_rows_of_a_split_are_taken(tmp_path: Path) -> None:
    refs, instances, images = refcoco_files(tmp_path)
    found = {
        split: refcoco(refs, images, split, instances=instances) for split in ("val", "train", "testA", None)
    }
    assert {split: [one.meta["split"] for one in samples] for split, samples in found.items()} == {
        "val": ["validation"] * 2, "train": ["train"] * 2, "testA": [], None: ["validation"] * 2 + ["train"] * 2,
    }  # fmt: skip
    assert [one.id for one in found["train"]] == ["refs:1:0", "refs:1:1"]


def test_a_part_of_a_data_set_names_the_split(tmp_path: Path) -> None:
    import datasets

    image(tmp_path / "a.jpg")
    rows = {
        name: [{"file_name": "a.jpg", "bbox": [4, 2, 16, 8], "answer": [name, "other"]}]
        for name in ("val", "test")
    }
    parts = datasets.DatasetDict({name: datasets.Dataset.from_list(held) for name, held in rows.items()})
    found = refcoco(parts, tmp_path, "val", "mine", expressions="first")
    assert [(one.meta["expression"], one.meta["split"]) for one in found] == [("val", "validation")]
    assert found.name == "mine"


def test_the_file_of_the_instances_comes_first(tmp_path: Path) -> None:
    refs, instances, images = refcoco_files(tmp_path)
    image(images / "other.jpg")
    rows = json.loads(refs.read_text())
    refs.write_text(
        json.dumps([one | {"file_name": "other.jpg", "image_path": "x/other.jpg"} for one in rows])
    )
    (name,) = {Path(str(one.image)).name for one in refcoco(refs, images, instances=instances)}
    assert name == "COCO_train2014_000000000007.jpg"
