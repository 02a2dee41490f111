"""Mllama (Llama 3.2 Vision): the image is no part of the sequence; some layers attend to its tiles alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers.models.mllama.image_processing_pil_mllama import (
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

from interp.inputs.cross_keys import CrossKeys
from interp.inputs.footprints import Footprints, Size, concatenate, lay, pulled_back
from interp.models.base import Family
from interp.models.resizing import agree, one_image, pixel_size

__all__ = ["Mllama"]


class Mllama(Family):
    """The `mllama` family: view "tile", row by row; in each a class token without a place, then a row-major grid.

    The image is fitted into a canvas of tiles, in its upper left corner; what is right of it and below is padding. A
    row before the first image sees every key, those of padding too: so transformers has it.
    """

    name = "mllama"
    model_types = ("mllama",)
    maps = "cross"
    layout = (
        "outside of the sequence: fitted into the corner of a canvas of up to 4 tiles, tiles row by row, in each a "
        "class token and a row-major grid"
    )
    examples = ("meta-llama/Llama-3.2-11B-Vision-Instruct", "meta-llama/Llama-3.2-90B-Vision-Instruct")
    unread_tower = (
        "its layers attend over all tiles of an image at once, with a class token and padding after each"
    )

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns each tile's class token and grid; patches of padding, and padding tiles, have no footprint or token.

        Raises:
            ModelError: The tiles of the inputs do not follow from the image processor's settings.
        """
        if not sizes:
            return concatenate([])
        settings, vision = processor.image_processor, config.vision_config
        side, most = pixel_size(settings)["height"], int(settings.max_image_tiles)
        agree("the side of a tile", side, int(vision.image_size), settings)
        shape = (1, len(sizes), most, 3, side, side)
        agree("tiles of shape", shape, tuple(inputs["pixel_values"].shape), settings)
        canvases = [_canvas(size, side, most) for size in sizes]
        counts = [rows * cols for (rows, cols), _ in canvases]
        agree("tiles of the images", counts, inputs["aspect_ratio_mask"][0].sum(-1).tolist(), settings)
        patch = int(vision.patch_size)
        return concatenate([_tiles(*one, side, patch) for one in zip(sizes, canvases, strict=True)])

    def cross_keys(
        self, inputs: Mapping[str, Any], placeholders: Int[np.ndarray, " image"], config: Any
    ) -> tuple[Int[np.ndarray, " token"], CrossKeys]:
        """Returns the columns of the image tokens, those of tiles that are no padding, and what each row sees."""
        vision = config.vision_config
        width = (int(vision.image_size) // int(vision.patch_size)) ** 2 + 1
        length = inputs["input_ids"].shape[1]
        if "cross_attention_mask" not in inputs:
            return np.empty(0, int), CrossKeys(placeholders, np.zeros((length, 0), bool), width)
        blocks = inputs["cross_attention_mask"][0].reshape(length, -1).numpy() > 0
        tiles = inputs["aspect_ratio_mask"][0].reshape(-1).numpy() > 0
        blocks[~blocks.any(axis=1)] = True
        columns = np.flatnonzero(np.repeat(tiles, width))
        return columns, CrossKeys(placeholders, blocks, width)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the images and then the text, as a base model takes them; the processor adds the first token."""
        head = "" if system is None else f"{system}\n"
        return "<|image|>" * n_images + head + text


def _canvas(size: Size, side: int, most: int) -> tuple[tuple[int, int], Size]:
    """Returns (rows, cols) of tiles, and (width, height) of the image fitted into them, by transformers' arithmetic."""
    width, height = size
    down, across = (int(n) for n in get_optimal_tiled_canvas(height, width, most, side))
    fitted = get_image_size_fit_to_canvas(height, width, down, across, side)
    return (down // side, across // side), (int(fitted[1]), int(fitted[0]))


def _tiles(size: Size, canvas: tuple[tuple[int, int], Size], side: int, patch: int) -> Footprints:
    """Returns a class token and a grid for each tile; patches are in pixels of the canvas."""
    (rows, cols), fitted = canvas
    n = side // patch
    parts = []
    for row in range(rows):
        for col in range(cols):
            x, y = col * side, row * side
            window = pulled_back((x, y, x + n * patch, y + n * patch), size, fitted)
            parts += [_class_token(), lay(size, (n, n), window, view="tile")]
    return one_image(parts)


def _class_token() -> Footprints:
    return Footprints(np.full((1, 4), np.nan), None, np.array(["tile"]), np.zeros(1, int))
