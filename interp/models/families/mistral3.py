"""Mistral 3 (Mistral Small 3.1): Pixtral's merged patches over the squashed image; one grid per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, concatenate, lay, pulled_back
from interp.models.base import Family
from interp.models.resizing import agree, blank, pixel_size

__all__ = ["Mistral3"]


class Mistral3(Family):
    """The `mistral3` family: [IMG] tokens are a row-major grid; [IMG_BREAK] and [IMG_END] have ids of their own."""

    name = "mistral3"
    model_types = ("mistral3",)
    layout = "longest edge bounded, both edges rounded up to merged patches, one row-major grid"
    examples = ("mistralai/Mistral-Small-3.1-24B-Instruct-2503",)

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image; its cells have `patch_size · spatial_merge_size` pixels after the resize.

        Raises:
            ModelError: Processor and config differ, or the sizes of the inputs do not follow from them.
        """
        if not sizes:
            return concatenate([])
        settings = processor.image_processor
        mine, theirs = (
            (processor.patch_size, processor.spatial_merge_size),
            (config.vision_config.patch_size, config.spatial_merge_size),
        )
        if mine != theirs:
            raise ModelError(
                f"the processor's patch_size and spatial_merge_size are {mine}, but the model's config has {theirs}. "
                "Set both to the checkpoint's."
            )
        cell = mine[0] * mine[1]
        multiple = self.rounded_to(processor, cell)
        resized = [_resized(size, settings, multiple) for size in sizes]
        found = [(int(width), int(height)) for height, width in inputs["image_sizes"]]
        agree("images resized to (width, height)", resized, found, settings)
        parts = []
        for size, (width, height) in zip(sizes, resized, strict=True):
            grid = (height // cell, width // cell)
            window = pulled_back((0, 0, grid[1] * cell, grid[0] * cell), size, (width, height))
            parts.append(lay(size, grid, window))
        return concatenate(parts)

    def rounded_to(self, processor: Any, cell: int) -> tuple[int, int]:
        """Returns the (height, width) that a processed image is a multiple of, in pixels: the cell of a token."""
        return cell, cell

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Mistral's instruction prompt; the tokenizer puts `<s>` in front."""
        head = "" if system is None else f"[SYSTEM_PROMPT]{system}[/SYSTEM_PROMPT]"
        return head + "[INST]" + "[IMG]" * n_images + f"{text}[/INST]"


def _resized(size: tuple[int, int], settings: Any, multiple: tuple[int, int]) -> tuple[int, int]:
    """Returns (width, height) after the resize, in transformers' integer arithmetic."""
    if not settings.do_resize:
        return size
    bound = pixel_size(settings)
    edge = bound.get("longest_edge")
    limit = (bound["height"], bound["width"]) if edge is None else (edge, edge)
    height, width = get_resize_output_image_size(blank(size), limit, multiple, "channels_first")
    return width, height
