"""GOT-OCR 2: the squashed page through SAM's tower and two convolutions that halve its grid; tiles on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate
from interp.models.anyres import squares
from interp.models.base import Family
from interp.models.resizing import halved_twice, one_image, tile_windows, whole
from interp.models.tiled_canvas import canvas_of, squashed_tiles

__all__ = ["GotOcr2"]


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


_SYSTEM = "You should follow the instructions carefully and explain your answers in detail."


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
