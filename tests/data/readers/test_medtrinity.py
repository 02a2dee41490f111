from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.data import medtrinity
from interp.errors import DataError


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
