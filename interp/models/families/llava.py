"""LLaVA and the families that followed from it.

- LLaVA-1.5, ViP-LLaVA, FastVLM and all models in transformers' `llava` classes: one row-major grid per image.
- LLaVA-NeXT (LLaVA-1.6), its video model, and LLaVA-OneVision: the squashed whole image, then the anyres grid.
- VILA 1.5 (VILA-M3): one grid per squashed image; a token covers two by two patches, down the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, in_frames, joined_in_time, lay, select
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.inputs.text import count
from interp.models.base import Family, chatml
from interp.models.modeling import MERGED, tokens_along
from interp.models.resizing import (
    agree,
    check_views,
    cropped_window,
    down_columns,
    one_image,
    patch_sides,
    pixel_size,
    seen_part,
    squashed_size,
    whole,
    without_area,
)
from interp.models.tiling import AnyRes, anyres_patches, mesh, patch_lines
from interp.models.vision_patches import leading_tokens

__all__ = ["FastVlm", "Llava", "LlavaNext", "LlavaNextVideo", "LlavaOnevision", "Vila", "VipLlava"]


# The number of class tokens before a tower's patches, by model_type; for others the processor's setting counts.
_CLASS_TOKENS = dict.fromkeys(("clip_vision_model", "dinov2", "dinov2_with_registers", "vit"), 1)
_CLASS_TOKENS |= dict.fromkeys(("siglip_vision_model", "siglip2_vision_model"), 0)


class Llava(Family):
    """The `llava` family: a vision tower's patches, projected (LLaVA-1.5, BakLLaVA, LLaVA-Med, Huatuo, LLaVA-Tri)."""

    name = "llava"
    model_types = ("llava", "interp_llava_s2")
    layout = "one row-major grid of patches; the image centre-cropped, padded or squashed, by its processor's settings"
    examples = ("llava-hf/llava-1.5-7b-hf", "llava-hf/bakLlava-v1-hf")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image, from the image processor's steps: pad, resize, crop.

        Raises:
            ModelError: The settings are not supported, or the pixel values do not follow from them.
        """
        dropped = self.leading(processor, config)
        cells = _cells(sizes, inputs, processor, self.cell(processor, config))
        return concatenate([_leading_tokens(one, dropped) for one in cells])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns one grid per image; a token is a patch, except class and register tokens that stay in front.

        Raises:
            ModelError: As `footprints`; also for S², whose tower runs several times over an image.
        """
        if getattr(config, "scales", None):
            raise ModelError(
                "with S² (LLaVA-Tri) the vision tower runs over the image at several sizes and the features are "
                "averaged, so a patch belongs to no single token. Its attention cannot be read or edited; read the "
                "language model's."
            )
        dropped = self.leading(processor, config)
        cells = _cells(sizes, inputs, processor, self.cell(processor, config))
        weights = [
            PatchWeights.members(
                [[]] * max(dropped, 0) + [[i] for i in range(max(-dropped, 0), len(one))], len(one)
            )
            for one in cells
        ]
        images = [replace(one, image=np.full(len(one), i)) for i, one in enumerate(cells)]
        return Patches(
            tuple(map(TowerSequence, images)), leading_tokens(config), PatchWeights.stacked(weights)
        )

    def cell(self, processor: Any, config: Any) -> tuple[int, int]:
        """Returns (height, width) of a token in processed pixels.

        S² sees the pixels at several sizes, and a token is the same place in each. InternViT's config has a patch size
        for each axis.
        """
        scales = getattr(config, "scales", None)
        down, across = patch_sides(config)
        enlarged = scales[-1] // scales[0] if scales else 1
        return down * enlarged, across * enlarged

    def leading(self, processor: Any, config: Any) -> int:
        """Returns how many tokens without a place stand before the grid; a negative number counts dropped cells."""
        if getattr(config, "scales", None):
            return 0
        return _leading(processor, config) - (config.vision_feature_select_strategy == "default")

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns LLaVA-1.5's vicuna prompt."""
        return _vicuna(text, n_images, system)


def _vicuna(text: str, n_images: int, system: str | None) -> str:
    head = "" if system is None else f"{system} "
    return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"


