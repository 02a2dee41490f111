"""InternVL in transformers' own classes (InternVL3-hf and others): tiles by aspect ratio, then a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.inputs.footprints import Footprints, Size
from interp.inputs.patch_map import Patches
from interp.models.base import Family, chatml
from interp.models.resizing import patch_sides
from interp.models.tiling import tiled_footprints
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
        return tiled_footprints(
            sizes,
            inputs,
            processor,
            config,
            family=self.name,
            ratio=config.downsample_ratio,
            turned=config.model_type == "interp_internvl_v1",
        )

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each tile, row by row; also where tokens run down the columns (InternVL 1.2)."""
        found = self.footprints(sizes, inputs, processor, config)
        k = self.patches_along(config)
        if config.model_type != "interp_internvl_v1" or not len(found):
            return usual_patches(found, inputs, config, k)
        side = int(inputs["pixel_values"].shape[-1]) // patch_sides(config)[1] // k
        return turned(found, (side, side), inputs, config, k)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML with each image on its own line."""
        return chatml("<IMG_CONTEXT>\n" * n_images + text, system)
