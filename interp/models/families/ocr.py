"""GOT-OCR 2 and LightOnOCR, which read pages: one row-major grid of a page, or of its tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family, chatml
from interp.models.families.mistral3 import Mistral3
from interp.models.resizing import halved_twice, one_image, setting, tile_windows, whole
from interp.models.tiling import canvas_of, squares, squashed_tiles

__all__ = ["GotOcr2", "LightOnOcr"]


_SYSTEM = "You should follow the instructions carefully and explain your answers in detail."


class GotOcr2(Family):
    """The `got_ocr2` family.

    A convolution of kernel 3 and stride 2 is centred on every second place, so two of them see the patches 4j − 3 to
    4j + 3, with the patch 4j in the middle. The footprint of token j is therefore not the block of patches 4j to
    4j + 3: its edges lie halfway between the middles of neighbouring tokens.
    """

    name = "got_ocr2"
    model_types = ("got_ocr2",)
    layout = "the page squashed to a square, one row-major grid; cells centred on every fourth patch; on request tiles"
    examples = ("stepfun-ai/GOT-OCR-2.0-hf",)
    unread_tower = "it is SAM's, whose attention is computed in code of its own, with positions in the scores"
    nested_images: ClassVar[bool] = False

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns view "tile" with a grid per tile, row by row; after several tiles also view "thumbnail" of the whole.

        Raises:
            ModelError: The tiles do not fit the tower, or the pixel values do not follow from the settings.
        """
        tiles, canvases = squashed_tiles(sizes, inputs, processor, self.name, canvas_of)
        edges = [_edges(tile, config) for tile in tiles]
        return concatenate([_laid(*one) for one in zip(sizes, canvases, edges, strict=True)])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the original's conversation, whose turns have no line break between them."""
        system = _SYSTEM if system is None else system
        images = "".join("<img><imgpad></img>\n" for _ in range(n_images))
        head = f"<|im_start|>system\n{system}<|im_end|>"
        return f"{head}<|im_start|>user\n{images}{text}<|im_end|><|im_start|>assistant\n"


def _edges(tile: Size, config: Any) -> Float[np.ndarray, " edge"]:
    """Returns the edges of tokens along a tile, as parts of its side."""
    side, patch = int(config.vision_config.image_size), int(config.vision_config.patch_size)
    if tile != (side, side) or side % patch:
        raise ModelError(
            f"got_ocr2's tower takes tiles of {side}×{side} px, in whole patches of {patch} px; the processor makes "
            f"tiles of {tile[0]}×{tile[1]} px. Set processor.image_processor.size."
        )
    return halved_twice(side // patch) * patch / side


def _laid(size: Size, canvas: tuple[int, int], edges: Float[np.ndarray, " edge"]) -> Footprints:
    """Returns the tokens of one image: its tiles, then the whole where there are several."""
    views = [squares(size, window, edges, view="tile") for window in tile_windows(size, canvas)]
    if len(views) > 1:
        views.append(squares(size, whole(size), edges, view="thumbnail"))
    return one_image(views)


class LightOnOcr(Mistral3):
    """The `lighton_ocr` family: both edges are rounded up to patches; odd patches at the end are not merged."""

    name = "lighton_ocr"
    model_types = ("lighton_ocr",)
    layout = "longest edge bounded, both edges rounded up to patches, one row-major grid of merged patches"
    examples = ("lightonai/LightOnOCR-1B-1025",)

    def rounded_to(self, processor: Any, cell: int) -> tuple[int, int]:
        """Returns the patch size of the image processor."""
        patch = setting(processor, "patch_size")
        return int(patch["height"]), int(patch["width"])

    def patches(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each page, row by row; odd ones at the right and the bottom belong to no token.

        Raises:
            ModelError: As `footprints`.
        """
        self.footprints(sizes, inputs, processor, config)
        patch, merge = int(config.vision_config.patch_size), int(config.spatial_merge_size)
        sequences, weights = [], []
        for number, (size, (high, wide)) in enumerate(zip(sizes, inputs.get("image_sizes", ()), strict=True)):
            rows, cols = int(high) // patch, int(wide) // patch
            sequences.append(TowerSequence(lay(size, (rows, cols), whole(size), image=number)))
            down, across = rows // merge, cols // merge
            kept = np.arange(rows * cols).reshape(rows, cols)[: down * merge, : across * merge]
            cells = kept.reshape(down, merge, across, merge).transpose(0, 2, 1, 3).reshape(down * across, -1)
            weights.append(PatchWeights.members(list(cells), rows * cols))
        return Patches(tuple(sequences), (), PatchWeights.stacked(weights))

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML."""
        return chatml("<|image_pad|>" * n_images + text, system)
