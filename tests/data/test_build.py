from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from interp.data import build
from interp.data.build import Finding, Question
from interp.data.volumes import Volume
from interp.errors import DataError
from interp.inputs.masks import Mask
from interp.inputs.sample import Sample


def disc(shape: tuple[int, int], centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    """An ellipse on a (row, col) grid: centre and radii in (row, col)."""
    row, col = np.indices(shape)
    return ((row - centre[0]) / radii[0]) ** 2 + ((col - centre[1]) / radii[1]) ** 2 <= 1


def test_window_by_hand() -> None:
    values = np.array([-2000.0, -160, 40, 239.9, 240, 3000])
    assert build.window(values, -160, 240).tolist() == [0, 0, 128, 255, 255, 255]
    with pytest.raises(DataError, match="low < high, got 5 and 5"):
        build.window(values, 5, 5)


def test_square_pixels_take_the_finer_spacing() -> None:
    picture = np.zeros((10, 20), np.uint8)
    assert build.square_pixels(picture, (3.0, 1.0)).size == (20, 30)
    assert build.square_pixels(picture, (1.0, 2.5)).size == (50, 10)
    assert build.square_pixels(picture, (2.0, 2.0)).size == (20, 10)
    assert build.square_pixels(picture, (3.0, 1.0), longest=15).size == (10, 15)


@pytest.mark.parametrize(("spacing", "longest"), [((1.0, 1.0), None), ((3.0, 1.0), None), ((1.0, 2.0), 40)])
def test_the_box_of_an_anisotropic_slice_holds_the_resized_mask(
    spacing: tuple[float, float], longest: int | None
) -> None:
    mask = disc((40, 60), (12, 41), (6, 9))
    (found,) = build.find(mask.astype(int), {1: "cyst"}, Counter())
    image = build.square_pixels(mask.astype(np.uint8) * 255, spacing, longest)
    x0, y0, x1, y1 = build.scale_box(found.box, (60, 40), image.size)
    rows, columns = np.nonzero(np.asarray(image) > 127)  # the mask recomputed in the final picture
    assert x0 - 0.5 <= columns.min() < x0 + 1.5
    assert y0 - 0.5 <= rows.min() < y0 + 1.5 * max(spacing[0], 1)
    assert x1 - 1.5 * max(spacing[1], 1) < columns.max() + 1 <= x1 + 0.5
    assert y1 - 1.5 * max(spacing[0], 1) < rows.max() + 1 <= y1 + 0.5


def test_boxes_are_half_open() -> None:
    mask = np.zeros((5, 8), bool)
    mask[1:3, 4:8] = True
    assert build.box_of(mask) == (4, 1, 8, 3)
    assert build.scale_box((4, 1, 8, 3), (8, 5), (16, 20)) == (8, 4, 16, 12)
    with pytest.raises(DataError, match="marks none, so it has no box"):
        build.box_of(np.zeros((5, 8), bool))


@pytest.mark.parametrize(("stray", "kept"), [(20, True), (21, False)])
def test_a_structure_in_pieces_is_kept_from_four_fifths_on(stray: int, kept: bool) -> None:
    mask = np.zeros((40, 40), bool)
    mask[0:8, 0:10] = True  # 80 of 80 + stray pixels
    mask[30, :stray] = True
    piece = build.largest_component(mask)
    dropped: Counter[str] = Counter()
    found = build.find(mask.astype(int), {1: "liver"}, dropped)
    if kept:
        assert piece is not None
        assert piece.sum() == 80
        assert found == [Finding("liver", (0, 0, 10, 8), 80 / 1600)]
        assert not dropped
    else:
        assert piece is None
        assert found == []
        assert dropped == {"components": 1}


def test_pixels_that_touch_at_a_corner_are_two_pieces() -> None:
    assert build.largest_component(np.eye(4, dtype=bool)) is None
    assert build.largest_component(np.zeros((4, 4), bool)) is None


def test_area_limits_are_counted() -> None:
    labels = np.zeros((100, 100), int)
    labels[0:5, 0:10] = 1  # 0.5 %
    labels[10:14, 0:12] = 2  # 0.48 %
    labels[20:80, 0:100] = 3  # 60 %
    dropped: Counter[str] = Counter()
    names = {1: "cyst", 2: "stone", 3: "liver", 4: "spleen"}
    assert [f.label for f in build.find(labels, names, dropped)] == ["cyst", "liver"]
    labels[80, 0] = 3  # 61 %
    assert [f.label for f in build.find(labels, names, dropped)] == ["cyst"]
    assert dropped == {"small": 2, "large": 1}


def test_limits_of_a_structure_are_the_callers() -> None:
    labels = np.zeros((10, 20), int)
    labels[0:2, 0:5] = labels[6, 0:10] = 1  # two pieces of the same size
    half = build.largest_component(labels == 1, 0.5)
    assert half is not None
    assert half.sum() == 10
    assert build.find(labels, {1: "cyst"}, Counter(), share=0.5) == [Finding("cyst", (0, 0, 5, 2), 0.05)]
    for area, why in (((0.06, 1.0), "small"), ((0.0, 0.04), "large")):
        dropped: Counter[str] = Counter()
        assert build.find(labels, {1: "cyst"}, dropped, area=area, share=0.5) == []
        assert dropped == {why: 1}


def test_ids_of_one_name_are_one_structure() -> None:
    labels = np.zeros((20, 20), int)
    labels[2:6, 2:10], labels[6:9, 2:10], labels[12:18, 12:18] = 1, 2, 3
    found = build.find(labels, {1: "lung", 2: "lung"}, Counter())
    assert found == [Finding("lung", (2, 2, 10, 9), 56 / 400)]


def test_side_is_of_the_picture_and_needs_a_margin() -> None:
    assert build.side((0, 0, 84, 10), 200) == "left"  # centre at 21 %
    assert build.side((75, 0, 95, 10), 200) is None  # 7.5 % off the midline
    assert build.side((73, 0, 93, 10), 200) == "left"
    assert build.side((107, 0, 127, 10), 200) == "right"
    assert build.side((0, 0, 200, 10), 200) is None


def test_size_leaves_a_gap() -> None:
    assert [build.size(f) for f in (0.01, 0.04, 0.041, 0.079, 0.08, 0.5)] == [
        "small", "small", None, None, "large", "large",
    ]  # fmt: skip


def test_questions_and_answers_word_for_word() -> None:
    left = build.questions(Finding("right kidney", (10, 10, 30, 30), 0.01), 200)
    assert left == [
        Question("localization", "Which side is the right kidney on?", "left"),
        Question("localization", "Is the right kidney visible?", "yes"),
        Question("attribute", "What size is the right kidney?", "small"),
    ]
    middle = build.questions(Finding("bladder", (90, 10, 110, 30), 0.06), 200)
    assert middle == [Question("localization", "Is the bladder visible?", "yes")]
    assert build.absent("bladder") == Question("localization", "Is the bladder visible?", "no")


def test_foreground_cuts_the_air_away() -> None:
    picture = np.zeros((100, 200), np.uint8)
    picture[20:70, 50:150] = 90
    picture[95, 0:3] = 255  # a bright speck elsewhere
    assert build.foreground(picture, 25, margin=0.02) == (slice(19, 71), slice(48, 152))
    assert build.foreground(picture * 0, 25) == (slice(0, 100), slice(0, 200))


def test_cut_keeps_picture_and_labels_together() -> None:
    values = np.full((30, 40, 3), -1000.0)
    values[5:25, 8:33, 1] = 0
    labels = np.zeros(values.shape, int)
    labels[18:22, 10:15, 1] = 7  # the patient's right, towards the back
    values[labels > 0] = 200
    affine = np.diag([1.0, 2.0, 5.0, 1.0])
    found = build.cut(Volume(values, affine), Volume(labels, affine), {7: "cyst"}, "axial", 1, (-160, 240))
    assert found.picture.shape == found.labels.shape == (27, 22)
    assert found.spacing == (2.0, 1.0)
    np.testing.assert_array_equal(found.picture == 230, found.labels == 7)
    _, y0, x1, _ = build.box_of(found.labels == 7)
    assert x1 <= 11  # right of the patient is left of the picture
    assert y0 >= 13  # the back is at the bottom
    whole = build.cut(
        Volume(values, affine), Volume(labels, affine), {7: "cyst"}, "axial", 1, (-160, 240), crop=False
    )
    assert whole.picture.shape == whole.labels.shape == (40, 30)
    other = Volume(labels[:20], affine)
    with pytest.raises(DataError, match=r"labels \(40, 20\); use resample_nearest first"):
        build.cut(Volume(values, affine), other, {7: "cyst"}, "axial", 1, (-160, 240))


def test_mirror_flips_the_picture_and_the_words() -> None:
    pixels = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10)
    sample = Sample(
        pixels, "Left or RIGHT: where is the left kidney, bright or leftmost?", [(1, 2, 4, 5)], "right",
        ["left", "right"], id="a", group="g", meta={"kind": "localization"},
    )  # fmt: skip
    flipped = build.mirror(sample)
    np.testing.assert_array_equal(np.asarray(flipped.load())[..., 0], pixels[:, ::-1])
    assert flipped.boxes[0].as_tuple() == (6, 2, 9, 5)
    assert flipped.question == "Right or LEFT: where is the right kidney, bright or leftmost?"
    assert (flipped.answer, flipped.options, flipped.id) == ("left", ("right", "left"), "a:mirrored")
    assert (flipped.group, flipped.meta["mirrored"], flipped.meta["kind"]) == ("g", True, "localization")
    assert build.mirror(flipped) == sample
    with pytest.raises(DataError, match="one image; got one with 2"):
        build.mirror(Sample(images=[pixels, pixels], question="?"))


