"""Gemma 3, Gemma 3n, Gemma 4, MedGemma and PaliGemma: one row-major grid of patches or pooled cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, Window, concatenate, lay, pulled_back
from interp.inputs.patch_map import Patches
from interp.models.base import Attends, Family
from interp.models.resizing import (
    agree,
    check_views,
    one_image,
    pan_and_scan,
    seen_part,
    setting,
    squashed_size,
    whole,
)

__all__ = ["Gemma3", "Gemma3n", "Gemma4", "Gemma4Unified", "PaliGemma"]


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
        return _turns("<start_of_image>" * n_images + text, system)


def _turns(content: str, system: str | None) -> str:
    head = "" if system is None else f"{system}\n\n"
    return f"<start_of_turn>user\n{head}{content}<end_of_turn>\n<start_of_turn>model\n"


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


class Gemma3n(Family):
    """The `gemma3n` family. Its tower, MobileNet-V5, comes from timm; it pools its features to a square grid.

    Between its layers a token is four streams (AltUp), see `interp.tracing.layers.residual`. The last layers use
    earlier layers' keys.
    """

    name = "gemma3n"
    model_types = ("gemma3n",)
    layout = "the image squashed to a square (768 px), one row-major grid of a tower of convolutions (16×16)"
    examples = ("google/gemma-3n-E2B-it", "google/gemma-3n-E4B-it")
    unread_tower = "it is made of convolutions and of attention in timm's own code"

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image over the whole image.

        Raises:
            ModelError: The number of tokens is no square or not the processor's, the settings are not supported, or
                the pixel values do not follow from them.
        """
        n, own = int(config.vision_soft_tokens_per_image), int(processor.image_seq_length)
        side = isqrt(n)
        if side**2 != n or n != own:
            raise ModelError(
                f"gemma3n's images become a square grid of tokens; the config's vision_soft_tokens_per_image is {n}, "
                f"the processor's image_seq_length {own}. Pass the processor of this checkpoint."
            )
        check_views(inputs, [squashed_size(size, processor, self.name) for size in sizes], sizes, processor)
        return concatenate([lay(size, (side, side), whole(size)) for size in sizes])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Gemma's turns; there is no system turn, so a system message starts the user's turn."""
        return _turns("<image_soft_token>" * n_images + text, system)


class Gemma4(Family):
    """The `gemma4` family. Several of its last layers may have no keys of their own: they use an earlier layer's.

    In models with `use_bidirectional_attention="vision"` the tokens of an image see each other in both directions in
    layers with a sliding window; layers that see everything are causal.
    """

    name = "gemma4"
    model_types = ("gemma4",)
    layout = (
        "resized in about its own shape to whole pooled cells (48 px; 70 to 1120 tokens), one row-major grid"
    )
    attends = "sliding_image_blocks"
    examples = ("google/gemma-4-E4B-it", "google/gemma-4-31B-it")

    def attends_in(self, config: Any) -> Attends:
        """Returns `attends` or "causal", as the config's `use_bidirectional_attention` says.

        Raises:
            ModelError: The model's text sees in both directions too, so that it cannot write token by token.
        """
        text = getattr(config, "text_config", config)
        kind = getattr(text, "use_bidirectional_attention", None)
        if kind == "all":
            raise ModelError(
                "this model has use_bidirectional_attention='all': every row sees the whole sequence, so it is an "
                "encoder, not a model that answers. Take a checkpoint with 'vision' or None."
            )
        return self.attends if kind == "vision" else "causal"

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image; its cells have `patch_size · pooling_kernel_size` pixels after the resize.

        Raises:
            ModelError: Processor and config differ, or the patches of the inputs do not follow from the settings.
        """
        if not sizes:
            return concatenate([])
        pool = _pooling(processor, config)
        patches = [_patches(size, processor) for size in sizes]
        agree("grids of patches (rows, cols)", patches, _found(inputs), processor.image_processor)
        parts = []
        for size, (rows, cols) in zip(sizes, patches, strict=True):
            grid = (rows // pool, cols // pool)
            window = pulled_back((0, 0, grid[1] * pool, grid[0] * pool), size, (cols, rows))
            parts.append(lay(size, grid, window))
        return concatenate(parts)

    def patches_along(self, config: Any) -> int:
        """Returns the side of the average pool."""
        return int(config.vision_config.pooling_kernel_size)

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each image, one padded sequence of the tower."""
        return replace(super().patches(sizes, inputs, processor, config), padded=True)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Gemma 4's turns, without thinking."""
        head = "" if system is None else f"<|turn>system\n{system}<turn|>\n"
        images = "<|image|>" * n_images
        return f"<bos>{head}<|turn>user\n{images}{text}<turn|>\n<|turn>model\n"


class Gemma4Unified(Gemma4):
    """The `gemma4_unified` family: Gemma 4 without a tower; a token is a projection of its own cell's pixels.

    With `use_bidirectional_attention="vision"` the tokens of an image see each other in all layers, also beyond the
    windows: transformers' `forward` makes these masks (5.18 to 5.24), in the passes of its `generate` as well. Its
    function `create_masks_for_generate` would leave the full layers causal, as in `gemma4`, but is used for compiled
    caches alone.
    """

    name = "gemma4_unified"
    attends = "image_blocks"
    model_types = ("gemma4_unified",)
    examples = ("google/gemma-4-12B-it",)
    unread_tower = "it has none: the pixels of each cell are projected into the language model"

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image; its cells have `patch_size · pooling_kernel_size` pixels after the resize.

        Raises:
            ModelError: Processor and config differ, or the cells of the inputs do not follow from the settings.
        """
        if not sizes:
            return concatenate([])
        pool = _pooling(processor, config)
        grids = [(rows // pool, cols // pool) for rows, cols in (_patches(size, processor) for size in sizes)]
        agree("grids of cells (rows, cols)", grids, _found(inputs), processor.image_processor)
        pairs = zip(sizes, grids, strict=True)
        return concatenate([lay(size, grid, (0, 0, *size)) for size, grid in pairs])


def _pooling(processor: Any, config: Any) -> int:
    """Returns how many patches along a side make a token; processor and model must agree."""
    names = ("patch_size", "pooling_kernel_size")
    mine = tuple(int(setting(processor, name)) for name in names)
    theirs = tuple(int(getattr(config.vision_config, name)) for name in names)
    if mine != theirs:
        raise ModelError(
            f"the processor's patch_size and pooling_kernel_size are {mine}, but the model's config has {theirs}. "
            "Pass the processor of this checkpoint."
        )
    return mine[1]


def _patches(size: Size, processor: Any) -> tuple[int, int]:
    """Returns (rows, cols) of patches after the resize, in transformers' own arithmetic."""
    # here, because older versions of transformers have no Gemma 4
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    patch, pool = setting(processor, "patch_size"), setting(processor, "pooling_kernel_size")
    width, height = size
    if setting(processor, "do_resize"):
        most = setting(processor, "max_soft_tokens") * pool**2
        height, width = get_aspect_ratio_preserving_size(height, width, patch, most, pool)
    rows, cols = height // patch, width // patch
    if rows % pool or cols % pool or (height, width) != (rows * patch, cols * patch):
        raise ModelError(
            f"gemma4 pools {pool}×{pool} patches of {patch} px; an image of {width}×{height} px is no whole number of "
            "these. Set processor.image_processor.do_resize."
        )
    return rows, cols


def _found(inputs: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Returns (rows, cols) of the patches of each image in the inputs; their positions are (x, y)."""
    largest = np.asarray(inputs["image_position_ids"]).max(axis=1)
    return [(int(y) + 1, int(x) + 1) for x, y in largest]


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
