"""Images cut into a canvas of square tiles by their aspect ratio, a thumbnail behind them: InternVL and Cohere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.models.resizing import (
    check_views,
    down_columns,
    one_image,
    setting,
    squashed_size,
    tile_windows,
    whole,
)

__all__ = ["canvas_of", "squashed_tiles", "tiled_footprints"]


def tiled_footprints(
    sizes: Sequence[Size],
    inputs: Mapping[str, Any],
    processor: Any,
    *,
    family: str,
    patch: Sequence[int],
    ratio: float,
    turned: bool = False,
) -> Footprints:
    """Returns view "tile" with a grid per tile, row by row; after several tiles also view "thumbnail" of the whole.

    Args:
        sizes: (width, height) of each image.
        inputs: The processor's output.
        processor: The processor.
        family: The family's name, for messages.
        patch: (height, width) of the tower's patches.
        ratio: Tokens along a side for each patch along it, after the shuffle.
        turned: Whether each tile's tokens run down its columns.

    Raises:
        ModelError: The tiles are not square, or the pixel values do not follow from the settings.
    """
    tiles, canvases = squashed_tiles(sizes, inputs, processor, family, canvas_of)
    sides = [_side(tile, family, patch, ratio) for tile in tiles]
    return concatenate([_laid(*one, turned) for one in zip(sizes, canvases, sides, strict=True)])


def squashed_tiles(
    sizes: Sequence[Size],
    inputs: Mapping[str, Any],
    processor: Any,
    family: str,
    canvas: Callable[[Size, Any], tuple[int, int]],
) -> tuple[list[Size], list[tuple[int, int]]]:
    """Returns the (width, height) of each image's tiles, and the (columns, rows) of its canvas.

    Where an image has several tiles, one more view of their size shows it whole.

    Args:
        sizes: (width, height) of each image.
        inputs: The processor's output.
        processor: The processor.
        family: The family's name, for messages.
        canvas: The (columns, rows) of tiles that a processor cuts an image of this size into.

    Raises:
        ModelError: Views are not of one size, or the pixel values do not follow from the settings.
    """
    tiles = [squashed_size(size, processor, family) for size in sizes]
    canvases = [canvas(size, processor) for size in sizes]
    counts = [cols * rows + (cols * rows > 1) for cols, rows in canvases]
    views = [tile for tile, count in zip(tiles, counts, strict=True) for _ in range(count)]
    check_views(inputs, views, sizes, processor)
    return tiles, canvases


def canvas_of(size: Size, processor: Any) -> tuple[int, int]:
    """Returns the (columns, rows) of tiles that an image is cut into."""
    fewest, most = setting(processor, "min_patches"), setting(processor, "max_patches")
    if not setting(processor, "crop_to_patches") or most <= 1:
        return 1, 1
    tile = dict(setting(processor, "size"))
    return get_optimal_tiled_canvas((size[1], size[0]), (tile["height"], tile["width"]), fewest, most)


def _side(tile: Size, family: str, patch: Sequence[int], ratio: float) -> int:
    """Returns the number of tokens along a tile's side."""
    high, wide = patch
    rows, cols, side = tile[1] // high, tile[0] // wide, int(tile[1] // high * ratio)
    if rows != cols or tile != (cols * wide, rows * high) or side != rows * ratio:
        raise ModelError(
            f"{family}'s model takes square tiles of whole patches of {wide}×{high} px that shuffle evenly (ratio "
            f"{ratio}); the processor makes tiles of {tile[0]}×{tile[1]} px. Set processor.image_processor.size."
        )
    return side


def _laid(size: Size, canvas: tuple[int, int], side: int, turned: bool) -> Footprints:
    """Returns the tokens of one image; with `turned` each tile's tokens run down its columns."""
    tiles = [lay(size, (side, side), window, view="tile") for window in tile_windows(size, canvas)]
    views = tiles if len(tiles) == 1 else [*tiles, lay(size, (side, side), whole(size), view="thumbnail")]
    return one_image([down_columns(view) for view in views] if turned else views)
