"""Footprints against the forward mapping: which cell a point of the image falls in, in exact fractions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import ImageTokenMismatch, ModelError
from interp.inputs.footprints import (
    CrossKeys,
    Footprints,
    center_crop,
    check_count,
    check_layout,
    concatenate,
    covered_area,
    crop_offset,
    in_frames,
    joined_in_time,
    lay,
    pad_to_square,
    select,
    shortest_edge,
    squash,
)

Size = tuple[int, int]
sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def cells_by_formula(kind: str, size: Size, grid: tuple[int, int], x: Fraction, y: Fraction) -> int | None:
    """The token a point belongs to, in exact arithmetic; None where the model does not see it."""
    (width, height), (rows, cols) = size, grid
    if kind == "squash":
        u, v = x / width, y / height
    elif kind == "pad":
        side = max(size)
        u, v = (x + (side - width) // 2) / side, (y + (side - height) // 2) / side
    else:
        side = min(size)
        u, v = (x - Fraction(width - side, 2)) / side, (y - Fraction(height - side, 2)) / side
    if not (0 <= u < 1 and 0 <= v < 1):
        return None
    return int(v * rows) * cols + int(u * cols)


BUILDERS: dict[str, Callable[[Size, tuple[int, int]], Footprints]] = {
    "squash": squash,
    "pad": pad_to_square,
    "crop": center_crop,
}


def visible(kind: str, size: Size) -> tuple[float, float, float, float]:
    """The part of the image the model sees."""
    (width, height), side = size, min(size)
    if kind != "crop":
        return (0.0, 0.0, float(width), float(height))
    left, top = (width - side) / 2, (height - side) / 2
    return (left, top, left + side, top + side)


def assert_agrees(kind: str, footprints: Footprints, size: Size, grid: tuple[int, int]) -> None:
    """Every sampled point lies in exactly the footprint that the formula names, or in none."""
    boxes = footprints.boxes
    for i in range(23):
        for j in range(23):  # 1/π-like offsets keep points off the cells' edges
            x = Fraction(size[0]) * Fraction(2 * i + 1, 46) + Fraction(1, 9973)
            y = Fraction(size[1]) * Fraction(2 * j + 1, 46) + Fraction(1, 9967)
            if x >= size[0] or y >= size[1]:
                continue
            px, py = float(x), float(y)
            inside = (boxes[:, 0] <= px) & (px < boxes[:, 2]) & (boxes[:, 1] <= py) & (py < boxes[:, 3])
            token = cells_by_formula(kind, size, grid, x, y)
            assert np.flatnonzero(inside).tolist() == ([] if token is None else [token])


@pytest.mark.parametrize("kind", BUILDERS)
@settings(max_examples=25, deadline=None)
@given(size=sizes, grid=grids)
def test_footprints_are_the_forward_mapping_backwards(kind, size, grid):
    footprints = BUILDERS[kind](size, grid)
    assert_agrees(kind, footprints, size, grid)
    check_layout(footprints, [size], [visible(kind, size)])
    assert footprints.grid == grid
    assert len(footprints) == grid[0] * grid[1]


def reordered(footprints: Footprints, order: np.ndarray) -> Footprints:
    return dataclasses.replace(footprints, boxes=footprints.boxes[order])


WRONG: dict[str, Callable[[Footprints], Footprints]] = {
    "shifted by one token": lambda f: reordered(f, np.roll(np.arange(len(f)), 1)),
    "transposed": lambda f: reordered(f, np.arange(len(f)).reshape(4, 4).T.ravel()),
    "mirrored": lambda f: reordered(f, np.arange(len(f)).reshape(4, 4)[:, ::-1].ravel()),
    "upside down": lambda f: reordered(f, np.arange(len(f)).reshape(4, 4)[::-1].ravel()),
    "one cell twice": lambda f: reordered(f, np.r_[0, 0, 2:16]),
    "scaled": lambda f: dataclasses.replace(f, boxes=f.boxes * 0.9),
    "a pixel off": lambda f: dataclasses.replace(f, boxes=f.boxes + np.array([1, 0, 1, 0])),
    "x and y swapped": lambda f: dataclasses.replace(f, boxes=f.boxes[:, [1, 0, 3, 2]]),
    "grown": lambda f: dataclasses.replace(f, boxes=np.clip(f.boxes + np.array([-2, 0, 2, 0]), 0, 80)),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("kind", "size"), [("squash", (80, 80)), ("pad", (80, 50)), ("crop", (80, 60))])
def test_a_wrong_layout_is_caught_by_both_checks(kind, size, wrong):
    right = BUILDERS[kind](size, (4, 4))
    broken = WRONG[wrong](right)
    assert_agrees(kind, right, size, (4, 4))
    with pytest.raises(AssertionError):
        assert_agrees(kind, broken, size, (4, 4))
    with pytest.raises(ModelError, match=r"row-major|overlap|outside|cover .* px²"):
        check_layout(broken, [size], [visible(kind, size)])


def test_check_layout_refuses_half_nan_and_inverted_footprints():
    good = squash((8, 8), (2, 2))
    half, inverted = good.boxes.copy(), good.boxes.copy()
    half[0, 0] = np.nan
    inverted[:, [1, 3]] = inverted[:, [3, 1]]
    with pytest.raises(ModelError, match="four finite edges, or four NaN"):
        check_layout(dataclasses.replace(good, boxes=half), [(8, 8)])
    with pytest.raises(ModelError, match="empty, inverted or reach outside its 8×8"):
        check_layout(dataclasses.replace(good, boxes=inverted, grid=None), [(8, 8)])
    with pytest.raises(ModelError, match="4 footprints are not whole grids of 3×1"):
        check_layout(dataclasses.replace(good, grid=(3, 1)), [(8, 8)])


def test_worked_examples():
    assert squash((40, 20), (2, 2)).boxes.tolist() == [
        [0, 0, 20, 10], [20, 0, 40, 10], [0, 10, 20, 20], [20, 10, 40, 20],
    ]  # fmt: skip
    # 40×20 in a square of 40: ten rows of padding above and below, so a 4×1 grid sees rows 10–20 and 20–30.
    padded = pad_to_square((40, 20), (4, 1)).boxes
    assert padded[1:3].tolist() == [[0, 0, 40, 10], [0, 10, 40, 20]]
    assert np.isnan(padded[[0, 3]]).all()
    # An odd difference puts the smaller half in front: 5×2 → offset ⌊3/2⌋ = 1.
    assert pad_to_square((5, 2), (5, 1)).boxes[1:3].tolist() == [[0, 0, 5, 1], [0, 1, 5, 2]]
    assert center_crop((40, 20), (1, 2)).boxes.tolist() == [[10, 0, 20, 20], [20, 0, 30, 20]]


def test_crop_on_whole_pixels():
    # 101×57 → shorter side 56: width int(56·101/57) = 99, crop offset int((99 − 56)/2) = 21.
    assert shortest_edge((101, 57), 56) == (99, 56)
    assert shortest_edge((57, 101), 56) == (56, 99)
    assert shortest_edge((30, 30), 56) == (56, 56)
    boxes = center_crop((101, 57), (4, 4), (99, 56), crop=(56, 56)).boxes
    assert np.allclose(boxes[0], [21 * 101 / 99, 0, 35 * 101 / 99, 14 * 57 / 56])
    assert np.allclose(boxes[-1, 2:], [77 * 101 / 99, 57])
    with pytest.raises(ModelError, match=r"both resized= and crop="):
        center_crop((101, 57), (4, 4), (99, 56))


def test_a_crop_larger_than_the_image_is_padding():
    # 4 px in a crop of 7: torchvision puts 1 px in front and 2 behind, the PIL backend the other way round.
    assert crop_offset(4, 7) == -1
    assert crop_offset(4, 7, round_up=True) == -2
    assert crop_offset(7, 4) == crop_offset(7, 4, round_up=True) == 1
    boxes = center_crop((4, 7), (7, 7), (4, 7), crop=(7, 7)).boxes.reshape(7, 7, 4)
    assert np.isnan(boxes[:, [0, 5, 6]]).all()
    assert boxes[3, 1].tolist() == [0, 3, 1, 4]


@given(sizes)
@settings(max_examples=200, deadline=None)
def test_no_slivers_from_rounding(size):
    """A crop twice as large as the image: its outer cells end on the image's edge, no hair inside it."""
    boxes = center_crop(size, (4, 4), (28, 28), crop=(56, 56)).boxes.reshape(4, 4, 4)
    assert not np.isnan(boxes[1:3, 1:3]).any()
    assert np.isnan(boxes).all(axis=-1).sum() == 12


