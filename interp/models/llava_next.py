"""LLaVA-NeXT (LLaVA-1.6): the whole image squashed, then the anyres grid with a newline token per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.footprints import Footprints, concatenate
from interp.models.anyres import AnyRes
from interp.models.base import Family
from interp.models.geometry import one_image

__all__ = ["LlavaNext"]


class LlavaNext(Family):
    """The `llava_next` family: two views of each image, "base" and "tile", the first for the whole."""

    name = "llava_next"
    model_types = ("llava_next",)
    layout = (
        "whole image squashed, then tiles as one row-major grid, unpadded, a newline token after each row"
    )
    examples = ("llava-hf/llava-v1.6-mistral-7b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf")

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Per image the squashed view, then the tiles put together; newline tokens are NaN rows of "tile".

        Raises:
            ModelError: Processor and config cut differently, or the inputs were cut otherwise than both say.
        """
        if not sizes:
            return concatenate([])
        settings = processor.image_processor
        cut = AnyRes.read(settings, config)
        cut.check(sizes, [1 + cut.n_tiles(size) for size in sizes], inputs, settings)
        return concatenate([one_image([cut.base(size), cut.tiles(size)]) for size in sizes])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """LLaVA's vicuna prompt."""
        head = "" if system is None else f"{system} "
        return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"
