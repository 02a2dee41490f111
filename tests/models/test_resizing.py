"""Grids and sizes of resized images, by hand."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from interp.inputs.footprints import squash
from interp.models.resizing import down_columns, resized_sizes


def test_tokens_down_columns_have_their_cells_in_that_order() -> None:
    """Two rows of three columns of 10 × 20 pixels."""
    found = down_columns(squash((30, 40), (2, 3)))
    corners = [(x, y) for x in (0, 10, 20) for y in (0, 20)]
    assert found.boxes[:, :2].tolist() == [list(corner) for corner in corners]


def test_a_grid_of_patches_is_a_width_and_a_height() -> None:
    """`image_grid_thw` counts frames, rows and columns."""
    processor = SimpleNamespace(image_processor=SimpleNamespace(patch_size=14))
    grids = torch.tensor([[1, 4, 6], [1, 10, 2]])
    assert resized_sizes({"image_grid_thw": grids}, processor) == [(84, 56), (28, 140)]
    assert resized_sizes({}, processor) == []
