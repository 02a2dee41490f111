from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp.data import coco_instances
from interp.errors import DataError
from tests.data.source_files import HEIGHT, WIDTH, coco_file, marked, thing

SQUARE = [4, 2, 10, 8]
POLYGON = [[4, 2, 14, 2, 14, 10.5, 4, 10]]


def runs(values: np.ndarray) -> list[int]:
    """COCO's uncompressed runs, column by column, zeros first."""
    flat = values.T.ravel() > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat, [False]]).astype(int)))
    edges = np.concatenate([[0], edges, [len(flat)]])
    found = np.diff(edges).tolist()
    return found if found[-1] else found[:-1]


def compressed(values: np.ndarray) -> str:
    from pycocotools import mask

    return mask.encode(np.asfortranarray(values))["counts"].decode()


def test_one_sample_for_each_image_and_category(tmp_path: Path) -> None:
    path = coco_file(
        tmp_path,
        [thing(7, SQUARE), thing(8, [20, 2, 5, 5]), thing(9, SQUARE, 22), thing(10, SQUARE, image_id=2)],
    )
    samples = coco_instances(path, tmp_path / "val2017")
    people, elephant, other = samples
    assert [box.as_tuple() for box in people.boxes] == [(4, 2, 14, 10), (20, 2, 25, 7)]
    assert (people.question, elephant.question) == (
        "Is there a person in the image?",
        "Is there an elephant in the image?",
    )
    assert people.answer == "yes"
    assert people.group == elephant.group != other.group
    assert people.meta["annotation_ids"] == [7, 8]
    assert (elephant.meta["label"], elephant.meta["supercategory"]) == ("elephant", "animal")
    assert samples.name == "instances_val2017"
    assert samples.skipped == {}


def test_crowds_and_boxes_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    path = coco_file(
        tmp_path, [thing(1, SQUARE), thing(2, [1, 1, 0, 5]), thing(3, [0, 0, 40, 20], iscrowd=1)]
    )
    samples = coco_instances(path, tmp_path / "val2017")
    assert len(samples[0].boxes) == 1
    assert samples.skipped == {"boxes without an area": 1, "crowd regions": 1}
    assert samples[:0].skipped == samples.skipped
    assert (samples + samples).skipped["crowd regions"] == 2
    assert "left out: 1 × crowd regions" in repr(samples)
    assert len(coco_instances(path, tmp_path / "val2017", crowd="keep")[0].boxes) == 2


@pytest.mark.parametrize("kind", ["polygon", "runs", "compressed"])
def test_boxes_around_masks(tmp_path: Path, kind: str) -> None:
    values = marked((4, 2, 14, 10), (30, 15, 31, 20))
    mask: Any = {
        "polygon": POLYGON,
        "runs": {"size": [HEIGHT, WIDTH], "counts": runs(values)},
        "compressed": {"size": [HEIGHT, WIDTH], "counts": compressed(values)},
    }[kind]
    path = coco_file(tmp_path, [thing(1, [0, 0, 1, 1], segmentation=mask)])
    (sample,) = coco_instances(path, tmp_path / "val2017", boxes="segmentation")
    assert sample.boxes[0].as_tuple() == ((4, 2, 14, 10.5) if kind == "polygon" else (4, 2, 31, 20))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 2, 3]], "expected polygons"),
        ([], "expected polygons"),
        ([[1, 2, 3, 4, 5, 6, 7]], "expected polygons"),
        ([POLYGON[0], [1, 2, 3, 4]], "expected polygons"),
        ([[1, 2, 3, 4, 5, "6"]], "expected polygons"),
        ([3], "expected polygons"),
        ("runs", "expected polygons, or a run-length mask"),
        ({"size": [HEIGHT, WIDTH], "counts": [0.5, 799.5]}, "expected runs that add up to 800 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [-1, 801]}, "expected runs that add up to 800 pixels"),
        ({"size": [WIDTH, HEIGHT], "counts": [800]}, "expected polygons, or a run-length mask of size"),
        ({"size": [HEIGHT, WIDTH], "counts": 800}, "expected counts as a list or a compressed text"),
        ({"size": [5, 5], "counts": [25]}, r"expected polygons, or a run-length mask of size \[20, 40\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "expected runs that add up to 800 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "0" * 50}, "expected compressed runs of 800 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "~~"}, "expected counts as a list or a compressed text"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 40}, "expected compressed runs of 800 pixels"),
    ],
)
def test_a_bad_mask_is_named(tmp_path: Path, mask: Any, message: str) -> None:
    path = coco_file(tmp_path, [thing(77, SQUARE, segmentation=mask)])
    with pytest.raises(DataError, match=f"image 1, field 'segmentation of annotation 77': {message}"):
        coco_instances(path, tmp_path / "val2017", boxes="segmentation")


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (thing(77, [1, 2, 3]), "image 1, field 'bbox of annotation 77': expected four numbers"),
        (thing(77, [1, 2, 3, "4"]), "image 1, field 'bbox of annotation 77': expected four numbers"),
        (thing(77, [30, 2, 20, 4]), r"image 1, field 'bbox of annotations \[77\]': person: box .* outside"),
        (thing(77, SQUARE, 5), "image 1, field 'category_id of annotation 77': no category 5"),
        (thing(77, SQUARE, image_id=9), "annotation 77: its image_id 9 is not in images"),
        ({"id": 77}, r"annotation 0 \(from 0\): expected an object with image_id"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path: Path, annotation: Any, message: str) -> None:
    path = coco_file(tmp_path, [annotation])
    with pytest.raises(DataError, match=rf"instances_val2017\.json, {message}"):
        coco_instances(path, tmp_path / "val2017")


