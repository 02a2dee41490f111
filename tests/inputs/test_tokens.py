"""Masks and coverage against counting pixels, groups by hand."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import BoxError, ImageTokenMismatch, MapError, SiteError
from interp.inputs.footprints import Footprints, center_crop, concatenate, lay, pad_to_square, squash
from interp.inputs.masks import Mask
from interp.inputs.sample import Box
from interp.inputs.tokens import TokenMap, Word, word

Size = tuple[int, int]


def token_map(cells: Footprints, *sizes: Size, start: int = 2, after: int = 4, **kwargs) -> TokenMap:
    """A prompt of `start` tokens, the image tokens, and `after` tokens."""
    image = np.arange(start, start + len(cells))
    length = start + len(cells) + after
    return TokenMap(image, cells.boxes, cells.grid, cells.views, cells.image, sizes, length, **kwargs)


@st.composite
def lattices(draw) -> tuple[Callable[[Size, tuple[int, int]], Footprints], Size, tuple[int, int]]:
    """A builder, a size and a grid whose footprints' edges are whole pixels: counting pixels is exact."""
    build = draw(st.sampled_from([squash, pad_to_square, center_crop]))
    n, cell = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    side, flip = n * cell, draw(st.booleans())
    if build is squash:
        rows = draw(st.integers(1, 5))
        return build, (side, rows * cell), (rows, n)
    other = draw(st.integers(1, side)) if build is pad_to_square else side + 2 * draw(st.integers(0, 10))
    return build, (other, side) if flip else (side, other), (n, n)


@st.composite
def boxes_in(draw, size: Size) -> tuple[int, int, int, int]:
    x0, y0 = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    return x0, y0, draw(st.integers(x0 + 1, size[0])), draw(st.integers(y0 + 1, size[1]))


def exact(boxes: list[tuple[int, int, int, int]]) -> list[Box]:
    """The boxes as certain pixels: one inside the first pixel is not taken for fractions."""
    return [Box(*box, pixels=True) for box in boxes]


