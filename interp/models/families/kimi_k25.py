"""Kimi K2.5: the image shrunk to a number of patches, padded to whole cells at the right and the bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay, pulled_back
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family
from interp.models.processing.kimi_images import fitted_and_padded
from interp.models.resizing import agree, setting
from interp.models.vision_patches import merged

__all__ = ["KimiK25"]


class KimiK25(Family):
    """The `kimi_k25` family: MoonViT's patches merged 2×2, and a decoder with latent attention (MLA) and experts."""

    name = "kimi_k25"
    model_types = ("kimi_k25",)
    layout = "shrunk to a bound of patches, padded at the right and the bottom, one row-major grid of merged patches"
    examples = ("moonshotai/Kimi-K2.5", "moonshotai/Kimi-K2.6")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image; a cell across the edge of the image keeps the part inside.

        Raises:
            ModelError: There are videos, the settings differ from the model's, or the grids do not follow from them.
        """
        if inputs.get("video_grid_thw") is not None:
            raise ModelError("expected images for kimi_k25, got a video; pass its frames as images.")
        patch, merge = int(setting(processor, "patch_size")), int(setting(processor, "merge_size"))
        vision = config.vision_config
        mine, theirs = (patch, [merge, merge]), (vision.patch_size, list(vision.merge_kernel_size))
        if mine != theirs or not setting(processor, "do_resize"):
            raise ModelError(
                f"kimi_k25's processor has patches of {patch} px, merged {merge}×{merge}, and do_resize="
                f"{setting(processor, 'do_resize')}; the model takes {theirs[0]} px and {theirs[1][0]}×{theirs[1][1]}, "
                "and images that are resized and padded. Set them to the checkpoint's."
            )
        made = [_made(size, processor) for size in sizes]
        found = [tuple(int(n) for n in grid) for grid in inputs.get("image_grid_thw", ())]
        grids = [(1, high // patch, wide // patch) for _, (wide, high) in made]
        agree("grids of (1, rows, columns) of patches", grids, found, processor.image_processor)
        cell, parts = patch * merge, []
        for size, (fitted, (wide, high)) in zip(sizes, made, strict=True):
            window = pulled_back((0, 0, wide, high), size, fitted)
            parts.append(lay(size, (high // cell, wide // cell), window))
        return concatenate(parts)

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each image, row by row, those of its padding without an area.

        Raises:
            ModelError: As `footprints`.
        """
        self.footprints(sizes, inputs, processor, config)
        patch, merge = int(setting(processor, "patch_size")), int(setting(processor, "merge_size"))
        sequences, weights = [], []
        for number, size in enumerate(sizes):
            fitted, (wide, high) = _made(size, processor)
            grid, window = (high // patch, wide // patch), pulled_back((0, 0, wide, high), size, fitted)
            sequences.append(TowerSequence(lay(size, grid, window, image=number)))
            weights.append(merged((grid[0] // merge, grid[1] // merge), merge))
        return Patches(tuple(sequences), (), PatchWeights.stacked(weights))

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Kimi's turns."""
        head = "" if system is None else f"<|im_system|>system<|im_middle|>{system}<|im_end|>"
        images = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n" * n_images
        user = f"<|im_user|>user<|im_middle|>{images}{text}<|im_end|>"
        return f"{head}{user}<|im_assistant|>assistant<|im_middle|>"


def _made(size: Size, processor: Any) -> tuple[Size, Size]:
    """Returns (width, height) of an image once it is fitted, and of the padded image around it."""
    patch, merge = int(setting(processor, "patch_size")), int(setting(processor, "merge_size"))
    limits = (int(setting(processor, "max_patches")), int(dict(setting(processor, "size"))["max_height"]))
    return fitted_and_padded(size, patch, merge, *limits)
