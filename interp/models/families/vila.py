"""VILA 1.5 (VILA-M3): one grid per squashed image; a token covers two by two patches, down the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family
from interp.models.modeling.vila_v1_5 import MERGED, tokens_along
from interp.models.resizing import check_views, down_columns, seen_part, squashed_size, whole

__all__ = ["Vila"]


class Vila(Family):
    """The `vila` family, in the class of `interp.models.modeling.vila_v1_5`."""

    name = "vila"
    model_types = ("interp_vila",)
    layout = "one grid down the columns, each token of 2×2 patches; the image squashed, its rim unseen"
    examples = ("MONAI/Llama3-VILA-M3-8B",)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image. In an odd grid, cells of the last row and column are half padding and are cut.

        Raises:
            ModelError: The settings do not squash images, or the pixel values do not follow from them.
        """
        views = [squashed_size(size, processor, self.name) for size in sizes]
        check_views(inputs, views, sizes, processor)
        patch = int(config.vision_config.patch_size)
        return concatenate([_laid(size, pixels, patch) for size, pixels in zip(sizes, views, strict=True)])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns one row-major grid per image; tokens at the end of an odd grid have two patches or one.

        Raises:
            ModelError: The settings do not squash images, or the pixel values do not follow from them.
        """
        views = [squashed_size(size, processor, self.name) for size in sizes]
        check_views(inputs, views, sizes, processor)
        patch = int(config.vision_config.patch_size)
        cells, weights = [], []
        for number, (size, pixels) in enumerate(zip(sizes, views, strict=True)):
            rows, cols = pixels[1] // patch, pixels[0] // patch
            window = seen_part(pixels, (patch, patch), (rows, cols), whole(size))
            cells.append(TowerSequence(lay(size, (rows, cols), window, image=number)))
            weights.append(_merged(rows, cols))
        return Patches(tuple(cells), (), PatchWeights.stacked(weights))

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns VILA's vicuna prompt."""
        head = "" if system is None else f"{system} "
        return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"


def _merged(rows: int, cols: int) -> PatchWeights:
    """Returns which patches of a row-major grid make each token, tokens down the columns."""
    numbers = np.arange(rows * cols).reshape(rows, cols)
    corners = [(r, c) for c in range(0, cols, MERGED) for r in range(0, rows, MERGED)]
    return PatchWeights.members(
        [numbers[r : r + MERGED, c : c + MERGED].ravel() for r, c in corners], rows * cols
    )


def _laid(size: Size, pixels: Size, patch: int) -> Footprints:
    """Returns the tokens of one image."""
    cell, across, down = MERGED * patch, size[0] / pixels[0], size[1] / pixels[1]
    rows, cols = tokens_along(pixels[1], patch), tokens_along(pixels[0], patch)
    grid = lay(size, (rows, cols), (0.0, 0.0, cols * cell * across, rows * cell * down))
    seen = [pixels[0] // patch * patch * across, pixels[1] // patch * patch * down]
    boxes = np.hstack([grid.boxes[:, :2], np.minimum(grid.boxes[:, 2:], seen)])
    return down_columns(replace(grid, boxes=boxes))