def test_lay_refuses_nothing_to_lay():
    for size, grid, window in [
        ((0, 4), (1, 1), (0.0, 0.0, 1.0, 1.0)),
        ((4, 4), (0, 1), (0.0, 0.0, 1.0, 1.0)),
    ]:
        with pytest.raises(ModelError, match="with area"):
            lay(size, grid, window)
    with pytest.raises(ModelError, match="with area"):
        lay((4, 4), (1, 1), (2.0, 0.0, 2.0, 4.0))


def test_concatenate():
    both = concatenate([squash((8, 8), (2, 2)), pad_to_square((8, 4), (2, 2))])
    assert both.grid == (2, 2)
    assert both.image.tolist() == [0] * 4 + [1] * 4
    check_layout(both, [(8, 8), (8, 4)])
    mixed = concatenate([squash((8, 8), (2, 2)), squash((8, 8), (3, 3))])
    assert (mixed.grid, len(mixed)) == (None, 13)
    views = [
        lay((8, 8), (1, 1), (0.0, 0.0, 8.0, 8.0), view="base"),
        lay((8, 8), (2, 2), (0.0, 0.0, 8.0, 8.0), view="tile"),
    ]
    one = concatenate(views, one_image=True)
    assert one.image.tolist() == [0] * 5
    assert one.views.tolist() == ["base"] + ["tile"] * 4
    check_layout(one, [(8, 8)], [(0.0, 0.0, 8.0, 8.0)])
    assert len(concatenate([])) == 0


