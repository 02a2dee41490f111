"""LightOnOCR: Pixtral's merged patches over the squashed page, as in Mistral 3, without line breaks between rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.inputs.footprints import lay
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.families.mistral3 import Mistral3
from interp.models.resizing import setting, whole

__all__ = ["LightOnOcr"]


class LightOnOcr(Mistral3):
    """The `lighton_ocr` family: both edges are rounded up to patches; odd patches at the end are not merged."""

    name = "lighton_ocr"
    model_types = ("lighton_ocr",)
    layout = "longest edge bounded, both edges rounded up to patches, one row-major grid of merged patches"
    examples = ("lightonai/LightOnOCR-1B-1025",)

    def rounded_to(self, processor: Any, cell: int) -> tuple[int, int]:
        """Returns the image processor's own patch size, which its processor leaves as it is."""
        patch = setting(processor, "patch_size")
        return int(patch["height"]), int(patch["width"])

    def patches(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each page, row by row; odd ones at the right and the bottom are of no token.

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
        head = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
        images = "<|image_pad|>" * n_images
        return f"{head}<|im_start|>user\n{images}{text}<|im_end|>\n<|im_start|>assistant\n"