def rasterised(tokens: TokenMap, size: Size) -> np.ndarray:
    """(row, col): the token each pixel belongs to by brute force, −1 where none."""
    owner = np.full((size[1], size[0]), -1)
    for y in range(size[1]):
        for x in range(size[0]):
            for k, (x0, y0, x1, y1) in enumerate(tokens.footprints):
                if x0 <= x < x1 and y0 <= y < y1:
                    owner[y, x] = k
    return owner


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_masks_coverage_and_lost_area_by_counting_pixels(data):
    build, size, grid = data.draw(lattices())
    tokens = token_map(build(size, grid), size)
    boxes = data.draw(st.lists(boxes_in(size), max_size=3))
    owner = rasterised(tokens, size)
    painted = np.zeros((size[1], size[0]), bool)
    for x0, y0, x1, y1 in boxes:
        painted[y0:y1, x0:x1] = True
    counts = np.array([(owner == k).sum() for k in range(tokens.n)])
    hits = np.array([(painted & (owner == k)).sum() for k in range(tokens.n)])
    assert np.array_equal(tokens.mask(exact(boxes)), hits > 0)
    assert np.allclose(tokens.coverage(exact(boxes)), hits / np.maximum(counts, 1), atol=1e-9)
    lost = [(owner[y0:y1, x0:x1] < 0).mean() for x0, y0, x1, y1 in boxes]
    assert np.allclose(tokens.lost_area(exact(boxes)), lost, atol=1e-9)
    shown = tokens.to_pixels(np.arange(tokens.n, dtype=float))
    assert np.array_equal(np.nan_to_num(shown, nan=-1), owner)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    n=st.integers(1, 9),
    kind=st.sampled_from(["squash", "pad", "crop"]),
    data=st.data(),
)
def test_coverage_adds_up_to_the_visible_area_of_the_boxes(size, n, kind, data):
    cells = {"squash": squash, "pad": pad_to_square, "crop": center_crop}[kind](size, (n, n))
    tokens = token_map(cells, size)
    boxes = data.draw(st.lists(boxes_in(size), min_size=1, max_size=3))
    width, height = size
    side = min(size) if kind == "crop" else None
    x = np.arange(0, 2 * width) / 2  # half pixels: the crop's window starts on a whole or half one
    y = np.arange(0, 2 * height) / 2
    seen = np.ones((2 * height, 2 * width), bool)
    if side is not None:
        across = (x >= (width - side) / 2) & (x < (width + side) / 2)
        seen = ((y >= (height - side) / 2) & (y < (height + side) / 2))[:, None] & across[None]
    union = np.zeros_like(seen)
    for x0, y0, x1, y1 in boxes:
        union[2 * y0 : 2 * y1, 2 * x0 : 2 * x1] = True
    areas = np.nan_to_num(np.prod(cells.boxes[:, 2:] - cells.boxes[:, :2], axis=1))
    boxes = exact(boxes)
    assert np.isclose((tokens.coverage(boxes) * areas).sum(), (union & seen).sum() / 4, rtol=1e-5, atol=1e-6)
    assert np.array_equal(tokens.coverage(boxes) > 0, tokens.mask(boxes))


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    pad=st.booleans(),
    data=st.data(),
)
def test_touch_is_floor_and_ceil_in_exact_fractions(size, grid, pad, data):
    box = data.draw(boxes_in(size))
    rows, cols = grid
    side = max(size)
    width, height = (side, side) if pad else size
    left, top = ((side - size[0]) // 2, (side - size[1]) // 2) if pad else (0, 0)
    across = range(
        floor(Fraction((box[0] + left) * cols, width)), ceil(Fraction((box[2] + left) * cols, width))
    )
    down = range(
        floor(Fraction((box[1] + top) * rows, height)), ceil(Fraction((box[3] + top) * rows, height))
    )
    expected = [r in down and c in across for r in range(rows) for c in range(cols)]
    tokens = token_map((pad_to_square if pad else squash)(size, grid), size)
    assert tokens.mask(exact([box])).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(side=st.integers(1, 5000), n=st.integers(1, 40), data=st.data())
def test_a_box_edge_on_a_cell_edge_does_not_touch_the_next_cell(side, n, data):
    """However the edge was computed, in double or single precision."""
    first = data.draw(st.integers(0, n - 1))
    last = data.draw(st.integers(first + 1, n))
    edge = data.draw(
        st.sampled_from([
            lambda k: k * side / n,
            lambda k: side / n * k,
            lambda k: sum([side / n] * k),
            lambda k: float(np.float32(k / n)) * side,
        ])
    )  # fmt: skip
    box = (edge(first), 0, edge(last), side)
    tokens = token_map(squash((side, side), (1, n)), (side, side))
    for rule in ("touch", "stretch"):
        assert np.flatnonzero(tokens.mask([box], rule)).tolist() == list(range(first, last))
    assert np.array_equal(tokens.coverage([box]) > 0, tokens.mask([box]))
    assert np.allclose(tokens.coverage([box])[first:last], 1, atol=1e-5)


def test_center_rule():
    tokens = token_map(squash((40, 40), (4, 4)), (40, 40))
    # Centres at 5, 15, 25, 35: a box holds those from its first edge up to, not including, its last.
    assert np.flatnonzero(tokens.mask([(5, 5, 15, 6)], "center")).tolist() == [0]
    assert np.flatnonzero(tokens.mask([(5, 5, 15.1, 6)], "center")).tolist() == [0, 1]
    assert tokens.mask([(6, 6, 14, 14)], "center").sum() == 0
    # A padded cell has the centre of its visible part: 40×30 in 40 starts 5 px down, so row 0 shows y 0–5.
    padded = token_map(pad_to_square((40, 30), (4, 4)), (40, 30))
    assert np.flatnonzero(padded.mask([(0, 2, 10, 3)], "center")).tolist() == [0]


def test_stretch_is_the_official_codes_mapping():
    size, box = (640, 512), (100.0, 40.0, 260.0, 200.0)
    tokens = token_map(pad_to_square(size, (24, 24)), size)
    # By hand: columns 100·24/640 = 3.75 → 3 to 9.75 → 10; rows 40·24/512 = 1.875 → 1 to 9.375 → 10.
    stretch = tokens.mask([box], "stretch").reshape(24, 24)
    assert (np.flatnonzero(stretch.any(0)).tolist(), np.flatnonzero(stretch.any(1)).tolist()) == (
        [*range(3, 10)],
        [*range(1, 10)],
    )
    # The image itself sits 64 px down in a square of 640: rows (40 + 64)·24/640 = 3.9 → 3 to 9.9 → 10.
    touch = tokens.mask([box]).reshape(24, 24)
    assert np.flatnonzero(touch.any(1)).tolist() == [*range(3, 10)]
    square = token_map(squash((512, 512), (24, 24)), (512, 512))
    assert np.array_equal(square.mask([box], "stretch"), square.mask([box]))


def test_a_box_over_the_image_is_every_visible_token():
    for build, expected in ((squash, 16), (pad_to_square, 8), (center_crop, 16)):
        tokens = token_map(build((80, 40), (4, 4)), (80, 40))
        assert tokens.mask([(0, 0, 80, 40)]).sum() == expected
        assert (tokens.coverage([(0, 0, 80, 40)]) == tokens.mask([(0, 0, 80, 40)])).all()
        assert tokens.mask([(-0.5, 0, 80.5, 40.5)]).sum() == expected
        assert tokens.mask([]).sum() == 0
        assert tokens.coverage([]).tolist() == [0] * 16


def test_lost_area_of_a_crop():
    tokens = token_map(center_crop((80, 64), (4, 4)), (80, 64))  # sees x from 8 to 72
    lost = tokens.lost_area([(3, 4, 30, 30), (0, 0, 8, 64), (8, 0, 72, 64), (70, 0, 74, 4)])
    assert np.allclose(lost, [5 / 27, 1, 0, 0.5])
    assert tokens.mask([(0, 0, 8, 64)]).sum() == 0
    assert tokens.lost_area([]).shape == (0,)


def test_boxes_that_do_not_belong_to_the_image():
    tokens = token_map(squash((40, 30), (2, 2)), (40, 30))
    for use in (tokens.mask, tokens.coverage, tokens.lost_area):
        with pytest.raises(BoxError, match=r"outside image 0, which is 40×30 pixels.*box.clip\(40, 30\)"):
            use([(0, 0, 30, 40)])
        with pytest.raises(BoxError, match=r"names image 1, but the sample has 1 image"):
            use([Box(0, 0, 1, 1, image=1)])
        with pytest.raises(BoxError, match="finite"):
            use([(0, 0, float("nan"), 1)])
        with pytest.raises(BoxError, match="x1 > x0"):
            use([(5, 0, 5, 1)])
        with pytest.raises(
            BoxError, match=r"at most 1, but its image is 40×30 pixels.*box_format=\"fraction\""
        ):
            use([(0.1, 0.1, 0.6, 1)])


def test_several_images():
    cells = concatenate([squash((8, 8), (2, 2)), pad_to_square((8, 4), (2, 2))])
    tokens = token_map(cells, (8, 8), (8, 4))
    boxes = [Box(0, 0, 1, 1, pixels=True), Box(2, 2, 3, 3, image=1)]
    assert np.flatnonzero(tokens.mask(boxes)).tolist() == [0, 6]
    assert np.flatnonzero(tokens.mask(boxes, "stretch")).tolist() == [0, 6]
    assert tokens.coverage(boxes)[[0, 6]].tolist() == [1 / 16, 1 / 8]
    assert tokens.lost_area(boxes).tolist() == [0, 0]
    assert tokens.to_pixels(np.arange(8.0), image=1).shape == (4, 8)
    assert tokens.to_pixels(np.arange(8.0), image=1)[3, 7] == 7


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_a_pixel_shows_the_token_that_holds_its_centre(size, grid):
    shown = token_map(squash(size, grid), size).to_pixels(np.arange(grid[0] * grid[1], dtype=float))
    rows = [floor(Fraction(2 * y + 1, 2) * grid[0] / size[1]) for y in range(size[1])]
    cols = [floor(Fraction(2 * x + 1, 2) * grid[1] / size[0]) for x in range(size[0])]
    assert shown.tolist() == [[r * grid[1] + c for c in cols] for r in rows]


def test_views_are_averaged_and_tokens_without_area_left_out():
    whole = (0.0, 0.0, 4.0, 4.0)
    newline = Footprints(np.full((1, 4), np.nan), None, np.array(["newline"]), np.array([0]))
    views = [
        lay((4, 4), (1, 1), whole, view="base"),
        lay((4, 4), (2, 2), (0.0, 0.0, 4.0, 8.0), view="tile"),
        newline,
    ]
    tokens = token_map(concatenate(views, one_image=True), (4, 4))
    assert tokens.to_pixels(np.array([1, 3, 5, 7, 9, 11.0])).tolist() == [[2, 2, 3, 3]] * 4
    assert tokens.mask([(0, 0, 1, 2)]).tolist() == [True, True, False, False, False, False]
    assert tokens.coverage([(0, 0, 4, 4)]).tolist() == [1, 1, 1, 0, 0, 0]
    assert tokens.lost_area([(0, 0, 4, 4)]).tolist() == [0]
    with pytest.raises(MapError, match=r'"stretch" needs one grid per image.*6 tokens and the grid None'):
        tokens.mask([(0, 0, 1, 2)], "stretch")


def test_map_arguments(unchecked):
    tokens = token_map(squash((4, 4), (2, 2)), (4, 4))
    with pytest.raises(MapError, match="touch, center, stretch; got 'near'"):
        tokens.mask([], "near")
    with pytest.raises(MapError, match=r"one value per image token, shape \(4,\); got \(2, 2\)"):
        tokens.to_pixels(np.zeros((2, 2)))
    with pytest.raises(MapError, match=r"1 image, counted from 0; got image=1"):
        tokens.to_pixels(np.zeros(4), image=1)


WORDS = (
    ("Is", (7,)),
    ("the", (8,)),
    ("Nodule,", (9, 10)),
    ("or", (11,)),
    ("left", (12,)),
    ("nodule?", (13,)),
)


@pytest.fixture
def prompt() -> TokenMap:
    """0–1 head, 2–5 image, 6 newline, 7–13 question, 14–15 tail."""
    return token_map(
        squash((4, 4), (2, 2)), (4, 4), after=10, spans={"question": np.arange(7, 14)}, words=WORDS
    )


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ("last", [15]),
        ("after_image", range(6, 16)),
        ("image", range(2, 6)),
        ("text", [0, 1, *range(6, 16)]),
        ("question", range(7, 14)),
        (word("nodule"), [9, 10, 13]),
        (word("NODULE"), [9, 10, 13]),
        (word("left nodule"), [12, 13]),
        (word("is"), [7]),
    ],
)
def test_groups(prompt, group, expected):
    assert prompt.positions(group).tolist() == list(expected)
    assert prompt.n == 4
    assert prompt.length == 16


