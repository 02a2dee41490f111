"""One sample for each label of a picture, and the question that names it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from interp.data.labelled import NO_AREA, PRESENT, VISIBLE, Asked, mask_values, plain_label, with_area
from interp.data.lines import Row
from interp.errors import DataError
from interp.inputs.masks import Mask
from interp.inputs.sample import Box

PICTURE = np.zeros((20, 30), np.uint8)


def test_a_sample_has_the_boxes_and_masks_of_its_label(tmp_path) -> None:
    masks = {"old_tree": [Mask(np.eye(20, 30, dtype=np.uint8))]}
    regions = {"old_tree": [(1, 2, 5, 6), (7, 8, 9, 9)], "none": [], "cup": [(0, 0, 3, 3)]}
    tree, cup = Asked(PRESENT, "yes").samples(
        Row(tmp_path / "a.json", 7),
        PICTURE,
        regions,
        size=(30, 20),
        group="g",
        meta={"view": "left"},
        masks=masks,
    )
    assert (tree.question, cup.question) == (
        "Is there an old tree in the image?",
        "Is there a cup in the image?",
    )
    assert (tree.answer, tree.group, tree.id) == ("yes", "g", f"{Row(tmp_path / 'a.json', 7).id}:old_tree")
    assert dict(cup.meta) == {"label": "cup", "view": "left"}
    assert tree.boxes == (Box(1, 2, 5, 6), Box(7, 8, 9, 9))
    assert (tree.masks, cup.masks) == (tuple(masks["old_tree"]), ())
    assert Asked(VISIBLE, None).samples(Row(tmp_path, 1), PICTURE, {"cup": [(0, 0, 3, 3)]})[0].answer is None
    beyond = {"cup": [(0, 0, 40, 3)]}
    with pytest.raises(DataError, match=r"cup: box .* reaches outside"):
        Asked(VISIBLE, None).samples(Row(tmp_path, 1), PICTURE, beyond, size=(30, 20))
    assert len(Asked(VISIBLE, None).samples(Row(tmp_path, 1), PICTURE, beyond)) == 1


@pytest.mark.parametrize(
    "question", ["{other}?", "{0}?", "{label", "{label.x}?", " ", 3, "{label}\0", "x" * 10_001]
)
def test_a_template_with_other_fields_is_refused(question, unchecked) -> None:
    with pytest.raises(DataError, match=r"question is a text that may hold \{label\} and \{a\}"):
        Asked(question, "yes")


def test_texts_at_the_limits() -> None:
    assert Asked("x" * 10_000, None).text("cup") == "x" * 10_000
    assert plain_label(" left__lung _lobe") == "left lung lobe"
    assert [Asked("{a} {label}", "").text(one) for one in ("ear", "Organ", "hand")] == [
        "an ear",
        "an Organ",
        "a hand",
    ]


def test_boxes_without_an_area_are_counted() -> None:
    dropped: Counter[str] = Counter()
    boxes = [(0, 0, 3, 0), (0, 0, 0, 3), (3, 3, 3, 9), (3, 5, 9, 5), (4, 2, 4, 2)]
    assert with_area(boxes, dropped, sides=True) == boxes[2:]
    assert dropped == {NO_AREA: 2}
    corners = [(3, 3, 3, 9), (3, 5, 9, 5), (4, 2, 4, 2), (1, 0, 0, 1)]
    assert with_area(corners, dropped, sides=False) == [(1, 0, 0, 1)]  # turned corners are refused elsewhere
    assert dropped == {NO_AREA: 5}


def test_a_mask_has_the_size_of_its_image(tmp_path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "mask.png")
    assert mask_values(tmp_path / "mask.png", (30, 20)).shape == (20, 30)
    with pytest.raises(DataError, match=r"is 30×20 pixels, its image 20×30 \(width×height\)"):
        mask_values(tmp_path / "mask.png", (20, 30))


def test_labels_come_in_order_with_their_own_meta_and_formats(tmp_path) -> None:
    row = Row(tmp_path / "a.b.json", 3, unit="item")
    regions = {"b": [(1, 2, 4, 4)], "a": [(0.1, 0.1, 0.5, 0.5)]}
    first, second = Asked("Where is {a} {label}?", None).samples(
        row, PICTURE, {"b": regions["b"], "a": [(2, 2, 3, 3)]}, box_format="xywh", meta={"label": "x", "n": 1}
    )
    assert [one.id for one in (first, second)] == ["a.b:3:b", "a.b:3:a"]
    assert [one.boxes[0].as_tuple() for one in (first, second)] == [(1, 2, 5, 6), (2, 2, 5, 5)]
    assert (second.question, second.group, second.meta["n"]) == ("Where is an a?", None, 1)
    (part,) = Asked(PRESENT, "ja").samples(row, PICTURE, {"a": regions["a"]}, box_format="fraction")
    assert (part.boxes[0].as_tuple(), part.answer) == ((3, 2, 15, 10), "ja")
    with pytest.raises(DataError, match=r"a\.b\.json, item 3, field 'roi': .*x1 > x0"):
        Asked(PRESENT, "yes").samples(row, PICTURE, {"a": [(3, 3, 1, 1)]}, field="roi")


@pytest.mark.parametrize("answer", [3, ["yes"]])
def test_an_answer_is_a_text_or_none(answer, unchecked) -> None:
    with pytest.raises(DataError, match="answer is the text that answers every question, or None"):
        Asked(PRESENT, answer)
