"""Molmo 2: the squashed whole image, then its overlapping crops as one grid; patches are pooled 2×2 by attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.models.base import Family, chatml
from interp.models.resizing import agree, one_image, setting

__all__ = ["Molmo2"]


class Molmo2(Family):
    """The `molmo2` family: views "base", the whole image, and "crop", the canvas of its crops.

    Crops overlap in the tower, so that each patch has neighbours around it, but every token is pooled from patches of
    one crop's inner part: within a view, footprints do not overlap. All image tokens of a prompt see each other, with
    the start, column and end tokens between them, which therefore count as image tokens without an area.
    """

    name = "molmo2"
    model_types = ("molmo2",)
    layout = (
        "whole image squashed, then a canvas of overlapping crops as one row-major grid, pooled 2×2; start, column "
        "and end tokens without an area"
    )
    attends = "images"
    examples = ("allenai/Molmo2-8B", "allenai/Molmo2-4B")
    unread_tower = "its crops overlap, so that a place of the image has patches in several of them"

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Returns the positions from each start token of a view to its end token, both included."""
        ids = np.asarray(input_ids).reshape(-1)
        starts = np.isin(ids, [config.image_start_token_id, config.low_res_image_start_token_id])
        ends = ids == config.image_end_token_id
        open_views = np.cumsum(starts) - np.cumsum(ends) + ends
        return np.flatnonzero(open_views > 0)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns for each image the views "base" and "crop"; their start, column and end tokens are NaN rows.

        Raises:
            ModelError: Processor and config differ, or the grids of the inputs do not follow from the settings.
        """
        if not sizes:
            return concatenate([])
        _check_patches(processor, config)
        canvases = [_canvases(size, processor) for size in sizes]
        pool = setting(processor, "pooling_size")
        grids = [
            [-(-n // k) for shape in both for n, k in zip(shape, pool, strict=True)] for both in canvases
        ]
        found = [[int(n) for n in grid] for grid in inputs["image_grids"]]
        agree(
            "pooled grids (rows and cols of the whole, then of the crops)",
            grids,
            found,
            processor.image_processor,
        )
        columns = processor.image_use_col_tokens
        alone = processor.use_single_crop_col_tokens
        marked = (columns if alone is None else alone, columns)
        return concatenate(
            [
                one_image(
                    [
                        _laid(size, shape, pool, view, column)
                        for shape, view, column in zip(both, ("base", "crop"), marked, strict=True)
                    ]
                )
                for size, both in zip(sizes, canvases, strict=True)
            ]
        )

    def joined(self, name: str, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Returns the patches that tokens are pooled from, numbered through all samples; None for other inputs."""
        if name != "image_token_pooling":
            return None
        counts = [sample["pixel_values"].shape[0] * sample["pixel_values"].shape[1] for sample in samples]
        firsts = np.cumsum([0, *counts[:-1]]).tolist()
        own = [sample[name] for sample in samples]
        return torch.cat([torch.where(one >= 0, one + n, one) for one, n in zip(own, firsts, strict=True)])

    def begun(self, text: str, processor: Any) -> str:
        """Returns the prompt with the token in front that the processor would put there."""
        words = processor.tokenizer
        first = words.bos_token or words.eos_token
        return text if text.startswith(first) else first + text

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML, the images first."""
        return chatml("<|image|>" * n_images + text, system)


def _check_patches(processor: Any, config: Any) -> None:
    """Raises `ModelError` unless the processor cuts the model's patches, and whole ones."""
    size = dict(setting(processor, "size"))
    mine = (size["height"], size["width"], setting(processor, "patch_size"))
    theirs = (*config.vision_config.image_size, config.vision_config.patch_size)
    if mine != theirs:
        raise ModelError(
            f"the processor's views have (height, width) and patches of {mine} px, but the model's config has "
            f"{theirs}. Pass the processor of this checkpoint."
        )


def _canvases(size: Size, processor: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns (rows, cols) of patches of the whole view and of the crops' canvas, in transformers' own arithmetic."""
    # here, because older versions of transformers have no Molmo 2
    from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

    patch, side = setting(processor, "patch_size"), dict(setting(processor, "size"))["height"]
    _, _, high, wide = compute_crop_geometry(
        size[1],
        size[0],
        max_crops=setting(processor, "max_crops"),
        overlap_margins=setting(processor, "overlap_margins"),
        crop_size=side,
        patch_size=patch,
    )
    return (side // patch, side // patch), (high // patch, wide // patch)


def _laid(
    size: Size, patches: tuple[int, int], pool: Sequence[int], view: str, column_tokens: bool
) -> Footprints:
    """Returns one view's tokens: its start, its rows (with `column_tokens`, a token ends each) and its end.

    Where patches do not fill the last cells, padding is added on both sides, the smaller half before the image.
    """
    rows, cols = (-(-n // k) for n, k in zip(patches, pool, strict=True))
    missing = rows * pool[0] - patches[0], cols * pool[1] - patches[1]
    high, wide = size[1] / patches[0], size[0] / patches[1]
    top, left = -(missing[0] // 2) * high, -(missing[1] // 2) * wide
    window = (left, top, left + cols * pool[1] * wide, top + rows * pool[0] * high)
    boxes = lay(size, (rows, cols), window).boxes.reshape(rows, cols, 4)
    if column_tokens:
        boxes = np.concatenate([boxes, np.full((rows, 1, 4), np.nan)], axis=1)
    nothing = np.full((1, 4), np.nan)
    whole = np.concatenate([nothing, boxes.reshape(-1, 4), nothing])
    return Footprints(whole, None, np.full(len(whole), view), np.zeros(len(whole), int))