def test_unknown_groups(prompt, unchecked):
    with pytest.raises(
        SiteError, match=r"'last', 'after_image', 'text', 'image', 'question' and interp.word.*got 'answer'"
    ):
        prompt.positions("answer")
    with pytest.raises(
        SiteError, match="does not hold the word 'tumour'; its words are: Is the Nodule, or left nodule"
    ):
        prompt.positions(word("tumour"))
    with pytest.raises(SiteError, match="'nodule left'"):
        prompt.positions(word("nodule left"))
    with pytest.raises(SiteError, match=r"letters or digits.*got '\?'"):
        word("?")
    generic = token_map(squash((4, 4), (2, 2)), (4, 4))
    with pytest.raises(SiteError, match=r"got 'question'. A generic prompt has no question"):
        generic.positions("question")
    with pytest.raises(SiteError, match=r"its words are: \(none\)"):
        generic.positions(word("nodule"))


def test_another_prompt_of_the_same_images(prompt) -> None:
    other = prompt.reworded(np.arange(1, 5), 9, {"question": np.array([5, 6])}, (("lung", (6,)),))
    assert (other.length, other.image.tolist(), other.grid, other.sizes) == (
        9,
        [1, 2, 3, 4],
        (2, 2),
        ((4, 4),),
    )
    assert other.positions("question").tolist() == [5, 6]
    assert other.positions(word("lung")).tolist() == [6]
    assert np.array_equal(other.footprints, prompt.footprints)
    with pytest.raises(MapError, match=r"built-in groups last.*got \['last'\]"):
        prompt.reworded(np.arange(1, 5), 9, {"last": np.array([1])}, ())
    with pytest.raises(ImageTokenMismatch, match="holds 3 image tokens but there are 4"):
        prompt.reworded(np.arange(1, 4), 9, {}, ())
    with pytest.raises(MapError, match="'question' must increase and lie in 0 … 8"):
        prompt.reworded(np.arange(1, 5), 9, {"question": np.array([9])}, ())