rectangle = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.integers(1, 8))


@given(st.lists(rectangle, max_size=6), st.lists(rectangle, max_size=5))
@settings(max_examples=100, deadline=None)
def test_covered_area_counts_like_pixels(regions, rectangles):
    corners = lambda r: np.array([[x, y, x + w, y + h] for x, y, w, h in r], float).reshape(-1, 4)  # noqa: E731
    painted = np.zeros((20, 20))
    for x, y, w, h in rectangles:
        painted[y : y + h, x : x + w] = 1
    expected = [painted[y : y + h, x : x + w].sum() for x, y, w, h in regions]
    assert np.allclose(covered_area(corners(regions), corners(rectangles)), expected)
    unknown = np.full((1, 4), np.nan)
    assert covered_area(unknown, corners(rectangles)).tolist() == [0]
    assert np.allclose(covered_area(corners(regions), np.r_[unknown, corners(rectangles)]), expected)


def test_no_image_token_at_all_points_to_the_ids():
    with pytest.raises(
        ImageTokenMismatch, match=r"holds 0 image tokens .*None of the prompt's ids .* image_token_id"
    ):
        check_count(0, squash((336, 336), (24, 24)), family="llava", sizes=[(336, 336)])


def test_check_count_in_the_house_style():
    cells = squash((336, 336), (24, 24))
    check_count(576, cells, family="llava", sizes=[(336, 336)])
    with pytest.raises(ImageTokenMismatch) as caught:
        check_count(575, cells, family="llava", sizes=[(336, 336)])
    assert str(caught.value) == (
        "the prompt holds 575 image tokens but llava's grid for a 336×336 image is 24×24 = 576. "
        "Did the processor truncate? Raise max_length or pass truncation=False."
    )
    two = concatenate([cells, cells])
    with pytest.raises(
        ImageTokenMismatch, match=r"for a 9×9 image and a 8×7 image is 2×24×24 = 1152. Does the question"
    ):
        check_count(1153, two, family="llava", sizes=[(9, 9), (8, 7)])
    with pytest.raises(ImageTokenMismatch, match="1 image tokens but llava's grid for no image is 0"):
        check_count(1, concatenate([]), family="llava", sizes=[])


