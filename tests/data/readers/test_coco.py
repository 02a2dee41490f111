from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.data import coco
from interp.errors import BoxError, DataError

NAME = "COCO_val2014_000000000042.jpg"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "val2014" / NAME)
    return tmp_path / "val2014"


def write(folder: Path, *rows: Any, kind: str = "localization") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"COCO_{kind}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def row(image: str = NAME, **changes: Any) -> dict[str, Any]:
    return {
        "image": image,
        "question": "Is there a dog?",
        "bbox": [[10.5, 20, 30, 10], [0, 0, 64, 48]],
        **changes,
    }


def test_rows_and_images_may_lie_apart_and_boxes_are_xywh(root: Path, tmp_path: Path) -> None:
    notes = write(tmp_path / "notes", row(), row("val2014/" + NAME, bbox=["1", "2", "3", "4"]))
    first, second = coco(root, notes)
    assert [box.as_tuple() for box in first.boxes] == [(10.5, 20, 40.5, 30), (0, 0, 64, 48)]
    assert [box.as_tuple() for box in second.boxes] == [(1, 2, 4, 6)]
    assert first.image == second.image == str(root / NAME)
    assert first.group == second.group == NAME
    assert dict(first.meta) == {"kind": "localization", "modality": "photograph", "source": "COCO val2014"}
    assert first.id == "COCO_localization:1"


def test_boxes_read_as_corners_would_pass_and_must_not(root: Path, tmp_path: Path) -> None:
    (found,) = coco(root, write(tmp_path / "notes", row(bbox=[[10, 10, 20, 30]])))
    assert found.boxes[0].as_tuple() == (10, 10, 30, 40)
    write(tmp_path / "notes", row(bbox=[[40, 10, 60, 30]]))
    with pytest.raises(
        DataError, match=r"COCO_localization\.jsonl, line 1, field 'bbox': .*width, height.*outside"
    ):
        coco(root, tmp_path / "notes")


def test_a_float_edge_on_the_border_is_inside(root: Path, tmp_path: Path) -> None:
    (found,) = coco(root, write(tmp_path / "notes", row(bbox=[[10.25, 10.1, 53.76, 37.9]])))
    assert found.boxes[0].x1 == pytest.approx(64.01)


def test_what_is_missing_is_named(root: Path, tmp_path: Path) -> None:
    notes = write(tmp_path / "notes", row(), row("absent.jpg"))
    with pytest.raises(
        DataError, match=r"COCO_localization\.jsonl, line 2, field 'image': no file 'absent.jpg' in"
    ):
        coco(root, notes)
    with pytest.raises(DataError, match=r"COCO_attribute\.jsonl cannot be read"):
        coco(root, notes, kind="attribute")
    with pytest.raises(DataError, match="got 'captions'"):
        coco(root, notes, kind="captions")


def test_the_field_of_the_boxes_can_be_said(root: Path, tmp_path: Path) -> None:
    notes = write(tmp_path / "notes", row(bbox=[[1, 2, 3, 4]], original_bboxes=[[2, 4, 6, 8]]))
    found = [
        coco(root, notes, box_field=field)[0].boxes[0].as_tuple() for field in ("bbox", "original_bboxes")
    ]
    assert found == [(1, 2, 4, 6), (2, 4, 8, 12)]


def test_another_box_format_can_be_stated(root: Path, tmp_path: Path) -> None:
    notes = write(tmp_path / "notes", row(bbox=[[10, 10, 20, 30]]))
    (found,) = coco(root, notes, box_format="xyxy")
    assert found.boxes[0].as_tuple() == (10, 10, 20, 30)
    with pytest.raises(BoxError, match="box_format is one of"):
        coco(root, notes, box_format="yxyx")


def test_fractions_are_refused_and_bad_rows_can_be_recorded(root: Path, tmp_path: Path) -> None:
    notes = write(tmp_path / "notes", row(), row(bbox=[[0.1, 0.1, 0.5, 0.5]]))
    with pytest.raises(DataError, match=r"COCO_localization\.jsonl, line 2, field 'bbox': .*at most 1"):
        coco(root, notes)
    assert [sample.is_usable for sample in coco(root, notes, bad_rows="record")] == [True, False]
