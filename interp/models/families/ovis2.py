"""Ovis 2: the squashed whole image, then tiles; a token is a mixture of the rows of a table of visual words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers.models.ovis2.image_processing_pil_ovis2 import (
    get_min_tile_covering_grid,
    get_optimal_tiled_canvas,
)

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate
from interp.models.anyres import squares
from interp.models.base import Family
from interp.models.resizing import check_views, one_image, setting, squashed_size, tile_windows, whole

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
        tiles = [squashed_size(size, processor, self.name) for size in sizes]
        canvases = [_canvas(size, processor) for size in sizes]
        counts = [cols * rows + (cols * rows > 1) for cols, rows in canvases]
        views = [tile for tile, count in zip(tiles, counts, strict=True) for _ in range(count)]
        check_views(inputs, views, sizes, processor)
        parts = [
            _laid(size, canvas, _edges(tile, config))
            for size, canvas, tile in zip(sizes, canvases, tiles, strict=True)
        ]
        return concatenate(parts)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML with each image on its own line."""
        system = "You are a helpful assistant." if system is None else system
        head = f"<|im_start|>system\n{system}<|im_end|>\n"
        return f"{head}<|im_start|>user\n" + "<image>\n" * n_images + f"{text}<|im_end|>\n<|im_start|>assistant\n"


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


def _edges(tile: Size, config: Any) -> Float[np.ndarray, " edge"]:
    """Returns the edges of tokens along a tile, as parts of its side.

    A grid of patches that the stride does not divide is padded, so that the last tokens see fewer patches.
    """
    vision = config.vision_config
    patch, stride = int(vision.patch_size), int(vision.hidden_stride)
    if tile != (vision.image_size, vision.image_size):
        raise ModelError(
            f"ovis2's tower takes tiles of {vision.image_size}×{vision.image_size} px; the processor makes tiles of "
            f"{tile[0]}×{tile[1]} px. Set processor.image_processor.size."
        )
    patches = tile[0] // patch
    starts = np.arange(-(-patches // stride) + 1) * stride
    return np.minimum(starts, patches) * patch / tile[0]


def _laid(size: Size, canvas: tuple[int, int], edges: Float[np.ndarray, " edge"]) -> Footprints:
    """Returns the tokens of one image: the whole, then its tiles."""
    views = [squares(size, whole(size), edges, view="base")]
    if canvas != (1, 1):
        views += [squares(size, window, edges, view="tile") for window in tile_windows(size, canvas)]
    return one_image(views)