def test_a_triangle_and_several_polygons_have_one_box(tmp_path: Path) -> None:
    parts = [[4, 2, 14, 2, 14, 10], [20, 5, 22, 5, 22, 12]]
    path = coco_file(tmp_path, [thing(1, [0, 0, 1, 1], segmentation=parts)])
    (sample,) = coco_instances(path, tmp_path / "val2017", boxes="segmentation")
    assert sample.boxes[0].as_tuple() == (4, 2, 22, 12)


def test_images_without_annotations_make_nothing_unless_broken(tmp_path: Path) -> None:
    images: list[Any] = [
        {"id": 1, "file_name": "000000000001.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 5, "file_name": "none.jpg", "width": 1, "height": 1},
        {"file_name": "no id"},
    ]
    path = coco_file(tmp_path, [thing(1, SQUARE)], images=images)
    found = coco_instances(path, tmp_path / "val2017", bad_rows="record")
    assert [one.is_usable for one in found] == [True, False]
    assert "image number 2: expected an object with an id" in str(found[1].fault)


def test_a_missing_image_and_another_file(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "no.jpg", "width": 40, "height": 20}]
    path = coco_file(tmp_path, [thing(1, SQUARE)], images=images)
    with pytest.raises(DataError, match=r"image 1, field 'file_name': no file 'no.jpg'"):
        coco_instances(path, tmp_path / "val2017")
    (stand_in,) = coco_instances(path, tmp_path / "val2017", bad_rows="record")
    assert not stand_in.is_usable
    with pytest.raises(DataError, match="image 1, field 'width': expected width and height"):
        coco_instances(
            coco_file(
                tmp_path,
                [thing(1, SQUARE)],
                images=[{**images[0], "width": 0, "file_name": "000000000001.jpg"}],
            ),
            tmp_path / "val2017",
        )
    with pytest.raises(DataError, match="has no list 'images'; a COCO instances file"):
        coco_instances(coco_file(tmp_path, [], images=None), tmp_path)
    with pytest.raises(DataError, match="question is a text that may hold"):
        coco_instances(path, tmp_path, question="Is there {x}?")


def test_each_image_is_a_group_with_its_own_annotations(tmp_path: Path) -> None:
    listed = [
        thing(4, SQUARE, image_id=2), thing(5, SQUARE), thing(6, [1, 1, 0, 0]), thing(7, [20, 2, 5, 5], image_id=2),
        thing(8, SQUARE, 22, image_id=2),
    ]  # fmt: skip
    found = coco_instances(coco_file(tmp_path, listed), tmp_path / "val2017")
    about = [
        (one.meta["label"], one.meta["image_id"], one.meta["annotation_ids"], one.group) for one in found
    ]
    assert about == [
        ("person", 1, [5], "instances_val2017:1"),
        ("person", 2, [4, 7], "instances_val2017:2"),
        ("elephant", 2, [8], "instances_val2017:2"),
    ]
    assert [Path(str(one.image)).name for one in found] == ["000000000001.jpg"] + ["000000000002.jpg"] * 2
    assert len(set(found.sample_ids)) == 3


def test_corners_are_read_as_corners(tmp_path: Path) -> None:
    path = coco_file(tmp_path, [thing(1, [4, 2, 14, 10]), thing(2, [5, 1, 5, 9])])
    found = coco_instances(path, tmp_path / "val2017", box_format="xyxy")
    assert [box.as_tuple() for box in found[0].boxes] == [(4, 2, 14, 10)]
    assert found.skipped == {"boxes without an area": 1}


def test_empty_masks_are_counted_and_ids_follow_the_boxes(tmp_path: Path) -> None:
    empty = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    listed = [thing(1, SQUARE, segmentation=empty), thing(2, SQUARE, segmentation=POLYGON)]
    found = coco_instances(coco_file(tmp_path, listed), tmp_path / "val2017", boxes="segmentation")
    assert [one.meta["annotation_ids"] for one in found] == [[2]]
    assert found.skipped == {"boxes without an area": 1}