def test_masks_are_mirrored_with_their_image() -> None:
    mask = np.zeros((6, 10), np.uint8)
    mask[1:3, 0:2] = 5
    mask[4, 9] = 2
    sample = Sample(np.zeros((6, 10), np.uint8), "?", masks=[Mask(mask, label=5)], answer=None)
    flipped = build.mirror(sample)
    assert flipped.boxes[0].as_tuple() == (8, 1, 10, 3)
    assert (flipped.answer, flipped.options) == (None, None)


def test_pieces_of_just_the_least_size_stay() -> None:
    mask = np.zeros((6, 10), bool)
    mask[0, 0:3] = mask[2, 0:4] = mask[4:6, 7:10] = True  # 3, 4 and 6 pixels
    assert build.piece_boxes(mask, 4) == ([(0, 2, 4, 3), (7, 4, 10, 6)], 1)
    assert build.large_pieces(mask, 4).sum() == 10
    assert build.large_pieces(mask, 0).sum() == 13
    assert build.piece_boxes(mask & False) == ([], 0)


def test_a_centre_on_the_margin_has_no_side() -> None:
    assert [build.side((x - 1, 0, x + 1, 1), 100, margin=0.25) for x in (24, 25, 50, 75, 76)] == [
        "left", None, None, None, "right",
    ]  # fmt: skip
    assert [build.is_abnormal(one) for one in ("Renal-Cysts", "cystic duct", "masses", "lymph_node")] == [
        True, False, False, False,
    ]  # fmt: skip