def test_a_crop_of_other_proportions_by_hand():
    """80×60 becomes 8×6; its middle 6×2 begins at (1, 2), so it is x 10–70 and y 20–40 of the original."""
    cells = center_crop((80, 60), (1, 2), (8, 6), crop=(6, 2))
    assert cells.boxes.tolist() == [[10, 20, 40, 40], [40, 20, 70, 40]]
    for one in ({"resized": (8, 6)}, {"crop": (6, 2)}):
        with pytest.raises(ModelError, match="needs both resized= and crop="):
            center_crop((80, 60), (1, 2), **one)


def test_each_view_and_each_image_is_checked():
    whole = squash((8, 6), (1, 2))
    again = dataclasses.replace(whole, views=np.array(["tile"] * 2))
    twice = concatenate([whole, again], one_image=True)  # views may overlap each other
    check_layout(twice, [(8, 6)], [(0, 0, 8, 6)])
    boxes = twice.boxes.copy()
    boxes[3, 0] -= 1  # within the second view they may not
    with pytest.raises(ModelError, match=r"image 0, view 'tile': footprints overlap"):
        check_layout(dataclasses.replace(twice, boxes=boxes, grid=None), [(8, 6)])
    two = concatenate([whole, whole])
    with pytest.raises(
        ModelError, match="footprints of image 1 are empty, inverted or reach outside its 7×6"
    ):
        check_layout(two, [(8, 6), (7, 6)])
    with pytest.raises(
        ModelError, match=r"image 1, view ''.* cover 48 px², but 54 px² of the image are visible"
    ):
        check_layout(two, [(8, 6), (9, 6)], [(0, 0, 8, 6), (0, 0, 9, 6)])


@pytest.mark.parametrize(("edge", "name"), [(0, "columns"), (1, "rows")])
def test_one_cell_out_of_line_is_found(edge, name):
    cells = squash((8, 6), (2, 2))
    for place in range(4):
        boxes = cells.boxes.copy()
        boxes[place, edge] += 0.5
        with pytest.raises(ModelError, match=f"grid's {name} do not line up"):
            check_layout(dataclasses.replace(cells, boxes=boxes), [(8, 6)])


def test_rectangles_without_an_area_cover_nothing():
    regions = np.array([[0.0, 0, 4, 4]])
    assert covered_area(regions, np.array([[np.nan] * 4, [1.0, 1, 2, 3]])).tolist() == [2.0]
    assert covered_area(regions, np.full((2, 4), np.nan)).tolist() == [0.0]
    assert covered_area(np.empty((0, 4)), regions).tolist() == []


def test_keys_of_cross_attention_by_hand():
    keys = CrossKeys(np.array([1, 4]), np.array([[True, False, False], [True, False, True]]), 2)
    assert (keys.n, keys.first_text) == (6, 5)
    assert [keys.seen(row).tolist() for row in (0, 1, -1)] == [[0, 1], [0, 1, 4, 5], [0, 1, 4, 5]]
    assert CrossKeys(np.empty(0, int), np.ones((1, 0), bool), 2).first_text == 0


def test_tokens_of_frames_in_the_order_of_time():
    cells = squash((8, 6), (1, 2))
    pairs = in_frames(cells, 5, together=2)
    assert pairs.frames is not None
    assert pairs.frames[::2].tolist() == [[0, 2], [2, 4], [4, 5]]
    assert pairs.image.tolist() == [0, 0, 2, 2, 4, 4]
    assert (len(pairs), pairs.grid) == (6, (1, 2))
    single = dataclasses.replace(cells, image=np.array([6, 6]))
    joined = joined_in_time([pairs, single])
    assert joined.frames is not None
    assert joined.frames[-2:].tolist() == [[6, 7], [6, 7]]
    assert joined.grid is None
    chosen = select(pairs, np.array([5, 0]), (1, 2))
    assert chosen.image.tolist() == [4, 0]
    assert chosen.boxes.tolist() == [[4, 0, 8, 6], [0, 0, 4, 6]]
    assert chosen.frames is None
