"""Gemma 3 and MedGemma: the squashed image is pooled to a square grid; with pan and scan also its crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, Window, concatenate, lay
from interp.models.base import Family
from interp.models.resizing import (
    check_views,
    one_image,
    pan_and_scan,
    seen_part,
    setting,
    squashed_size,
    whole,
)

__all__ = ["Gemma3"]


class Gemma3(Family):
    """The `gemma3` family. The tokens of an image see each other in both directions, through `token_type_ids`."""

    name = "gemma3"
    model_types = ("gemma3",)
    layout = "the image squashed to a square, pooled to one row-major grid (16×16); with pan and scan also its crops"
    attends = "image_blocks"
    examples = ("google/gemma-3-4b-it", "google/medgemma-4b-it")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image; with pan and scan views "base" and "crop", the crops side by side or stacked.

        The crops tile the image; the last one may be a few pixels smaller. `grid` is set if there are no crops.

        Raises:
            ModelError: The settings are not supported, or the pixel values do not follow from them.
        """
        crops = [pan_and_scan(size, processor) for size in sizes]
        pixels = [squashed_size(size, processor, self.name) for size in sizes]
        views = [view for view, cuts in zip(pixels, crops, strict=True) for _ in range(len(cuts) + 1)]
        check_views(inputs, views, sizes, processor)
        base = "base" if setting(processor, "do_pan_and_scan") else ""
        return concatenate([_laid(*one, base, config) for one in zip(sizes, pixels, crops, strict=True)])

    def patches_along(self, config: Any) -> int:
        """Returns the side of the average pool."""
        vision = config.vision_config
        return vision.image_size // vision.patch_size // int(config.mm_tokens_per_image**0.5)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Gemma's turns; there is no system turn, so a system message starts the user's turn."""
        head = "" if system is None else f"{system}\n\n"
        images = "<start_of_image>" * n_images
        return f"<start_of_turn>user\n{head}{images}{text}<end_of_turn>\n<start_of_turn>model\n"


def _laid(size: Size, pixels: Size, crops: Sequence[Window], base: str, config: Any) -> Footprints:
    """Returns the tokens of one image: the whole, then its crops."""
    vision = config.vision_config
    if pixels != (vision.image_size, vision.image_size):
        raise ModelError(
            f"gemma3's tower takes {vision.image_size}×{vision.image_size} pixels; the processor makes "
            f"{pixels[0]}×{pixels[1]} (width×height). Set processor.image_processor.size."
        )
    patches = vision.image_size // vision.patch_size
    pool = patches // int(config.mm_tokens_per_image**0.5)
    side, cell = patches // pool, pool * vision.patch_size
    windows = [(whole(size), base), *((crop, "crop") for crop in crops)]
    seen = [(seen_part(pixels, (cell, cell), (side, side), window), view) for window, view in windows]
    return one_image([lay(size, (side, side), window, view=view) for window, view in seen])
