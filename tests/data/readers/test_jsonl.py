from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interp.data import jsonl
from interp.errors import BoxError, DataError

GOOD = {"image": "images/a.png", "question": "Which side is the liver on?"}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("L", (40, 20)).save(tmp_path / f"images/{name}.png")

    def writer(*rows: Any) -> Path:
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return path

    return writer


def test_a_row_becomes_a_sample(write: Any, tmp_path: Path) -> None:
    row = {**GOOD, "boxes": [[1, 2, 3, 4], [5, 6, 7, 8.5]], "answer": "left", "group": 7, "id": "x",
           "options": ["left", "right"], "meta": {"a": 1}, "modality": "CT"}  # fmt: skip
    samples = jsonl(write(row))
    (sample,) = samples
    assert samples.name == "rows"
    assert Path(str(sample.image)) == tmp_path / "images/a.png"
    assert [box.as_tuple() for box in sample.boxes] == [(1, 2, 3, 4), (5, 6, 7, 8.5)]
    assert (sample.answer, sample.group, sample.id, sample.options) == ("left", "7", "x", ("left", "right"))
    assert dict(sample.meta) == {"a": 1, "modality": "CT"}


def test_bbox_is_one_box_or_several(write: Any) -> None:
    one, several, none = jsonl(write({**GOOD, "bbox": [1, 2, 3, 4]}, {**GOOD, "bbox": [[1, 2, 3, 4]]}, GOOD))
    assert one.boxes == several.boxes
    assert one.boxes[0].as_tuple() == (1, 2, 3, 4)
    assert none.boxes == ()


def test_each_box_is_measured_by_its_own_image(write: Any, tmp_path: Path) -> None:
    Image.new("L", (10, 30)).save(tmp_path / "images/tall.png")
    row = {"images": ["images/a.png", "images/tall.png"], "question": "?", "size": [40, 20]}
    parts = [[0.1, 0.1, 0.5, 0.5, image] for image in (1, 0)]
    (sample,) = jsonl(write({**row, "boxes": parts}), box_format="fraction")
    assert [(box.image, box.as_tuple()) for box in sample.boxes] == [(1, (1, 3, 5, 15)), (0, (4, 2, 20, 10))]
    (sample,) = jsonl(write({**row, "boxes": [[1, 2, 3, 25, 1]]}))  # the row's size is the first image's
    assert sample.boxes[0].y1 == 25
    with pytest.raises(DataError, match="outside"):
        jsonl(write({**row, "boxes": [[1, 2, 3, 25, 0]]}))


def test_several_images_and_the_box_that_names_one(write: Any) -> None:
    row = {"images": ["images/a.png", "images/b.png"], "question": "?", "boxes": [[1, 2, 3, 4, 1]]}
    (sample,) = jsonl(write(row))
    assert len(sample.images) == 2
    assert sample.boxes[0].image == 1


