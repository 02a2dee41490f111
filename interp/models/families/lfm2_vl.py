"""LFM2-VL: a small image in about its own shape, a large one as equal tiles and a thumbnail; merged patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from interp.errors import ModelError, SampleError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family, chatml
from interp.models.resizing import agree, one_image, setting, tile_windows, whole
from interp.models.vision_patches import merged, subdivided

__all__ = ["Lfm2Vl"]

_SIZES = ("min_image_tokens", "max_image_tokens", "encoder_patch_size", "downsample_factor")
Grid = tuple[int, int]


class Lfm2Vl(Family):
    """The `lfm2_vl` family: layers of short convolutions (`conv`) between layers of attention (`self_attn`).

    An image that has at most twice the pixels of `max_image_tokens` is one view, each axis resized on its own to whole
    tokens. A larger one is squashed onto columns×rows tiles, view "tile"; resized as a small one would be, it is also
    the view "thumbnail".
    """

    name = "lfm2_vl"
    model_types = ("lfm2_vl",)
    layout = (
        "small images in about their own shape, one row-major grid; large ones squashed onto tiles, tiles row by row, "
        "then a thumbnail"
    )
    examples = ("LiquidAI/LFM2-VL-1.6B", "LiquidAI/LFM2-VL-450M")

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the language model's layers.

        Raises:
            ModelError: The convolutions have a bias, through which the padding of a batch would reach the prompts.
        """
        text: Any = model.get_decoder()  # pyright: ignore[reportCallIssue]
        if text.config.conv_bias:
            raise ModelError(
                "this lfm2_vl has conv_bias=True: in transformers a convolution with a bias gives padding a value, so "
                "a prompt would give other results in a batch than alone. Use a checkpoint without the bias, such as "
                "the published ones."
            )
        return list(text.layers)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns a grid per tile and one of the thumbnail, or one of the whole image.

        Raises:
            ModelError: Processor and model differ, or the patches of the inputs do not follow from the settings.
            SampleError: An image has more patches than the processor passes on.
        """
        if not sizes:
            return concatenate([])
        cell = _cell(processor, config)
        found = [tuple(int(n) for n in shape) for shape in inputs.get("spatial_shapes", ())]
        views = [_views(size, processor, cell) for size in sizes]
        factor = int(config.downsample_factor)
        shapes = [(rows * factor, cols * factor) for one in views for _, (rows, cols), _ in one]
        agree("grids of patches (rows, columns)", shapes, found, processor.image_processor)
        _check_room(shapes, inputs)
        parts = []
        for size, one in zip(sizes, views, strict=True):
            parts.append(one_image([lay(size, grid, window, view=name) for window, grid, name in one]))
        return concatenate(parts)

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each image or tile, one sequence of the tower, which may be padded."""
        cell, factor = _cell(processor, config), int(config.downsample_factor)
        sequences, weights = [], []
        for number, size in enumerate(sizes):
            for window, grid, name in _views(size, processor, cell):
                cells = lay(size, grid, window, view=name, image=number)
                sequences.append(TowerSequence(subdivided(cells, grid, factor)))
                weights.append(merged(grid, factor))
        return Patches(tuple(sequences), (), PatchWeights.stacked(weights), padded=True)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML, the images first."""
        return "<|startoftext|>" + chatml("<image>" * n_images + text, system)


def _check_room(shapes: Sequence[Grid], inputs: Mapping[str, Any]) -> None:
    """Raises `SampleError` for an image with more patches than the processor passes on: a very long, thin one."""
    masks = inputs.get("pixel_attention_mask")
    held = [] if masks is None else masks.sum(-1).tolist()
    for (rows, cols), n in zip(shapes, held, strict=False):
        if rows * cols != n:
            raise SampleError(
                f"lfm2_vl's processor makes {rows}×{cols} patches of an image but keeps only {int(n)} of them: the "
                "image is too long and thin for it. Crop or pad the image."
            )


def _cell(processor: Any, config: Any) -> int:
    """Returns the side of a token in processed pixels; processor and model must agree."""
    mine = tuple(int(setting(processor, name)) for name in ("encoder_patch_size", "downsample_factor"))
    theirs = (int(config.vision_config.patch_size), int(config.downsample_factor))
    tile, cell = int(setting(processor, "tile_size")), mine[0] * mine[1]
    if mine != theirs or tile % cell:
        raise ModelError(
            f"lfm2_vl's processor has patches of {mine[0]} px, merged {mine[1]}×{mine[1]}, and tiles of {tile} px; the "
            f"model takes {theirs[0]} px and {theirs[1]}×{theirs[1]}, and tiles of whole tokens. Pass the processor of "
            "this checkpoint."
        )
    return cell


def _views(size: Size, processor: Any, cell: int) -> list[tuple[Any, Grid, str]]:
    """Returns each view's window, (rows, columns) of tokens and name, in transformers' own arithmetic."""
    settings, (width, height) = processor.image_processor, size
    limits = {name: int(setting(processor, name)) for name in _SIZES}
    wide, high = settings.smart_resize(height=height, width=width, **limits)
    small = (whole(size), (high // cell, wide // cell))
    tiles = {name: int(setting(processor, name)) for name in ("min_tiles", "max_tiles")}
    splits = setting(processor, "do_image_splitting") and not tiles["min_tiles"] == tiles["max_tiles"] == 1
    limits.pop("min_image_tokens")
    tolerance = float(setting(processor, "max_pixels_tolerance"))
    large = settings._is_image_too_large(height=height, width=width, max_pixels_tolerance=tolerance, **limits)
    if not (large and splits):
        return [(*small, "")]
    tile = int(setting(processor, "tile_size"))
    cols, rows, *_ = settings._get_grid_layout(height, width, tile_size=tile, **tiles)
    side = (tile // cell, tile // cell)
    found: list[tuple[Any, Grid, str]] = [
        (window, side, "tile") for window in tile_windows(size, (cols, rows))
    ]
    if cols * rows > 1 and setting(processor, "use_thumbnail"):
        found.append((*small, "thumbnail"))
    return found
