"""MiniCPM-V 4.6: the whole image in about its own shape, then equal slices of it; patches merged in the tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, Window, concatenate, lay
from interp.models.base import Family, chatml
from interp.models.resizing import agree, one_image, setting, tile_windows, whole

__all__ = ["MiniCpmV46"]

Grid = tuple[int, int]


class MiniCpmV46(Family):
    """The `minicpmv4_6` family: SigLIP patches merged twice, 4×4 a token, and a Qwen3.5 of DeltaNets and attention.

    View "global" is the whole image; a large image is also cut into slices, view "tile", each axis resized on its own.
    Slices of one image have one shape, those of two images may differ. With `downsample_mode="4x"` a token is 2×2
    patches.
    """

    name = "minicpmv4_6"
    model_types = ("minicpmv4_6",)
    layout = "the whole image in about its own shape, then slices row by row, each a row-major grid"
    examples = ("openbmb/MiniCPM-V-4.6",)
    unread_tower = "it merges patches between two of its layers, so that its layers have different patches"

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns a grid of the whole image and one per slice.

        Raises:
            ModelError: There are videos, processor and model differ, or the patches do not follow from the settings.
        """
        if inputs.get("target_sizes_videos") is not None:
            raise ModelError("expected images for minicpmv4_6, got a video; pass its frames as images.")
        if not sizes:
            return concatenate([])
        merge = _merge(processor, config)
        found = [tuple(int(n) for n in shape) for shape in inputs["target_sizes"]]
        views = [_views(size, processor) for size in sizes]
        agree(
            "grids of patches (rows, columns)",
            [grid for one in views for _, grid, _ in one],
            found,
            processor.image_processor,
        )
        return concatenate(
            [
                one_image(
                    [lay(size, (r // merge, c // merge), window, view=name) for window, (r, c), name in one]
                )
                for size, one in zip(sizes, views, strict=True)
            ]
        )

    def joined(self, name: str, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Returns the patches of all samples in one row, as the model takes them; None for other inputs."""
        if name != "pixel_values":
            return None
        return torch.cat([sample[name] for sample in samples], dim=-1)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML, the images first, without thinking."""
        return chatml("<|image_pad|>" * n_images + text, system) + "<think>\n\n</think>\n\n"


def _merge(processor: Any, config: Any) -> int:
    """Returns how many patches along a side make a token; processor and model must agree."""
    mine = (int(setting(processor, "patch_size")), setting(processor, "downsample_mode"))
    theirs = (int(config.vision_config.patch_size), config.downsample_mode)
    known = tuple(config.merge_kernel_size) == (2, 2) and config.merger_times == 1
    if mine != theirs or not known or mine[1] not in ("4x", "16x"):
        raise ModelError(
            f"minicpmv4_6's processor has patches of {mine[0]} px and downsample_mode={mine[1]!r}, the model "
            f"{theirs[0]} px, {theirs[1]!r}, merge_kernel_size {list(config.merge_kernel_size)} and merger_times "
            f"{config.merger_times}. Expected are the same patches and mode ('4x' or '16x') and one merge of 2×2. Pass "
            "the processor of this checkpoint."
        )
    return 2 if mine[1] == "4x" else 4


def _views(size: Size, processor: Any) -> list[tuple[Window, Grid, str]]:
    """Returns each view's window, (rows, columns) of patches and name, in transformers' own arithmetic."""
    settings, (width, height) = processor.image_processor, size
    scale, patch = int(setting(processor, "scale_resolution")), int(setting(processor, "patch_size"))
    how = {
        "scale_resolution": scale,
        "patch_size": patch,
        "downsample_mode": setting(processor, "downsample_mode"),
    }
    cut = None
    if setting(processor, "slice_mode"):
        cut = settings.get_sliced_grid((height, width), int(setting(processor, "max_slice_nums")), scale)
    high, wide = settings.find_best_resize((height, width), allow_upscale=cut is None, **how)
    found: list[tuple[Window, Grid, str]] = [(whole(size), (high // patch, wide // patch), "global")]
    if cut is None:
        return found
    rows, cols = cut
    high, wide = settings.get_refine_size((height, width), cut, allow_upscale=True, **how)
    grid = (high // rows // patch, wide // cols // patch)
    return list(chain(found, ((window, grid, "tile") for window in tile_windows(size, (cols, rows)))))
