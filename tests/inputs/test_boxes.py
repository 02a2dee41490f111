from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from interp.errors import BoxError
from interp.inputs.boxes import Box, as_boxes
from interp.inputs.sample import Sample

PIXELS = np.zeros((30, 40, 3), np.uint8)  # 40×30


@pytest.fixture
def file(tmp_path: Path) -> str:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def edges(sample: Sample) -> list[tuple[float, ...]]:
    return [box.as_tuple() for box in sample.boxes]


FRACTIONS = [
    (0.2, 0.3, 0.5, 0.6),
    (0, 0, 1, 1),
    (0.0, 0.1, 1.0, 1.0),
    (-0.1, 0.1, 0.5, 0.5),
    np.array([0.1, 0.1, 0.9, 0.9], np.float32),
    Box(0.1, 0.1, 0.2, 0.2),
]


@pytest.mark.parametrize("box", FRACTIONS, ids=str)
def test_fractions_are_refused_once_the_size_is_known(box: Any, file: str) -> None:
    with pytest.raises(BoxError, match=r'at most 1, but its image is 40×30 pixels.*box_format="fraction"'):
        Sample(PIXELS, "q", [box])
    late = Sample(file, "q", [box])
    for check in (late.check, late.check_units):
        with pytest.raises(BoxError, match="at most 1"):
            check()


def test_advice_for_inverted_fractions_and_pixels() -> None:
    with pytest.raises(BoxError, match=r"x1 > x0 .*look like fractions"):
        Sample(PIXELS, "q", [(0.2, 0.3, 0.1, 0.1)])
    with pytest.raises(BoxError, match=r'x1 > x0 .*box_format="xywh"') as caught:
        Sample(PIXELS, "q", [(20, 20, 10, 5)])
    assert "fractions" not in str(caught.value)


def test_one_pixel_can_be_stated(file: str) -> None:
    stated = Sample(file, "q", [(0, 0, 1, 1)], box_format="xyxy")
    read = Sample.from_dict(stated.to_dict())
    for sample in (stated, read, stated.replace(question="r"), pickle.loads(pickle.dumps(stated))):
        sample.check()
    Sample(PIXELS, "q", [Box(0, 0, 1, 1, pixels=True)]).check()
    assert stated.boxes == (Box(0, 0, 1, 1),)
    assert stated.fingerprint == Sample(file, "q", [(0, 0, 1, 1)]).fingerprint


def test_an_image_of_one_pixel_is_no_larger() -> None:
    Sample(np.zeros((1, 1), np.uint8), "q", [(0, 0, 1, 1)]).check()


@pytest.mark.parametrize(
    ("box_format", "box", "expected"),
    [
        ("xyxy", (4, 3, 20, 15), (4, 3, 20, 15)),
        ("xywh", (4, 3, 16, 12), (4, 3, 20, 15)),
        ("cxcywh", (12, 9, 16, 12), (4, 3, 20, 15)),
        ("fraction", (0.1, 0.1, 0.5, 0.5), (4, 3, 20, 15)),
        ("fraction", (0, 0, 1.0004, 1), (0, 0, 40, 30)),
        ("fraction", Box(4, 3, 20, 15), (4, 3, 20, 15)),  # a Box is in pixels already
        ("xywh", np.array([4, 3, 16, 12, 0.0]), (4, 3, 20, 15)),
    ],
)
def test_formats(box_format: str, box: Any, expected: tuple[float, ...], file: str) -> None:
    for image in (file, PIXELS):
        sample = Sample(image, "q", [box], box_format=box_format)
        assert edges(sample) == [pytest.approx(expected)]
        sample.check()


def test_fractions_are_of_the_boxes_own_image(file: str) -> None:
    sample = Sample(
        images=[PIXELS, np.zeros((10, 10), np.uint8)], boxes=[(0, 0, 0.5, 0.5, 1)], box_format="fraction"
    )
    assert edges(sample) == [(0, 0, 5, 5)]
    with pytest.raises(BoxError, match="names image 2, but the sample has 1"):
        Sample(file, boxes=[(0, 0, 0.5, 0.5, 2)], box_format="fraction")


@pytest.mark.parametrize(
    ("box_format", "box", "message"),
    [
        ("yolo", (1, 2, 3, 4), "box_format is one of 'xyxy', 'xywh', 'cxcywh', 'fraction'.*got 'yolo'"),
        (3, (1, 2, 3, 4), "box_format is one of"),
        ("xywh", (20, 10, 0, 5), "a width and a height above 0"),
        ("cxcywh", (20, 10, 5, -1), "a width and a height above 0"),
        ("xywh", (20, 10, float("nan"), 5), "finite numbers of pixels; got w=nan"),
        ("fraction", (0, 0, 20, 10), "lies between 0 and 1"),
        ("fraction", (0.5, 0.5, 0.1, 0.1), "x1 > x0"),
        ("xywh", (0.2, 0.3, 0.1, 0.1), "at most 1"),
        (None, (0, 0, 10**400, 5), "finite numbers of pixels; got x1=1000"),
    ],
)
def test_refusals(unchecked: None, box_format: Any, box: Any, message: str) -> None:
    with pytest.raises(BoxError, match=message):
        Sample(PIXELS, "q", [box], box_format=box_format)


@pytest.mark.parametrize(
    "boxes", [np.array(3), [np.array(3)], np.ma.masked_array([[1.0, 2, 3, 4]], [[0, 0, 1, 0]])]
)
def test_arrays_that_are_no_boxes(unchecked: None, boxes: Any) -> None:
    with pytest.raises(BoxError, match=r"expected a list of boxes|a box is|got x1=masked"):
        as_boxes(boxes)


def test_fractions_need_a_size() -> None:
    with pytest.raises(BoxError, match="whose size is not known"):
        as_boxes([(0, 0, 0.5, 0.5)], "fraction")