def test_empty_lines_are_skipped_but_counted(write: Any) -> None:
    assert len(jsonl(write(GOOD, "", GOOD))) == 2
    with pytest.raises(DataError, match=r"rows\.jsonl, line 3, field 'question'"):
        jsonl(write(GOOD, "", {"image": "images/a.png"}))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "line 2: not JSON"),
        ([1], "line 2: expected a JSON object, got list"),
        ({"question": "?"}, "line 2, field 'image': a row needs exactly one of image"),
        ({**GOOD, "images": ["images/a.png"]}, "exactly one of image"),
        ({**GOOD, "image": "images/c.png"}, "line 2, field 'image': no file 'images/c.png' in"),
        ({**GOOD, "image": 3}, "line 2, field 'image': expected str, got 3"),
        ({**GOOD, "question": ""}, "line 2, field 'question': expected a text that is not empty, got ''"),
        ({**GOOD, "answer": 3}, "line 2, field 'answer': expected str or null, got 3"),
        ({**GOOD, "boxes": [[3, 2, 1, 4]]}, "line 2, field 'boxes': a box needs x1 > x0"),
        ({**GOOD, "boxes": [[1, 2, 3]]}, "line 2, field 'boxes'"),
        ({**GOOD, "boxes": {"x0": 1}}, "line 2, field 'boxes': expected list"),
        (
            {**GOOD, "bbox": [[1, 2, 3, "4"]]},
            "line 2, field 'bbox': expected boxes .x0, y0, x1, y1. in pixels",
        ),
        ({**GOOD, "boxes": [], "bbox": []}, "got both"),
        ({**GOOD, "bbox": [1, True, 3, 4]}, "line 2, field 'bbox': expected boxes"),
        ({**GOOD, "meta": [1]}, r"line 2, field 'meta': expected dict, got \[1\]"),
        (
            {**GOOD, "fps": "2"},
            "line 2, field 'fps': expected int or float or null",
        ),
        ({**GOOD, "n_frames": 1.5}, "line 2, field 'n_frames': expected int or null"),
        ({**GOOD, "video_fps": "2"}, "line 2, field 'video_fps': expected int or float or null"),
        ({**GOOD, "times": "01"}, "line 2, field 'times': expected list or null"),
        ({"images": [3], "question": "?"}, "line 2, field 'images': no file 3 in .* It is no path"),
        ({"images": ["images/c.png"], "question": "?"}, "line 2, field 'images': no file 'images/c.png'"),
        ({"video": ["images/a.png", 3], "fps": 1, "question": "?"}, "line 2, field 'video': no file 3"),
        (
            {"video": ["images/c.png"], "fps": 1, "question": "?"},
            "line 2, field 'video': no file 'images/c.png'",
        ),
        ({"video": ["images"], "fps": 1, "question": "?"}, "line 2, field 'video': no file 'images'"),
        (
            {"video": "images", "images": [], "question": "?"},
            "line 2, field 'images': a row needs exactly one",
        ),
        ({**GOOD, "question": " "}, "line 2, field 'question': expected a text that is not empty, got ' '"),
        ({**GOOD, "id": True}, "line 2, field 'id': expected str or int, got True"),
        ({**GOOD, "options": ["a", "a"]}, "line 2: each option is given once"),
        ({**GOOD, "options": {"A": "a"}}, "line 2, field 'options': expected list"),
        ({**GOOD, "image": "/dev/zero"}, "line 2, field 'image': .* It is a device"),
        ({**GOOD, "image": "a\0"}, "line 2, field 'image': .*null byte"),
        ({**GOOD, "image": "a" * 9_000}, "line 2, field 'image': .*too long"),
        ({**GOOD, "x": "\0"}, r"line 2: meta\['x'\] holds the control character"),
        ({**GOOD, "boxes": [[0.1, 0.2, 0.5, 0.6]]}, "line 2, field 'boxes': every edge .* at most 1"),
        ({**GOOD, "bbox": [0, 0, 1, 1], "size": [40, 20]}, "line 2, field 'bbox': every edge .* at most 1"),
        ({**GOOD, "bbox": [0, 0, 10**400, 1]}, "line 2, field 'bbox': a box's edges are finite"),
        ({**GOOD, "bbox": [0, 0, 9, 9], "size": [10**400, 20]}, "line 2, field 'size': expected"),
        ({**GOOD, "boxes": [[1, 2, 41, 4]], "size": [40, 20]}, "line 2, field 'boxes': box .* outside image"),
        ({**GOOD, "boxes": [[1, 2, 3, 4]], "size": [40]}, "line 2, field 'size': expected .width, height"),
    ],
)
def test_a_bad_row_is_named(write: Any, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        jsonl(write(GOOD, row))
    assert "rows.jsonl" in str(caught.value)


def test_box_formats(write: Any) -> None:
    for box_format, box in {
        "xywh": [4, 2, 16, 8],
        "cxcywh": [12, 6, 16, 8],
        "fraction": [0.1, 0.1, 0.5, 0.5],
    }.items():
        (sample,) = jsonl(write({**GOOD, "bbox": box}), box_format=box_format)
        assert sample.boxes[0].as_tuple() == (4, 2, 20, 10)
    (sample,) = jsonl(write({**GOOD, "bbox": [0, 0, 1, 1]}), box_format="xyxy")
    sample.check()
    with pytest.raises(BoxError, match="box_format is one of 'xyxy'"):
        jsonl(write(GOOD), box_format="yxyx")
    with pytest.raises(
        DataError, match="line 1, field 'bbox': a box names an image that the row lacks: it has 1"
    ):
        jsonl(write({**GOOD, "bbox": [[0, 0, 1, 1, 1]]}), box_format="fraction")


def test_most_boxes_beyond_their_image_are_warned_of_once(write: Any) -> None:
    beyond, inside = {**GOOD, "bbox": [20, 10, 50, 15]}, {**GOOD, "bbox": [1, 1, 9, 9]}
    with pytest.warns(UserWarning, match=r'2 of 3, on 2 samples.*box_format="xywh"'):
        samples = jsonl(write(beyond, beyond, inside))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples.warn_of_boxes()
        samples[:2].warn_of_boxes()
        jsonl(write(beyond, inside))


def test_null_stands_for_a_missing_option_of_a_video(write: Any) -> None:
    row = {"video": ["images/a.png", "images/b.png"], "fps": None, "times": [0, 2], "n_frames": None,
           "video_fps": None, "question": "?", "boxes": [[1, 1, 4, 4, 1]], "modality": "US"}  # fmt: skip
    (sample,) = jsonl(write(row), "mine")
    assert sample.video is not None
    assert (sample.video.times, sample.boxes[0].frame, dict(sample.meta)) == ((0, 2), 1, {"modality": "US"})
    assert jsonl(write({**GOOD, "fps": None}), "mine").name == "mine"


def test_sizes_of_rows_spare_a_look_at_the_files(write: Any) -> None:
    """Boxes that half a pixel may end beyond were compared with the size already."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(jsonl(write({**GOOD, "bbox": [20, 10, 50, 15], "size": [60, 30]}))) == 1


def test_a_bad_row_can_be_recorded(write: Any) -> None:
    good, bad = jsonl(write(GOOD, {**GOOD, "question": "\ud83d"}), bad_rows="record")
    assert (good.is_usable, bad.is_usable, bad.id) == (True, False, "rows:2")


def test_a_missing_or_empty_file(tmp_path: Path, write: Any) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl cannot be read"):
        jsonl(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="holds no rows"):
        jsonl(write(""))


def test_a_line_separator_inside_a_text_does_not_cut_the_row(write: Any) -> None:
    question = "Which side\u2028is the liver on?"
    (sample,) = jsonl(write(json.dumps({**GOOD, "question": question}, ensure_ascii=False)))
    assert sample.question == question


def test_a_row_without_an_id_is_named_by_its_line(write: Any) -> None:
    samples = jsonl(
        write(
            GOOD,
            {**GOOD, "id": "q7"},
            {**GOOD, "question_id": 8},
            {**GOOD, "qid": [1]},
            {**GOOD, "qid": True},
        )
    )
    assert samples.sample_ids == ("rows:1", "q7", "8", "rows:4", "rows:5")