def _cells(
    sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, cell: tuple[int, int]
) -> list[Footprints]:
    """Returns each image's grid of cells of (height, width) processed pixels.

    Raises:
        ModelError: The settings are not supported, or the pixel values do not follow from them.
    """
    values = inputs.get("pixel_values")
    pixels = [tuple(values.shape[-2:])] * len(values) if sizes and values is not None else []
    if len(pixels) != len(sizes):
        raise ModelError(f"the sample has {count(len(sizes), 'image')}, but pixel_values hold {len(pixels)}.")
    down, across = cell
    parts = []
    for size, (height, width) in zip(sizes, pixels, strict=True):
        grid = (height // down, width // across)
        seen = (grid[1] * across, grid[0] * down)
        parts.append(lay(size, grid, cropped_window(size, (width, height), seen, processor.image_processor)))
    return parts


def _leading(processor: Any, config: Any) -> int:
    """Returns how many tokens the vision tower puts before its patches: CLIP's class token, DINOv2's registers."""
    vision = config.vision_config
    if vision.model_type not in _CLASS_TOKENS:
        return int(getattr(processor, "num_additional_image_tokens", 0) or 0)
    return _CLASS_TOKENS[vision.model_type] + int(getattr(vision, "num_register_tokens", 0) or 0)


def _leading_tokens(cells: Footprints, extra: int) -> Footprints:
    """Returns the grid with `extra` tokens without area in front; a negative number drops cells."""
    if not extra:
        return cells
    if extra < 0:
        return select(cells, slice(-extra, None))
    return concatenate([without_area(extra, "class"), cells], one_image=True)


class VipLlava(Llava):
    """The `vipllava` family: the layers' features of a patch are joined side by side, so a token is still one patch."""

    name = "vipllava"
    model_types = ("vipllava",)
    layout = (
        "one row-major grid of patches, each with the features of five layers; centre-cropped, padded or squashed, by "
        "its processor's settings"
    )
    examples = ("llava-hf/vip-llava-7b-hf", "llava-hf/vip-llava-13b-hf")

    def leading(self, processor: Any, config: Any) -> int:
        """Returns 0: the model always drops its tower's first token, whatever the processor counts."""
        return 0

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ViP-LLaVA's prompt."""
        head = "" if system is None else f"{system}###"
        return f"{head}Human: " + "<image>\n" * n_images + f"{text}###Assistant:"


class FastVlm(Llava):
    """The `fast_vlm` family: LLaVA's processor, and a tower whose stride the processor knows as its `patch_size`."""

    name = "fast_vlm"
    model_types = ("fast_vlm",)
    layout = "one row-major grid of a tower of convolutions; the image cropped, padded or squashed, by its processor"
    examples = ("KamilaMila/FastVLM-0.5B", "KamilaMila/FastVLM-7B")
    unread_tower = "it is made of convolutions and of attention in timm's own code"
    token_stride = 64
    """The side of a token in pixels, in the published checkpoints. No config names it, so error messages suggest it."""

    def cell(self, processor: Any, config: Any) -> tuple[int, int]:
        """Returns the tower's stride, in pixels; its config does not name it."""
        stride = getattr(processor, "patch_size", None)
        if not isinstance(stride, int) or stride < 1:
            raise ModelError(
                "fast_vlm's processor counts tokens by its patch_size, the stride of the tower in pixels; it is "
                f"{stride!r}. Set processor.patch_size (FastVLM's: {self.token_stride})."
            )
        return stride, stride

    def leading(self, processor: Any, config: Any) -> int:
        """Returns 0: the tower has no class token."""
        return 0

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML."""
        system = "You are a helpful assistant." if system is None else system
        return chatml("<image>\n" * n_images + text, system)


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
        return _vicuna(text, n_images, system)


class LlavaNextVideo(LlavaNext):
    """The `llava_next_video` family: images as LLaVA-NeXT; of a video, each frame cropped and its patches pooled."""

    name = "llava_next_video"
    model_types = ("llava_next_video",)
    examples = ("llava-hf/LLaVA-NeXT-Video-7B-hf", "llava-hf/LLaVA-NeXT-Video-7B-DPO-hf")
    video = True

    def video_footprints(
        self, size: Size, n_frames: int, inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid a frame over its central square; each token is a block of patches (2×2 in all checkpoints).

        Patches at the right and the bottom that do not fill a block have no token.

        Raises:
            ModelError: The frames are not squares of the tower's size, or do not follow from the settings.
        """
        settings, vision = processor.video_processor, config.vision_config
        side, patch, block = int(vision.image_size), int(vision.patch_size), int(config.spatial_pool_stride)
        shape = (1, n_frames, 3, side, side)
        agree("frames of shape", shape, tuple(inputs["pixel_values_videos"].shape), settings)
        n = side // patch // block
        seen = n * block * patch
        window = cropped_window(size, (side, side), (seen, seen), settings)
        return in_frames(lay(size, (n, n), window), n_frames)


class LlavaOnevision(Family):
    """The `llava_onevision` family.

    An image that is processed alone has two views, "base" and "tile". An image that is processed together with others
    (see the processor's `batch_num_images`) has only "base", padded to a square instead of squashed, and one newline
    token. The frames of a video are squashed, and pooled to half as many tokens along each axis.
    """

    name = "llava_onevision"
    model_types = ("llava_onevision",)
    layout = "whole image squashed, then tiles as one row-major grid, unpadded, shrunk, a newline token after each row"
    examples = ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf")
    video = True

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

    def video_footprints(
        self, size: Size, n_frames: int, inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid a frame over the squashed frame, then one newline token without area.

        The model shrinks the patches of a frame bilinearly, so that a token stands for about 2×2 of them.

        Raises:
            ModelError: The frames are cropped, or do not follow from the settings.
        """
        settings, vision = processor.video_processor, config.vision_config
        side, patch = int(vision.image_size), int(vision.patch_size)
        squashed = ({"height": side, "width": side}, False)
        agree(
            "a size and a crop of", (pixel_size(settings), bool(settings.do_center_crop)), squashed, settings
        )
        shape = (1, n_frames, 3, side, side)
        agree("frames of shape", shape, tuple(inputs["pixel_values_videos"].shape), settings)
        per_tile = side // patch
        n = -(-per_tile // 2)
        edges = np.arange(n + 1) * per_tile / n
        lines = patch_lines(edges, patch=patch, per_tile=per_tile, side=side)
        frame = mesh(size, lines * size[1] / side, lines * size[0] / side, view="")
        cells = in_frames(frame, n_frames)
        last = np.array([[n_frames - 1, n_frames]])
        newline = Footprints(np.full((1, 4), np.nan), None, np.array([""]), last[:, 0], last)
        return joined_in_time([cells, newline])

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


class Vila(Family):
    """The `vila` family, in the class of `interp.models.modeling`."""

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
        views, patch = self._squashed(sizes, inputs, processor), int(config.vision_config.patch_size)
        return concatenate([_laid(size, pixels, patch) for size, pixels in zip(sizes, views, strict=True)])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns one row-major grid per image; tokens at the end of an odd grid have two patches or one.

        Raises:
            ModelError: The settings do not squash images, or the pixel values do not follow from them.
        """
        views, patch = self._squashed(sizes, inputs, processor), int(config.vision_config.patch_size)
        cells, weights = [], []
        for number, (size, pixels) in enumerate(zip(sizes, views, strict=True)):
            rows, cols = pixels[1] // patch, pixels[0] // patch
            window = seen_part(pixels, (patch, patch), (rows, cols), whole(size))
            cells.append(TowerSequence(lay(size, (rows, cols), window, image=number)))
            weights.append(_merged(rows, cols))
        return Patches(tuple(cells), (), PatchWeights.stacked(weights))

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns VILA's vicuna prompt."""
        return _vicuna(text, n_images, system)

    def _squashed(self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any) -> list[Size]:
        """Returns (width, height) of each squashed image, after a comparison with the pixel values."""
        views = [squashed_size(size, processor, self.name) for size in sizes]
        check_views(inputs, views, sizes, processor)
        return views


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
