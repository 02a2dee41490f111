"""PaliGemma: the squashed image's patches form a row-major grid before the text; the prompt sees all of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.inputs.footprints import Footprints, concatenate, lay
from interp.models.base import Family
from interp.models.resizing import check_views, seen_part, squashed_size, whole

__all__ = ["PaliGemma"]


class PaliGemma(Family):
    """The `paligemma` family, both generations. An image prefix is not exact, because image tokens see the question."""

    name = "paligemma"
    model_types = ("paligemma",)
    layout = "the image squashed to a square, one row-major grid of its patches, first in the prompt"
    attends = "prefix"
    first_position = 1
    examples = ("google/paligemma-3b-mix-224", "google/paligemma2-3b-mix-448")

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image over the whole image.

        Raises:
            ModelError: The settings are not supported, or the pixel values do not follow from them.
        """
        pixels = [squashed_size(size, processor, self.name) for size in sizes]
        check_views(inputs, pixels, sizes, processor)
        patch = int(config.vision_config.patch_size)
        parts = []
        for size, (across, down) in zip(sizes, pixels, strict=True):
            grid = (down // patch, across // patch)
            parts.append(lay(size, grid, seen_part((across, down), (patch, patch), grid, whole(size))))
        return concatenate(parts)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the images and then the text; the processor adds `<bos>` between them and a newline at the end.

        PaliGemma has no system prompt; a system message starts the text.
        """
        head = "" if system is None else f"{system} "
        return "<image>" * n_images + head + text
