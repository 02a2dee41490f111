"""LLaVA-NeXT (LLaVA-1.6), its video model, and LLaVA-OneVision: the squashed whole image, then the anyres grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, in_frames, joined_in_time, lay
from interp.inputs.patch_map import Patches
from interp.models.anyres import AnyRes, anyres_patches, mesh, patch_lines
from interp.models.base import Family
from interp.models.resizing import agree, cropped_window, one_image, pixel_size
from interp.models.vision_patches import leading_tokens

__all__ = ["LlavaNext", "LlavaNextVideo", "LlavaOnevision"]


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