def test_words_are_values():
    assert word("nodule") == Word("nodule")
    assert len({word("a"), word("a"), word("b")}) == 2


def test_image_tokens_need_not_be_contiguous():
    cells = squash((4, 4), (2, 2))
    image = np.array([1, 2, 4, 5])
    tokens = TokenMap(image, cells.boxes, None, cells.views, cells.image, ((4, 4),), 8)
    assert tokens.positions("after_image").tolist() == [6, 7]
    assert tokens.positions("text").tolist() == [0, 3, 6, 7]


def test_a_prompt_without_image_tokens():
    cells = concatenate([])
    tokens = TokenMap(np.empty(0, int), cells.boxes, None, cells.views, cells.image, (), 3)
    assert tokens.positions("after_image").tolist() == [0, 1, 2]
    assert tokens.mask([]).shape == (0,)


def test_maps_are_read_only_and_picklable(prompt):
    with pytest.raises(ValueError, match="read-only"):
        prompt.footprints[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        prompt.positions("question")[0] = 0
    assert repr(prompt) == "TokenMap(16 tokens, 4 of them image tokens, grid (2, 2), images 4×4)"
    read = pickle.loads(pickle.dumps(prompt))
    assert np.array_equal(read.footprints, prompt.footprints)
    assert read.positions(word("left")).tolist() == [12]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": np.arange(3)}, ImageTokenMismatch, "holds 3 image tokens but there are 4 footprints"),
        ({"image": np.array([5, 4, 3, 2])}, MapError, "'image' must increase"),
        ({"image": np.array([6, 7, 8, 9])}, MapError, "lie in 0 … 8"),
        ({"views": np.full(3, "")}, MapError, r"one entry per image token, \(4,\); got \(3,\)"),
        ({"image_index": np.array([0, 0, 0, 1])}, MapError, r"has 1 image; got values from 0 to 1"),
        ({"grid": (3, 3)}, MapError, "4 image tokens are not whole grids of 3×3"),
        ({"spans": {"question": np.array([9])}}, MapError, "'question' must increase and lie in 0 … 8"),
        ({"spans": {"last": np.array([1])}}, MapError, r"built-in groups last.*got \['last'\]"),
        ({"words": (("x", (12,)),)}, MapError, "'x' must increase and lie in"),
    ],
)
def test_a_map_that_cannot_be(unchecked, change, error, message):
    cells = squash((4, 4), (2, 2))
    good = {
        "image": np.arange(2, 6), "footprints": cells.boxes, "grid": cells.grid, "views": cells.views,
        "image_index": cells.image, "sizes": ((4, 4),), "length": 9,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        TokenMap(**{**good, **change})


def test_words_that_overlap_themselves_count_once() -> None:
    words = (("no", (6,)), ("no", (7,)), ("no", (8, 9)), ("Well-known", (10,)), ("one/other", (11,)))
    tokens = token_map(squash((4, 4), (2, 2)), (4, 4), after=7, words=words)
    assert tokens.positions(word("no no")).tolist() == [6, 7, 8, 9]
    assert tokens.positions(word("no well-known")).tolist() == [8, 9, 10]
    assert tokens.positions(word("other")).tolist() == [11]


def two_images() -> TokenMap:
    """Four tokens of 4×4 on an image of 8×8, four of 3×2 on one of 6×4."""
    return token_map(concatenate([squash((8, 8), (2, 2)), squash((6, 4), (2, 2))]), (8, 8), (6, 4))


def painted(width: int, height: int, x: slice, y: slice, image: int) -> Mask:
    inside = np.zeros((height, width), bool)
    inside[y, x] = True
    return Mask(inside, image=image)


@pytest.mark.parametrize("rule", ["touch", "center", "stretch"])
def test_masks_count_on_their_own_image(rule: str) -> None:
    first = painted(8, 8, slice(4, 8), slice(0, 3), 0)  # the upper right token, with its centre (6, 2)
    second = painted(6, 4, slice(1, 2), slice(3, 4), 1)  # the lower left one, with its centre (1.5, 3)
    tokens = two_images()
    assert np.flatnonzero(tokens.mask([second], rule)).tolist() == [6]
    assert np.flatnonzero(tokens.mask([second, first], rule)).tolist() == [1, 6]
    assert tokens.coverage([first, second]).tolist() == pytest.approx([0, 12 / 16, 0, 0, 0, 0, 1 / 6, 0])


def test_masks_of_one_image_are_unioned_and_lost_apart() -> None:
    tokens = token_map(center_crop((8, 4), (1, 1)), (8, 4))  # sees x from 2 to 6
    left, right = painted(8, 4, slice(0, 4), slice(0, 4), 0), painted(8, 4, slice(3, 7), slice(0, 2), 0)
    assert tokens.lost_area([left, right]).tolist() == [0.5, 0.25]
    assert tokens.coverage([left, right]).tolist() == [
        12 / 16
    ]  # columns 2 and 3, and the upper half of 4 and 5
    both = token_map(concatenate([squash((8, 4), (1, 1)), center_crop((8, 4), (1, 1))]), (8, 4), (8, 4))
    assert both.lost_area([left, painted(8, 4, slice(0, 4), slice(0, 4), 1)]).tolist() == [0, 0.5]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": -1}, r"2 images, counted from 0; got image=-1"),
        ({"image": 2}, r"2 images, counted from 0; got image=2"),
        ({"image": True}, "image is the place of an image in the sample, counted from 0; got True"),
        ({"image": 0.0}, "image is the place of an image in the sample, counted from 0; got 0.0"),
        ({"frame": 0}, "frame= names a frame of a video; this sample has images and no video. Leave it out"),
        ({"image": 0, "frame": 0}, "pass image= or frame=, not both"),
    ],
)
def test_a_picture_needs_a_place_that_there_is(given, said: str, unchecked) -> None:
    with pytest.raises(MapError, match=said):
        two_images().to_pixels(np.zeros(8), **given)


