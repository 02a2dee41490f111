"""Cells over tiles, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ModelError
from interp.inputs.footprints import check_layout
from interp.models.tiling import (
    AnyRes,
    _along,
    _cuts,
    anyres_patches,
    canvas_of,
    mesh,
    patch_lines,
    squares,
    squashed_tiles,
    tiled_footprints,
)


def test_patches_leave_the_rim_of_each_tile():
    lines = patch_lines(np.arange(7.0), patch=3, per_tile=3, side=10)
    assert lines.tolist() == [[0, 3], [3, 6], [6, 9], [10, 13], [13, 16], [16, 19]]


def test_a_cell_across_two_tiles_holds_the_rim_between():
    lines = patch_lines(np.array([0, 1.5, 3, 4.5, 6]), patch=4, per_tile=2, side=10)
    assert lines.tolist() == [[0, 12 - 10 + 4], [6, 14], [14, 22], [22, 28]]


def test_a_mesh_is_clipped_and_row_major():
    rows, cols = np.array([[-4.0, -1], [-1, 2], [3, 8]]), np.array([[0.0, 5 + 1e-12], [5, 12]])
    found = mesh((10, 6), rows, cols, view="tile")
    assert np.isnan(found.boxes[:2]).all()
    assert found.boxes[2:].tolist() == [[0, 0, 5, 2], [5, 0, 10, 2], [0, 3, 5, 6], [5, 3, 10, 6]]
    check_layout(found, [(10, 6)])
    assert len(mesh((10, 6), rows[:0], cols, view="tile")) == 0


def test_a_line_without_width_makes_tokens_without_area():
    lines = np.array([[0.0, 1], [1, 2]])
    found = mesh((9, 9), lines, np.concatenate([lines, np.zeros((1, 2))]), view="tile")
    assert np.flatnonzero(np.isnan(found.boxes[:, 0])).tolist() == [2, 5]
    only = mesh((9, 9), lines, np.zeros((1, 2)), view="tile")
    assert np.isnan(only.boxes).all()
    assert only.boxes.shape == (2, 4)


CUT = AnyRes(((20, 20), (20, 40), (40, 20)), side=20, patch=5)
"""Tiles of 4×4 patches, at most two of them."""
WIDE = (40, 20)


def test_squares_are_the_same_edges_along_both_sides() -> None:
    """A third and the rest of a window of 30×60 pixels at (10, 0)."""
    found = squares((50, 60), (10.0, 0.0, 40.0, 60.0), np.array([0, 1 / 3, 1]), view="v")
    assert found.boxes.tolist() == [[10, 0, 20, 20], [20, 0, 40, 20], [10, 20, 20, 60], [20, 20, 40, 60]]
    assert (found.grid, set(found.views)) == ((2, 2), {"v"})


@pytest.mark.parametrize(
    ("size", "cuts"),
    [((40, 10), (0, 1)), ((10, 20), (3, 0)), ((40, 20), (0, 0)), ((40, 14), (0, 1)), ((40, 16), (0, 0))],
)
def test_whole_patches_of_padding_are_dropped_at_both_ends(size, cuts) -> None:
    """Of 8×4 patches an image of 40×10 fills 8×2, one of 10×20 2×4; one of 40×14 fills 2 whole rows, of 40×16 3."""
    assert _cuts(size, (8, 4)) == cuts


@pytest.mark.parametrize(("most", "cells"), [(None, (8, 4)), (2, (8, 4)), (1, (5, 2))])
def test_a_grid_with_too_many_patches_is_shrunk(most, cells) -> None:
    """32 patches are twice as many as a tile has: √2 is above 1.1, so 8/√2 = 5.7 and 4/√2 = 2.8."""
    assert AnyRes(CUT.pinpoints, 20, 5, most).kept(WIDE) == ((0, 8, cells[0]), (0, 4, cells[1]))


def test_a_grid_a_tenth_too_long_is_not_shrunk() -> None:
    """Ten tiles in the place of 9: √(10/9) = 1.05; eleven: 1.106, and 44/1.106 = 39.8."""
    for tiles, cells in ((10, 40), (11, 39)):
        cut = AnyRes(((20, 20 * tiles),), side=20, patch=5, most=9)
        assert cut.kept((20 * tiles, 20))[0] == (0, 4 * tiles, cells)
        assert cut.n_tiles((20 * tiles, 20)) == tiles


def test_an_image_by_itself_is_padded_to_a_square() -> None:
    """Four patches along 40 pixels: the first and the last row are padding, and a newline follows."""
    found = CUT.padded(WIDE)
    rows = [[10 * c, 10 * r, 10 * c + 10, 10 * r + 10] for r in (0, 1) for c in range(4)]
    assert found.boxes[4:12].tolist() == rows
    assert np.isnan(found.boxes[[*range(4), *range(12, 17)]]).all()
    assert len(found) == 17
    assert set(found.image) == {0}
    rim = AnyRes(((21, 21),), side=21, patch=5).padded((42, 42))  # a pixel of the side belongs to no patch
    assert rim.boxes[15].tolist() == [30, 30, 40, 40]


def test_tiles_end_each_row_with_a_newline() -> None:
    found = CUT.tiles(WIDE).boxes.reshape(4, 9, 4)
    assert np.isnan(found[:, 8]).all()
    assert found[1, :8].tolist() == [[5 * c, 5, 5 * c + 5, 10] for c in range(8)]


def test_tokens_of_tiles_are_made_of_their_patches() -> None:
    """A first image with two tiles, a second without: newlines are made of none."""
    found = anyres_patches(CUT, [(WIDE, True), (WIDE, False)], ("cls",))
    assert found.leading == ("cls",)
    assert [len(one.cells) for one in found.sequences] == [16] * 4
    assert [set(one.cells.image) for one in found.sequences] == [{0}, {0}, {0}, {1}]
    assert found.weights.shape == (16 + 4 * 9 + 16 + 1, 4 * 16)
    matrix = found.weights.matrix()
    expected = np.zeros_like(matrix)
    expected[range(16), range(16)] = 1
    for row in range(4):
        for column in range(8):
            patch = 16 * (1 + column // 4) + 4 * row + column % 4
            expected[16 + 9 * row + column, patch] = 1
    expected[range(52, 68), range(48, 64)] = 1
    np.testing.assert_array_equal(matrix, expected)
    second = found.sequences[2].cells
    assert second.grid == (4, 4)
    assert second.boxes[[0, 5]].tolist() == [[20, 0, 25, 5], [25, 5, 30, 10]]


def test_a_shrunk_cell_takes_its_share_of_each_patch() -> None:
    """Two cells for four patches: halves. Two for three: centres at ¼ and 1¾ of patches counted from their middles."""
    assert [(at.tolist(), part.tolist()) for at, part in _along(1, 4, 2)] == [
        ([1, 2], [0.5, 0.5]),
        ([3, 4], [0.5, 0.5]),
    ]
    assert [(at.tolist(), part.tolist()) for at, part in _along(5, 3, 2)] == [
        ([5, 6], [0.75, 0.25]),
        ([6, 7], [0.25, 0.75]),
    ]
    assert [(at.tolist(), part.tolist()) for at, part in _along(2, 2, 2)] == [([2], [1]), ([3], [1])]


def settings(**own: Any) -> Any:
    return SimpleNamespace(
        **{
            "size": {"height": 20, "width": 20},
            "crop_size": {"height": 20, "width": 20},
            "image_grid_pinpoints": [[20, 20], [20, 40]],
            "do_pad": True,
            **own,
        }
    )


def test_processor_and_model_cut_alike() -> None:
    config = SimpleNamespace(
        image_grid_pinpoints=[[20, 20], [20, 40]],
        vision_config=SimpleNamespace(image_size=20, patch_size=5),
    )
    expected = AnyRes(((20, 20), (20, 40)), 20, 5, 9)
    assert AnyRes.read(settings(), config, 9) == expected
    assert (
        AnyRes.read(settings(crop_size=None, size={"shortest_edge": 20, "width": None}), config, 9)
        == expected
    )
    for wrong in ({"size": {"shortest_edge": 21}}, {"crop_size": {"height": 20, "width": 21}}):
        with pytest.raises(ModelError, match="takes tiles of 20×20 pixels"):
            AnyRes.read(settings(**wrong), config)
    with pytest.raises(ModelError, match="which it uses to join the tiles"):
        AnyRes.read(settings(image_grid_pinpoints=[[20, 40], [20, 20]]), config)


@pytest.mark.parametrize(
    ("pad", "views", "right"), [(True, (3, 3), True), (False, (3, 2), True), (False, (3, 3), False)]
)
def test_images_have_their_numbers_of_views(pad, views, right) -> None:
    """With padding every image has as many views as the one with the most."""
    inputs = {"image_sizes": [(20, 40), (20, 20)], "pixel_values": [torch.zeros(n, 3, 20, 20) for n in views]}
    given = [WIDE, (20, 20)], [3, 2], inputs, settings(do_pad=pad)
    if right:
        CUT.check(*given)
        with pytest.raises(ModelError, match=r"images of \(width, height\)"):
            CUT.check([WIDE, (20, 21)], *given[1:])
    else:
        with pytest.raises(ModelError, match="views of shape"):
            CUT.check(*given)


def tiling_processor(**own: Any) -> Any:
    of: dict[str, Any] = {"size": {"height": 20, "width": 20}, "crop_to_patches": True, "do_resize": True}
    return SimpleNamespace(
        image_processor=SimpleNamespace(**{**of, "min_patches": 1, "max_patches": 4, **own})
    )


@pytest.mark.parametrize(
    ("size", "own", "canvas"),
    [
        (WIDE, {}, (2, 1)),
        ((20, 40), {}, (1, 2)),
        (WIDE, {"crop_to_patches": False}, (1, 1)),
        (WIDE, {"max_patches": 1}, (1, 1)),
        (WIDE, {"max_patches": 2}, (2, 1)),
        ((20, 20), {"min_patches": 3}, (2, 2)),
    ],
)
def test_a_canvas_is_columns_and_rows(size, own, canvas) -> None:
    assert canvas_of(size, tiling_processor(**own)) == canvas


def test_several_tiles_are_followed_by_the_whole() -> None:
    """2×1 tiles of 2×2 tokens over 40×20 pixels, then a thumbnail; an image of one tile has none."""
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=5))
    sizes, views = [WIDE, (20, 20)], torch.zeros(4, 3, 20, 20)
    given = sizes, {"pixel_values": views}, tiling_processor()
    assert squashed_tiles(*given, "x", canvas_of) == ([(20, 20)] * 2, [(2, 1), (1, 1)])
    with pytest.raises(ModelError, match="pixel_values hold 3 views of 20×20"):
        squashed_tiles(sizes, {"pixel_values": views[:3]}, given[2], "x", canvas_of)
    found = tiled_footprints(*given, config, family="x", ratio=0.5)
    assert found.views.tolist() == ["tile"] * 8 + ["thumbnail"] * 4 + ["tile"] * 4
    assert found.image.tolist() == [0] * 12 + [1] * 4
    assert found.boxes[[1, 2, 4, 9]].tolist() == [
        [10, 0, 20, 10],
        [0, 10, 10, 20],
        [20, 0, 30, 10],
        [20, 0, 40, 10],
    ]
    turned = tiled_footprints(*given, config, family="x", ratio=0.5, turned=True)
    np.testing.assert_array_equal(turned.boxes, found.boxes.reshape(4, 2, 2, 4).swapaxes(1, 2).reshape(16, 4))
    for patch, ratio in (((5, 4), 0.5), (3, 0.5), (5, 0.3)):
        config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=patch))
        with pytest.raises(ModelError, match="square tiles of whole patches"):
            tiled_footprints(*given, config, family="x", ratio=ratio)
