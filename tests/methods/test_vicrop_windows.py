"""ViCrop's windows against loops over the formula, and what the crop is where there is nothing to choose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import MapError
from interp.inputs.footprints import center_crop, pad_to_square, squash
from interp.methods.vicrop import RATIOS, best_window, cell_grid, select

HOT = np.zeros((4, 4))
HOT[1, 2] = 8.0


def crop(grid, size, base, ratios=RATIOS):
    return select(grid.reshape(-1), squash(size, grid.shape).boxes, size, base, ratios)


def looped(grid, size, base, ratios):
    """(score, ratio, row, col, rows, cols) of the best window by loops over cells; None when none may slide."""
    (n_rows, n_cols), (width, height) = grid.shape, size
    best = None
    for ratio in ratios:
        rows = max(1, min(n_rows, int(base * ratio * n_rows / height + 1e-6)))
        cols = max(1, min(n_cols, int(base * ratio * n_cols / width + 1e-6)))
        if (rows, cols) == (n_rows, n_cols):
            continue
        sums = {}
        for r in range(n_rows - rows + 1):
            for c in range(n_cols - cols + 1):
                sums[r, c] = sum(grid[r + i, c + j] for i in range(rows) for j in range(cols))
        place = max(sums, key=lambda at: (sums[at], (-at[0], -at[1])))
        steps = ((-1, 0), (1, 0), (0, -1), (0, 1))
        near = [sums[p] for s in steps if (p := (place[0] + s[0], place[1] + s[1])) in sums]
        score = (sums[place] - sum(near) / len(near)) / (rows * cols)
        if best is None or score > best[0]:
            best = (score, ratio, *place, rows, cols)
    return best


def test_a_worked_example():
    """80×80 px in 4×4 cells of 20: windows of 2 and of 3 cells, both with the hot cell and three that lack it."""
    one, two = best_window(HOT, (2, 2)), best_window(HOT, (3, 3))
    # 2×2: 8 at (0, 1) first; beside it (1, 1) 8, (0, 0) 0, (0, 2) 8: (8 − 16/3)/4
    assert one == (pytest.approx((8 - 16 / 3) / 4), (0, 1))
    # 3×3: all four places hold the cell
    assert two == (0.0, (0, 0))
    found = crop(HOT, (80, 80), 40, (1.0, 1.5))
    assert (found.ratio, found.score) == (1.0, pytest.approx(2 / 3))
    assert found.box == (20, 0, 60, 40)


def test_the_sharpest_ratio_wins():
    """A block of 2×2 is caught whole by a window of 2, which then loses to every side."""
    grid = np.zeros((6, 6))
    grid[2:4, 2:4] = 1
    found = crop(grid, (60, 60), 10, (1.0, 2.0, 3.0))
    # ratio 1: one cell of four equal ones, beside it 0, 1, 0, 1; ratio 2: 4, beside it 2, 2, 2, 2, over 4 cells
    assert (found.ratio, found.score) == (1.0, 0.5)
    grid[2:4, 2:4] = [[1, 2], [3, 4]]
    assert crop(grid, (60, 60), 10, (2.0, 3.0)).box == (20, 20, 40, 40)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 7), st.integers(20, 300), st.integers(20, 300),
    st.floats(5, 200), st.integers(0, 2**31), st.booleans(),
)  # fmt: skip
def test_any_map_equals_the_loops(rows, cols, width, height, base, seed, whole_numbers):
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, 4, (rows, cols)).astype(float) if whole_numbers else rng.random((rows, cols))
    found, best = crop(grid, (width, height), base), looped(grid, (width, height), base, RATIOS)
    if best is None or np.ptp(grid) == 0:
        assert found.box == (0, 0, width, height)
        assert found.ratio is None
        assert np.isnan(found.score)
        return
    score, ratio, row, col, n_rows, n_cols = best
    assert found.score == pytest.approx(score, abs=1e-9)
    assert found.ratio == ratio
    x0, y0, x1, y1 = found.box
    side = round(base * ratio)
    for low, high, length, first, n, cells in (
        (x0, x1, width, col, n_cols, cols),
        (y0, y1, height, row, n_rows, rows),
    ):
        assert high - low == min(side, length)
        assert 0 <= low < high <= length
        centre = (first + n / 2) * length / cells
        free = centre - side / 2 >= 0 and centre + side / 2 <= length
        assert not free or abs((low + high) / 2 - centre) <= 0.5 + 1e-9
        if n * length / cells <= side:  # the crop holds its window, but for half a pixel
            assert low <= first * length / cells + 0.51
            assert high >= (first + n) * length / cells - 0.51


@settings(max_examples=80, deadline=None)
@given(st.integers(30, 400), st.integers(30, 400), st.integers(2, 9), st.integers(0, 2**31), st.booleans())
def test_the_crop_holds_the_hot_token_in_any_preprocessing(width, height, side, seed, pad):
    """One hot token of a padded or cropped image: its visible footprint lies in the crop."""
    lay = pad_to_square if pad else center_crop
    boxes = lay((width, height), (side, side)).boxes
    seen = np.flatnonzero(~np.isnan(boxes).any(axis=1))
    token = int(np.random.default_rng(seed).choice(seen))
    values = np.zeros(len(boxes))
    values[token] = 1.0
    cell = (max if pad else min)(width, height) / side
    x0, y0, x1, y1 = select(values, boxes, (width, height), 1.05 * cell + 1, (1.0,)).box
    low, high = np.array([x0, y0]), np.array([x1, y1])
    assert (low <= boxes[token, :2] + 1).all()
    assert (high >= boxes[token, 2:] - 1).all()


def test_padding_is_no_place_to_look():
    """A wide image padded to a square: as if only its own three rows were there, centred by their true edges."""
    size, footprints = (120, 50), pad_to_square((120, 50), (6, 6))
    values = np.full((6, 6), 9.0)  # large in the padding
    values[1:5] = 0.0
    values[3, 5] = 1.0
    cells = cell_grid(values.reshape(-1), footprints.boxes)
    assert cells.values.shape == (4, 6)
    np.testing.assert_allclose(cells.rows, [[0, 5], [5, 25], [25, 45], [45, 50]])
    assert cells.within(40) == (2, 2)  # of whole cells; rows cut at the edges do not make it three
    assert select(values.reshape(-1), footprints.boxes, size, 20, (1.0,)).box == (100, 25, 120, 45)


def test_the_order_of_tokens_does_not_matter():
    rng = np.random.default_rng(0)
    values, boxes = rng.random(30), squash((97, 61), (5, 6)).boxes
    order = rng.permutation(30)
    assert select(values, boxes, (97, 61), 20) == select(values[order], boxes[order], (97, 61), 20)


@pytest.mark.parametrize("size", [(300, 200), (336, 336), (1, 1)])
def test_a_small_image_is_taken_whole(size):
    found = crop(np.arange(16.0).reshape(4, 4), size, 336)
    assert found.box == (0, 0, *size)
    assert found.ratio is None


def test_a_side_longer_than_the_image_is_the_images():
    grid = np.zeros((4, 8))
    grid[:, 6] = 1.0
    found = crop(grid, (800, 100), 150, (1.0,))
    assert found.box == (575, 0, 725, 100)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, -3.0])
def test_a_flat_map_singles_nothing_out(value):
    assert crop(np.full((6, 6), value), (90, 90), 30).box == (0, 0, 90, 90)


def test_equal_sums_take_the_first_in_reading_order():
    grid = np.zeros((5, 5))
    grid[3, 0] = grid[1, 4] = grid[1, 2] = 1.0
    assert crop(grid, (50, 50), 10, (1.0,)).box == (20, 10, 30, 20)


def test_equal_scores_take_the_first_ratio():
    grid = np.zeros((8, 8))
    grid[4, 4] = 1.0
    assert crop(grid, (80, 80), 10, (1.9, 1.0)).ratio == 1.9


def test_a_base_below_a_cell_is_centred_on_the_cell():
    found = crop(HOT, (80, 80), 6, (1.0,))
    assert found.box == (47, 27, 53, 33)


def test_pixels_of_a_box_are_whole_numbers():
    assert all(type(edge) is int for edge in crop(HOT, (83, 61), 17.3).box)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_must_be_finite(bad):
    values = np.zeros(16)
    values[3] = bad
    with pytest.raises(MapError, match=r"one finite value per token, shape \(16,\).*1 value NaN or infinite"):
        select(values, squash((80, 80), (4, 4)).boxes, (80, 80), 20)


def test_tokens_of_two_views_are_no_grid():
    boxes = np.concatenate([squash((80, 80), (4, 4)).boxes, squash((80, 80), (3, 3)).boxes])
    with pytest.raises(
        MapError, match=r"25 footprints with area in 6 rows and 6 columns\. Pass the tokens of one view"
    ):
        select(np.arange(25.0), boxes, (80, 80), 20)
    with pytest.raises(MapError, match="0 footprints with area"):
        select(np.zeros(2), np.full((2, 4), np.nan), (80, 80), 20)
