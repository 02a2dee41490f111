"""Cells over tiles, by hand."""

from __future__ import annotations

import numpy as np

from interp.inputs.footprints import check_layout
from interp.models.tiling import mesh, patch_lines


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
