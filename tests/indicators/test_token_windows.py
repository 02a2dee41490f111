"""Windows, blocks and cells of tokens, on a grid and by footprints alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.indicators.removals import blocks, places, windows
from interp.inputs.footprints import Footprints, concatenate, lay, pad_to_square
from interp.inputs.tokens import TokenMap


def token_map(footprints: Footprints, *sizes: tuple[int, int]) -> TokenMap:
    n = len(footprints)
    return TokenMap(
        image=np.arange(1, n + 1), footprints=footprints.boxes, grid=footprints.grid, views=footprints.views,
        image_index=footprints.image, sizes=sizes, length=n + 5,
    )  # fmt: skip


def grid(rows: int, cols: int) -> TokenMap:
    return token_map(
        lay((cols * 10, rows * 10), (rows, cols), (0, 0, cols * 10, rows * 10)), (cols * 10, rows * 10)
    )


def tiles() -> TokenMap:
    """A base view of 2×2 tokens of 20 px, a tile view of 4×4 of 10 px on the same image, and a newline."""
    base = lay((40, 40), (2, 2), (0, 0, 40, 40), view="base")
    fine = lay((40, 40), (4, 4), (0, 0, 40, 40), view="tile")
    newline = Footprints(np.full((1, 4), np.nan), None, np.array(["tile"]), np.zeros(1, int))
    return token_map(concatenate([base, fine, newline], one_image=True), (40, 40))


def test_windows_of_a_grid_are_squares_cut_off_at_the_edge() -> None:
    found = windows(grid(4, 5), 3)
    np.testing.assert_array_equal(np.flatnonzero(found[0]), [0, 1, 5, 6])
    np.testing.assert_array_equal(np.flatnonzero(found[7]), [1, 2, 3, 6, 7, 8, 11, 12, 13])
    np.testing.assert_array_equal(windows(grid(4, 5), 1), np.eye(20, dtype=bool))


def test_windows_keep_to_their_view_and_image() -> None:
    found = windows(tiles(), 3)
    np.testing.assert_array_equal(np.flatnonzero(found[0]), [0, 1, 2, 3])
    np.testing.assert_array_equal(np.flatnonzero(found[4]), [4, 5, 8, 9])
    np.testing.assert_array_equal(np.flatnonzero(found[9]), [4, 5, 6, 8, 9, 10, 12, 13, 14])
    assert not found[20].any()
    two = concatenate([lay((20, 20), (2, 2), (0, 0, 20, 20))] * 2)
    np.testing.assert_array_equal(
        windows(token_map(two, (20, 20), (20, 20)), 3), np.kron(np.eye(2), np.ones((4, 4)))
    )


def test_padding_is_in_no_window_and_no_block() -> None:
    wide = token_map(pad_to_square((80, 40), (4, 4)), (80, 40))
    assert not windows(wide, 3)[:4].any()
    np.testing.assert_array_equal(blocks(wide, 2).reshape(4, 4)[[0, 3]], -1)
    np.testing.assert_array_equal(blocks(wide, 2).reshape(4, 4)[1:3], [[0, 0, 1, 1], [2, 2, 3, 3]])


def test_views_that_show_one_place_share_a_block() -> None:
    number = blocks(tiles(), 2)
    np.testing.assert_array_equal(number[:4], [0, 1, 2, 3])
    np.testing.assert_array_equal(number[4:20].reshape(4, 4), np.kron([[0, 1], [2, 3]], np.ones((2, 2), int)))
    assert number[20] == -1
    np.testing.assert_allclose(places(tiles())[4:6], [[0, 0], [0, 1]])


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.data())
def test_blocks_are_a_shifted_lattice_numbered_without_gaps(
    rows: int, cols: int, side: int, data: st.DataObject
) -> None:
    dy, dx = (data.draw(st.integers(0, side - 1)) for _ in range(2))
    found = blocks(grid(rows, cols), side, [dy, dx]).reshape(rows, cols)
    y, x = np.divmod(np.arange(rows * cols), cols)
    keys = [(int((a + dy) // side), int((b + dx) // side)) for a, b in zip(y, x, strict=True)]
    order = {key: i for i, key in enumerate(sorted(set(keys)))}
    np.testing.assert_array_equal(found.reshape(-1), [order[key] for key in keys])
