from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.data import medtrinity
from interp.errors import BoxError, DataError


def row(**changes: Any) -> dict[str, Any]:
    return {"image": Image.new("L", (40, 20)), "id": "8b01", "caption": "A CT slice …", **changes}


def test_rows_of_the_hub_have_no_boxes() -> None:
    (sample,) = medtrinity([row()])
    assert (sample.boxes, sample.answer, sample.id) == ((), "A CT slice …", "8b01")
    samples = medtrinity([row(), row(bbox=[1, 1, 9, 9])], without="skip")
    assert (len(samples), samples.skipped) == (1, {"rows without a box": 1})


def test_boxes_from_a_column_or_a_file(tmp_path: Path) -> None:
    (own,) = medtrinity([row(bbox=[[4, 2, 16, 8], [1, 1, 2, 2]], source="x")], box_format="xywh")
    assert [box.as_tuple() for box in own.boxes] == [(4, 2, 20, 10), (1, 1, 3, 3)]
    assert dict(own.meta) == {"source": "x"}
    path = tmp_path / "boxes.jsonl"
    path.write_text(json.dumps({"id": "8b01", "bbox": [1, 2, 3, 4]}))
    assert medtrinity([row(bbox=None)], boxes=path)[0].boxes[0].as_tuple() == (1, 2, 3, 4)
    path.write_text(json.dumps({"id": "8b01"}))
    with pytest.raises(DataError, match=r"boxes\.jsonl, line 1: expected id and bbox"):
        medtrinity([row()], boxes=path)


@pytest.mark.parametrize("field", ["bbox", "boxes", "bounding_box", "roi"])
def test_a_box_has_one_of_four_names(field: str) -> None:
    (found,) = medtrinity([row(**{field: [1, 2, 3, 4]}, source="x")])
    assert [box.as_tuple() for box in found.boxes] == [(1, 2, 3, 4)]
    assert dict(found.meta) == {"source": "x"}
    assert medtrinity([row(**{field: [1, 2, 3, 4]})], question="Where?")[0].question == "Where?"


def test_boxes_by_id_and_the_split(tmp_path: Path) -> None:
    import datasets

    both = [{"id": "8b01", "bbox": [1, 2, 3, 4]}, {"id": 7, "bbox": []}]
    path = tmp_path / "boxes.JSONL"
    path.write_text("\n".join(map(json.dumps, both)))
    listed = tmp_path / "boxes.json"
    listed.write_text(json.dumps(both))
    for known in (path, listed):
        found = medtrinity([row(), row(id=7), row(id=8)], boxes=known)
        assert [len(one.boxes) for one in found] == [1, 0, 0]
    parts = {name: datasets.Dataset.from_list([row(caption=name)]) for name in ("train", "test")}
    (one,) = medtrinity(datasets.DatasetDict(parts), "test")
    assert (one.answer, dict(one.meta)) == ("test", {"split": "test"})


@pytest.mark.parametrize("question", ["", "  ", "a\0", 3])
def test_the_question_is_a_text(question: Any, unchecked: None) -> None:
    with pytest.raises(DataError, match="question is a text that is not empty"):
        medtrinity([row()], question=question)


def test_a_bad_row_is_named() -> None:
    with pytest.raises(DataError, match="the list, row 1, field 'caption': expected a text"):
        medtrinity([row(), row(caption="")])
    with pytest.raises(DataError, match="the list, row 0, field 'bbox': expected a box"):
        medtrinity([row(bbox="left")])
    with pytest.raises(DataError, match=r"the list, row 0, field 'bbox': every edge .* at most 1"):
        medtrinity([row(bbox=[0.1, 0.1, 0.5, 0.5])])
    with pytest.raises(DataError, match="has no column caption of MedTrinity-25M"):
        medtrinity([{"image": 1, "question": "?"}])
    with pytest.raises(DataError, match="without is 'keep' or 'skip'"):
        medtrinity([row()], without="drop")
    with pytest.raises(BoxError, match="box_format is one of"):
        medtrinity([row()], box_format="yolo")


def test_a_file_of_boxes_comes_before_the_column(tmp_path: Path) -> None:
    Image.new("L", (40, 20)).save(tmp_path / "a.png")
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"id": "8b01", "bbox": [[1, 2, 3, 4], [5, 6, 9, 9]]}]))
    rows = [row(image="a.png", bbox=[9, 9, 19, 19]), row(image="a.png", id=None, bbox=[9, 9, 19, 19])]
    found = medtrinity(rows, boxes=path, images=tmp_path, name="mine")
    assert [[box.as_tuple() for box in one.boxes] for one in found] == [[(1, 2, 3, 4), (5, 6, 9, 9)], []]
    assert [str(one.image) for one in found] == [str(tmp_path / "a.png")] * 2
    assert found.name == "mine"
    assert found[1].id == found[1].fingerprint[:12]
    assert len(set(found.groups)) == 1
    assert medtrinity(rows, boxes=path, images=tmp_path, without="skip").skipped == {"rows without a box": 1}
