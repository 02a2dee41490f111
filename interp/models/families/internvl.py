"""InternVL in transformers' own classes (InternVL3-hf and others): tiles by aspect ratio, then a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.inputs.patch_map import Patches
from interp.models.base import Family
from interp.models.resizing import check_views, down_columns, one_image, setting, squashed_size, whole
from interp.models.vision_patches import turned, usual_patches

__all__ = ["InternVl"]


class InternVl(Family):
    """The `internvl` family: each tile's patches are shuffled into a square grid of tokens."""

    name = "internvl"
    model_types = ("internvl", "interp_internvl_v1")
    layout = (
        "a canvas of square tiles by aspect ratio, each a row-major grid; a thumbnail of the whole last; down the "
        "columns in InternVL 1.2 (MedRegA)"
    )
    examples = ("OpenGVLab/InternVL3-8B-hf",)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns view "tile" with a grid per tile, row by row; after several tiles also view "thumbnail" of the whole.

        Raises:
            ModelError: The tiles are not square, or the pixel values do not follow from the settings.
        """
        tiles = [squashed_size(size, processor, self.name) for size in sizes]
        canvases = [_canvas(size, processor) for size in sizes]
        counts = [cols * rows + (cols * rows > 1) for cols, rows in canvases]
        views = [tile for tile, count in zip(tiles, counts, strict=True) for _ in range(count)]
        check_views(inputs, views, sizes, processor)
        sides = [_side(tile, config) for tile in tiles]
        turned = config.model_type == "interp_internvl_v1"
        return concatenate([_laid(*one, turned) for one in zip(sizes, canvases, sides, strict=True)])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each tile, row by row; also where tokens run down the columns (InternVL 1.2)."""
        found = self.footprints(sizes, inputs, processor, config)
        k = self.patches_along(config)
        if config.model_type != "interp_internvl_v1" or not len(found):
            return usual_patches(found, inputs, config, k)
        side = _side((int(inputs["pixel_values"].shape[-1]), int(inputs["pixel_values"].shape[-2])), config)
        return turned(found, (side, side), inputs, config, k)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML with each image on its own line."""
        head = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
        images = "<IMG_CONTEXT>\n" * n_images
        return f"{head}<|im_start|>user\n{images}{text}<|im_end|>\n<|im_start|>assistant\n"


def _canvas(size: Size, processor: Any) -> tuple[int, int]:
    """Returns (columns, rows) of tiles."""
    fewest, most = setting(processor, "min_patches"), setting(processor, "max_patches")
    if not setting(processor, "crop_to_patches") or most <= 1:
        return 1, 1
    tile = dict(setting(processor, "size"))
    return get_optimal_tiled_canvas((size[1], size[0]), (tile["height"], tile["width"]), fewest, most)


def _side(tile: Size, config: Any) -> int:
    """Returns the number of tokens along a tile's side."""
    (high, wide), ratio = config.vision_config.patch_size, config.downsample_ratio
    rows, cols, side = tile[1] // high, tile[0] // wide, int(tile[1] // high * ratio)
    if rows != cols or tile != (cols * wide, rows * high) or side != rows * ratio:
        raise ModelError(
            f"internvl's model takes square tiles of whole patches of {wide}×{high} px that shuffle evenly (ratio "
            f"{ratio}); the processor makes tiles of {tile[0]}×{tile[1]} px. Set processor.image_processor.size."
        )
    return side


def _laid(size: Size, canvas: tuple[int, int], side: int, turned: bool) -> Footprints:
    """Returns the tokens of one image; with `turned` each tile's tokens run down its columns."""
    (cols, rows), (wide, high) = canvas, (size[0] / canvas[0], size[1] / canvas[1])
    places = product(range(rows), range(cols))
    windows = [(c * wide, r * high, (c + 1) * wide, (r + 1) * high) for r, c in places]
    tiles = [lay(size, (side, side), window, view="tile") for window in windows]
    views = tiles if len(tiles) == 1 else [*tiles, lay(size, (side, side), whole(size), view="thumbnail")]
    return one_image([down_columns(view) for view in views] if turned else views)
