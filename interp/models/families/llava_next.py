"""LLaVA-NeXT (LLaVA-1.6) and LLaVA-OneVision: the squashed whole image, then the anyres grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, concatenate
from interp.inputs.patch_map import Patches
from interp.models.anyres import AnyRes
from interp.models.anyres_patches import anyres_patches
from interp.models.base import Family
from interp.models.resizing import agree, one_image
from interp.models.vision_patches import leading_tokens

__all__ = ["LlavaNext", "LlavaOnevision"]


class LlavaNext(Family):
    """The `llava_next` family: two views of each image, "base" for the whole image and "tile"."""

    name = "llava_next"
    model_types = ("llava_next",)
    layout = (
        "whole image squashed, then tiles as one row-major grid, unpadded, a newline token after each row"
    )
    examples = ("llava-hf/llava-v1.6-mistral-7b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf")

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns for each image the squashed view and then the joined tiles; newline tokens are NaN rows of "tile".

        Raises:
            ModelError: Processor and config describe different tiles, or the inputs have other tiles.
        """
        if not sizes:
            return concatenate([])
        settings = processor.image_processor
        cut = AnyRes.read(settings, config)
        cut.check(sizes, [1 + cut.n_tiles(size) for size in sizes], inputs, settings)
        return concatenate([one_image([cut.base(size), cut.tiles(size)]) for size in sizes])

    def patches(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns for each image a grid of patches of the whole and one of each tile; padding patches are NaN.

        Raises:
            ModelError: As `footprints`.
        """
        self.footprints(sizes, inputs, processor, config)
        cut = AnyRes.read(processor.image_processor, config) if sizes else None
        return anyres_patches(cut, [(size, True) for size in sizes], leading_tokens(config))

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns LLaVA's vicuna prompt."""
        head = "" if system is None else f"{system} "
        return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"


class LlavaOnevision(Family):
    """The `llava_onevision` family.

    An image that is processed alone has two views, "base" and "tile". An image that is processed together with others
    (see the processor's `batch_num_images`) has only "base", padded to a square instead of squashed, and one newline
    token.
    """

    name = "llava_onevision"
    model_types = ("llava_onevision",)
    layout = "whole image squashed, then tiles as one row-major grid, unpadded, shrunk, a newline token after each row"
    examples = ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns for each image the squashed view and the tiles, or the padded view; newline tokens are NaN rows.

        Raises:
            ModelError: Processor and config describe different tiles, or the inputs have other tiles.
        """
        if not sizes:
            return concatenate([])
        mine, theirs = processor.vision_aspect_ratio, config.vision_aspect_ratio
        if mine != theirs:
            raise ModelError(
                f"the processor's vision_aspect_ratio is {mine!r}, but the model's config has {theirs!r}: they would "
                "count tokens differently. Set both to the checkpoint's."
            )
        settings = processor.image_processor
        cut, alone = _read(sizes, inputs, processor, config)
        cut.check(
            sizes,
            [1 + cut.n_tiles(s) * tiled for s, tiled in zip(sizes, alone, strict=True)],
            inputs,
            settings,
        )
        return concatenate(
            [
                one_image([cut.base(size), cut.tiles(size)]) if tiled else cut.padded(size)
                for size, tiled in zip(sizes, alone, strict=True)
            ]
        )

    def patches(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns for each image a grid of patches of the whole and, if it is processed alone, one of each tile.

        Where the model shrinks the grid of tiles, a token is a weighted mean of neighbouring patches.

        Raises:
            ModelError: As `footprints`.
        """
        self.footprints(sizes, inputs, processor, config)
        if not sizes:
            return anyres_patches(None, [], leading_tokens(config))
        cut, alone = _read(sizes, inputs, processor, config)
        return anyres_patches(cut, list(zip(sizes, alone, strict=True)), leading_tokens(config))


def _read(
    sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
) -> tuple[AnyRes, list[bool]]:
    """Returns how OneVision cuts images, and which of them are processed alone."""
    settings = processor.image_processor
    cut = AnyRes.read(settings, config, most=int(config.vision_aspect_ratio.removeprefix("anyres_max_")))
    together = inputs.get("batch_num_images")
    together = [1] * len(sizes) if together is None else [int(n) for n in together]
    agree("a number of images", len(sizes), sum(together), settings)
    return cut, [n == 1 for n in together for _ in range(n)]
