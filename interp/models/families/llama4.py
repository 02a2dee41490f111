"""Llama 4: tiles of a canvas, with separators between them, then the whole image squashed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from torch import nn

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay, pulled_back
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family
from interp.models.resizing import check_views, one_image, whole
from interp.models.vision_patches import merged, split_views

__all__ = ["Llama4"]


class Llama4(Family):
    """The `llama4` family: view "tile" with a grid per tile, and after several tiles view "global" of the whole image.

    The separators between tiles and the marks around them have ids of their own, so they are no image tokens.
    """

    name = "llama4"
    model_types = ("llama4",)
    layout = (
        "fitted into a canvas of square tiles and padded right and below, each tile a row-major grid; after several "
        "tiles the whole image, squashed"
    )
    examples = ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct")

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the language model's layers, which lie one module deeper than in other families."""
        return list(model.get_decoder().model.layers)  # pyright: ignore[reportCallIssue]

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the tiles row by row, then the whole. Tokens that see only padding have no footprint.

        Raises:
            ModelError: The tiles are not the model's, or the pixel values do not follow from the settings.
        """
        from interp.models.processing.llama4_images import canvas

        if not sizes:
            return concatenate([])
        settings = processor.image_processor
        side, tokens = _tile(processor, config)
        laid = [canvas(size, settings) for size in sizes]
        counts = [rows * cols + (rows * cols > 1) for (rows, cols), _ in laid]
        check_views(inputs, [(side, side)] * sum(counts), sizes, processor)
        return concatenate([_views(size, *one, side, tokens) for size, one in zip(sizes, laid, strict=True)])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns each tile's patches, one sequence with a class token behind it; k×k patches make a token."""
        from interp.models.processing.llama4_images import canvas

        side, tokens = _tile(processor, config)
        k = round(1 / config.vision_config.pixel_shuffle_ratio)
        laid = [(size, *canvas(size, processor.image_processor)) for size in sizes]
        tiles = split_views(concatenate([_views(*one, side, tokens * k) for one in laid]), inputs)
        weights = PatchWeights.stacked([merged((tokens, tokens), k)] * len(tiles))
        return Patches(tuple(map(TowerSequence, tiles)), ("cls",), weights, at_end=True)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Llama 4's turns; the processor writes an image's tiles in the place of its token."""
        turns = [] if system is None else [f"<|header_start|>system<|header_end|>\n\n{system}<|eot|>"]
        turns.append(f"<|header_start|>user<|header_end|>\n\n{'<|image|>' * n_images}{text}<|eot|>")
        return "<|begin_of_text|>" + "".join(turns) + "<|header_start|>assistant<|header_end|>\n\n"


def _tile(processor: Any, config: Any) -> tuple[int, int]:
    """Returns the side of a tile in pixels and in tokens."""
    size, vision = processor.image_processor.size, config.vision_config
    patches, ratio = int(size["height"]) // vision.patch_size, vision.pixel_shuffle_ratio
    own = (vision.image_size, vision.image_size, round(1 / ratio**2))
    found = (int(size["height"]), int(size["width"]), processor.downsample_ratio)
    if own != found or int(patches * ratio) != patches * ratio:
        raise ModelError(
            f"llama4's model takes tiles of {own[0]}×{own[1]} px and merges {own[2]} patches of {vision.patch_size} px "
            f"into a token; the processor makes tiles of {found[0]}×{found[1]} px and counts {found[2]} patches a "
            "token. Set processor.image_processor.size, or pass the processor of this checkpoint."
        )
    return found[0], int(patches * ratio)


def _views(size: Size, grid: tuple[int, int], fitted: Size, side: int, tokens: int) -> Footprints:
    """Returns the tokens of one image."""
    cells, tiles = (tokens, tokens), []
    for row, col in product(range(grid[0]), range(grid[1])):
        window = (col * side, row * side, (col + 1) * side, (row + 1) * side)
        tiles.append(lay(size, cells, pulled_back(window, size, fitted), view="tile"))
    if len(tiles) == 1:
        return one_image(tiles)
    return one_image([*tiles, lay(size, cells, whole(size), view="global")])