def test_a_picture_is_never_enlarged_nor_without_a_pixel() -> None:
    assert build.square_size((10, 20), (1.0, 1.0), 100) == (20, 10)
    assert build.square_size((10, 20), (1.0, 1.0), 20) == (20, 10)
    assert build.square_size((1, 2000), (1.0, 1.0), 20) == (20, 1)
    assert build.square_size((5, 3), (0.5, 0.8)) == (5, 5)  # 2.4 mm are 4.8 pixels


def test_boxes_of_large_pieces_come_in_reading_order() -> None:
    mask = np.zeros((6, 8), bool)
    mask[0, 5:8] = mask[2:4, 0:2] = mask[5, 7] = True
    assert build.piece_boxes(mask) == ([(5, 0, 8, 1), (0, 2, 2, 4), (7, 5, 8, 6)], 0)
    assert build.piece_boxes(mask, 3) == ([(5, 0, 8, 1), (0, 2, 2, 4)], 1)
    kept = build.large_pieces(mask, 4)
    assert [tuple(map(int, one)) for one in np.argwhere(kept)] == [(2, 0), (2, 1), (3, 0), (3, 1)]


def test_mirroring_twice_keeps_what_is_not_a_side() -> None:
    sample = Sample(
        np.zeros((4, 9, 3), np.uint8), "Is the lung left of the heart?", [(0, 0, 2, 4)], None, id="a"
    )
    once = build.mirror(sample)
    assert (once.question, once.boxes[0].as_tuple()) == ("Is the lung right of the heart?", (7, 0, 9, 4))
    assert build.mirror(once).meta["mirrored"] is False


def test_windows_keep_their_shape_and_round() -> None:
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    assert build.window(values, 0, 4).tolist() == [[0, 64], [128, 255]]
    assert build.window(np.array([[np.inf, -np.inf]]), 0, 1).tolist() == [[255, 0]]
