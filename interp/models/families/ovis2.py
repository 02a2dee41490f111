"""Ovis 2: the squashed whole image, then tiles; a token is a mixture of the rows of a table of visual words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.models.ovis2.image_processing_pil_ovis2 import (
    get_min_tile_covering_grid,
    get_optimal_tiled_canvas,
)

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.models.base import Family, chatml
from interp.models.resizing import (
    one_image,
    seen_part,
    setting,
    tile_windows,
    whole,
)
from interp.models.tiling import squashed_tiles

__all__ = ["Ovis2"]


class Ovis2(Family):
    """The `ovis2` family.

    The tower's output at a place is a distribution over visual words, and the token is their mean embedding. The words
    around an image and between its tiles (`<IMG_START>`, `<IMG_GRID>`, `<IMG_COL>`, …) have ids of their own: they are
    not image tokens, although their embeddings come from the same table.
    """

    name = "ovis2"
    model_types = ("ovis2",)
    layout = (
        "the whole image squashed, then tiles that cover it, row by row; each a row-major grid; words of their own "
        "between the tiles"
    )
    examples = ("thisisiron/Ovis2-1B-hf", "thisisiron/Ovis2-2B-hf")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns view "base" with a grid over the whole image and, where it is cut, view "tile" with a grid per tile.

        Raises:
            ModelError: The tiles do not fit the tower, or the pixel values do not follow from the settings.
        """
        tiles, canvases = squashed_tiles(sizes, inputs, processor, self.name, _canvas)
        edge = int(config.vision_config.patch_size) * int(config.vision_config.hidden_stride)
        parts = [
            _laid(size, canvas, _tokens_along(tile, config), (edge, edge), tile)
            for size, canvas, tile in zip(sizes, canvases, tiles, strict=True)
        ]
        return concatenate(parts)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML with each image on its own line."""
        system = "You are a helpful assistant." if system is None else system
        return chatml("<image>\n" * n_images + text, system)


def _canvas(size: Size, processor: Any) -> tuple[int, int]:
    """Returns (columns, rows) of tiles; transformers' own functions choose them."""
    most = setting(processor, "max_patches")
    if not setting(processor, "crop_to_patches") or most <= 1:
        return 1, 1
    tile = dict(setting(processor, "size"))
    shape = (size[1], size[0])
    if setting(processor, "use_covering_area_grid"):
        return get_min_tile_covering_grid(shape, target_patch_size=tile["height"], max_image_tiles=most)
    return get_optimal_tiled_canvas(
        shape, (tile["height"], tile["width"]), setting(processor, "min_patches"), most
    )


def _tokens_along(tile: Size, config: Any) -> int:
    """Returns the number of tokens along a tile's side."""
    vision = config.vision_config
    side, cell = int(vision.image_size), int(vision.patch_size) * int(vision.hidden_stride)
    if tile != (side, side) or (side // int(vision.patch_size)) % int(vision.hidden_stride):
        raise ModelError(
            f"ovis2's tower takes tiles of {side}×{side} px, whose patches of {vision.patch_size} px merge evenly "
            f"{vision.hidden_stride}×{vision.hidden_stride}; the processor makes tiles of {tile[0]}×{tile[1]} px. Set "
            "processor.image_processor.size."
        )
    return side // cell


def _laid(size: Size, canvas: tuple[int, int], side: int, cell: Size, tile: Size) -> Footprints:
    """Returns the tokens of one image: the whole, then its tiles; a rim without whole patches has no token."""
    windows = [(whole(size), "base")]
    if canvas != (1, 1):
        windows += [(window, "tile") for window in tile_windows(size, canvas)]
    grid = (side, side)
    return one_image([lay(size, grid, seen_part(tile, cell, grid, w), view=view) for w, view in windows])
