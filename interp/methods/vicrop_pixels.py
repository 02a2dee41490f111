"""Where the tokens of the view of the whole image lie in a processor's pixel values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from interp.errors import MethodError
from interp.models.geometry import setting
from interp.tokens import TokenMap

__all__ = ["PixelGrid", "channel_scale", "pixel_grid", "whole_view"]

_WHOLE = {"": 0, "base": 0, "global": -1, "thumbnail": -1}
"""Views that show the whole image in one grid, and which of the pixel values' views each one is."""


def whole_view(tokens: TokenMap) -> Bool[np.ndarray, " token"]:
    """The tokens of the one view that shows the whole image: the only one, or "base", "global", "thumbnail".

    Raises:
        MethodError: Several views and none of these names.
    """
    return np.asarray(tokens.views == _whole_name(tokens))


def _whole_name(tokens: TokenMap) -> str:
    names = [str(name) for name in np.unique(tokens.views[~np.isnan(tokens.footprints).any(axis=1)])]
    if len(names) == 1:
        return names[0]
    known = [name for name in names if name in _WHOLE]
    if len(known) != 1:
        raise MethodError(
            f"ViCrop slides its windows over the one view of the whole image, named {', '.join(map(repr, _WHOLE))}; "
            f"this image has the views {names}. Name it so in the adapter's footprints."
        )
    return known[0]


@dataclass(frozen=True)
class PixelGrid:
    """Tokens over the pixels of one view.

    Attributes:
        grid: (rows, cols) of tokens, those in padding included.
        cell: (height, width) of a token in pixels of the view.
        view: index of the view among those of the pixel values; None where these are flattened patches.
        patch: side of a patch, where they are flattened.
        merge: patches along a token, where they are flattened.
        turned: whether tokens run down the columns; else row by row.
    """

    grid: tuple[int, int]
    cell: tuple[int, int]
    view: int | None
    patch: int = 0
    merge: int = 1
    turned: bool = False

    def picture(self, values: torch.Tensor) -> Float[np.ndarray, "frame channel row col"]:
        """The view's pixels, out of values shaped as the pixel values are.

        Qwen repeats an image in frames; others have one.
        """
        array = values.detach().double().cpu().numpy()
        if self.view is not None:
            return array.reshape(-1, *array.shape[-3:])[self.view][None]
        (rows, cols), m, p = self.grid, self.merge, self.patch
        blocks = array.reshape(
            rows, cols, m, m, 3, -1, p, p
        )  # … merged row, merged col, channel, frame, y, x
        return blocks.transpose(5, 4, 0, 2, 6, 1, 3, 7).reshape(-1, 3, rows * m * p, cols * m * p)

    def seen(self, tokens: Bool[np.ndarray, " token"], shape: tuple[int, ...]) -> Bool[np.ndarray, "row col"]:
        """The pixels of these of the view's tokens, in a view of `shape` (row, col)."""
        (rows, cols), (high, wide) = self.grid, self.cell
        laid = tokens.reshape(cols, rows).T if self.turned else tokens.reshape(rows, cols)
        whole = laid.repeat(high, 0).repeat(wide, 1)[: shape[0], : shape[1]]
        found = np.zeros(shape, bool)
        found[: whole.shape[0], : whole.shape[1]] = whole
        return found

    def pooled(self, pixels: Float[np.ndarray, "row col"]) -> Float[np.ndarray, " token"]:
        """The mean over each token's pixels; pixels that fill no token are left out."""
        (rows, cols), (high, wide) = self.grid, self.cell
        cut = pixels[: rows * high, : cols * wide]
        short = (rows * high - cut.shape[0], cols * wide - cut.shape[1])
        full = np.pad(
            cut, [(0, n) for n in short], constant_values=np.nan
        )  # a last cell that is half padding
        means = np.nanmean(full.reshape(rows, high, cols, wide), axis=(1, 3))
        return (means.T if self.turned else means).reshape(-1)


def pixel_grid(inputs: Mapping[str, Any], tokens: TokenMap, processor: Any, config: Any) -> PixelGrid:
    """Where the tokens of the whole view of one sample's only image lie in its pixel values.

    Raises:
        MethodError: Pixel values that are neither views of (channel, row, col) nor Qwen's flattened patches, or
            that do not hold the view's tokens as square blocks of patches.
    """
    shape = tuple(int(n) for n in inputs["pixel_values"].shape)
    n = int(whole_view(tokens).sum())
    patch = _patch(config)
    if len(shape) == 2 and "image_grid_thw" in inputs:
        return _flattened(inputs, shape, n, patch, int(setting(processor, "merge_size")))
    if len(shape) not in (4, 5):
        raise _strange(shape, n)
    patches = (shape[-2] // patch[0], shape[-1] // patch[1])
    grids = [(b, (-(-patches[0] // b), -(-patches[1] // b))) for b in range(1, max(patches) + 1)]
    block, grid = next((one for one in grids if math.prod(one[1]) == n), (0, (0, 0)))
    if not block:
        raise _strange(shape, n)
    name = _whole_name(tokens)
    views = math.prod(shape[:-3])
    if name not in _WHOLE and views != 1:
        raise _strange(shape, n)
    cell = (block * patch[0], block * patch[1])
    return PixelGrid(grid, cell, _WHOLE.get(name, 0), turned=_turned(tokens.footprints[whole_view(tokens)]))


def _turned(footprints: Float[np.ndarray, "token 4"]) -> bool:
    """Whether tokens run down the columns: the second lies below the first."""
    return len(footprints) > 1 and bool(
        footprints[1, 0] == footprints[0, 0] and footprints[1, 1] > footprints[0, 1]
    )


def _flattened(
    inputs: Mapping[str, Any], shape: tuple[int, ...], n: int, patch: tuple[int, int], merge: int
) -> PixelGrid:
    frames, rows, cols = (int(one) for one in inputs["image_grid_thw"][0])
    grid = (rows // merge, cols // merge)
    if frames != 1 or grid[0] * grid[1] != n or shape[0] != rows * cols or shape[1] % (3 * patch[0] ** 2):
        raise _strange(shape, n)
    return PixelGrid(grid, (merge * patch[0], merge * patch[0]), None, patch[0], merge)


def _patch(config: Any) -> tuple[int, int]:
    """(height, width) of a vision tower's patch."""
    found = config.vision_config.patch_size
    return (int(found[0]), int(found[1])) if isinstance(found, list | tuple) else (int(found), int(found))


def _strange(shape: tuple[int, ...], n: int) -> MethodError:
    return MethodError(
        "map='pure_grad' needs to know which pixel each gradient belongs to: pixel values in views of (channel, row, "
        f"col) or Qwen's patches, with square blocks of patches as tokens; these are {shape} for {n} tokens of the "
        "whole view. Use map='rel_att' or 'grad_att', which need no pixels."
    )


def channel_scale(processor: Any) -> Float[np.ndarray, " channel"]:
    """What the processor divided each channel by, after 0 … 1."""
    std = setting(processor, "image_std") if setting(processor, "do_normalize") else None
    return np.ones(3) if std is None else np.broadcast_to(np.asarray(std, float), (3,))