@pytest.mark.parametrize("values", ["abcdefgh", [None] * 8 + [[]], {1: 2}])
def test_a_picture_needs_numbers(values, unchecked) -> None:
    with pytest.raises(MapError, match=r"to_pixels needs (numbers, one|one value) per image token"):
        two_images().to_pixels(values)


@pytest.mark.parametrize("size", [-1, True, (0, 1), (1, 2, 3), "x", "1", np.inf, np.nan])
def test_pixels_have_a_size_in_millimetres(size, unchecked) -> None:
    with pytest.raises(MapError, match="pixel_mm is the size of a pixel, one number above 0"):
        two_images().millimetres(size)


def test_one_mask_is_no_list_of_masks(unchecked) -> None:
    mask = painted(8, 8, slice(0, 1), slice(0, 1), 0)
    for use in (two_images().mask, two_images().coverage, two_images().lost_area):
        with pytest.raises(BoxError, match=r"got one mask; write \[mask\]"):
            use(mask)
        with pytest.raises(BoxError, match="names image 2, but the sample has 2 images"):
            use([Mask(mask.inside, image=2)])
    assert two_images().mask(iter([mask])).tolist() == two_images().mask([mask]).tolist()
    assert two_images().coverage(iter([(0, 0, 4, 4)])).tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_a_map_does_not_change_with_what_it_was_made_of() -> None:
    cells, words = squash((4, 4), (2, 2)), [("it", [6])]
    boxes, image, at = cells.boxes.copy(), np.arange(2, 6), np.array([6, 7])
    own = TokenMap(image, boxes, cells.grid, cells.views, cells.image, ((4, 4),), 9, {"question": at}, words)  # type: ignore[arg-type]
    boxes[:], image[:], at[:] = 0, 0, 0
    assert np.array_equal(own.footprints, cells.boxes)
    assert own.image.tolist() == [2, 3, 4, 5]
    assert own.positions("question").tolist() == [6, 7]
