"""Which of the processor's pixel values belong to which image token.

A token's own pixels are the patches it was made from, a block of its view. Where views overlap in the image (a view of
the whole and tiles of it), the pixels of each view are separate inputs, and a token owns only pixels of its own view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import ModelError
from interp.inputs.tokens import TokenMap
from interp.models.resizing import patch_sides, setting
from interp.models.tiling import AnyRes

__all__ = ["PixelView", "pixel_views", "pooled"]


@dataclass(frozen=True, eq=False)
class PixelView:
    """A grid of tokens over the pixels of one view.

    Attributes:
        tokens: The image token of each cell, numbered as in `TokenMap.image`.
        rows: The first and end pixel of each row of cells; may be fractions.
        cols: The first and end pixel of each column of cells; may be fractions.
        picture: A function that takes an array shaped like the sample's pixel values and returns this view of it,
            (frame, channel, row, col). Qwen repeats an image in frames; other families have one frame.
    """

    tokens: Int[np.ndarray, "row col"]
    rows: Float[np.ndarray, "row 2"]
    cols: Float[np.ndarray, "col 2"]
    picture: Callable[[np.ndarray], np.ndarray]

    def sums(self, pixels: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "row col"]:
        """Returns the sum over each cell's pixels; a pixel shared by several cells counts by its share in each."""
        high, wide = pixels.shape
        return _overlap(self.rows, high) @ pixels @ _overlap(self.cols, wide).T

    def means(self, pixels: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "row col"]:
        """Returns the mean over each cell's pixels."""
        return self.sums(pixels) / self.sums(np.ones(pixels.shape))

    def covered(self, chosen: Bool[np.ndarray, " token"], shape: tuple[int, ...]) -> Bool[np.ndarray, "y x"]:
        """Returns whether more than half of each pixel of a view of this shape lies in the cell of a chosen token."""
        down, across = _overlap(self.rows, shape[0]), _overlap(self.cols, shape[1])
        return down.T @ chosen[self.tokens].astype(float) @ across > 0.5


def pooled(
    views: Sequence[PixelView], pixels: Sequence[Float[np.ndarray, "_ _"]], n: int, how: str
) -> Float[np.ndarray, " token"]:
    """Returns one value for each of `n` image tokens: "sum" or "mean" over its own pixels; 0 for tokens without any."""
    found = np.zeros(n)
    for view, one in zip(views, pixels, strict=True):
        found[view.tokens] = view.sums(one) if how == "sum" else view.means(one)
    return found


def pixel_views(
    inputs: Mapping[str, Any], tokens: TokenMap, processor: Any, config: Any
) -> tuple[PixelView, ...]:
    """Returns the views of one sample's images from which the model makes tokens. Newline and class tokens are in none.

    Raises:
        ModelError: The pixel values are neither views of (channel, row, col) nor Qwen's or Gemma 4's patches, or the
            tokens are not square blocks of patches.
    """
    if "pixel_values" not in inputs:
        raise ModelError(
            "pixels of images are asked for, but the sample shows a video. Use an indicator that needs no pixels, such "
            "as Attention or TokenKnockout, or pass the frames as images=[…]."
        )
    shape = tuple(int(n) for n in inputs["pixel_values"].shape)
    if len(shape) == 2 and "image_grid_thw" in inputs:
        views = _flattened(inputs, shape, tokens, config, int(setting(processor, "merge_size")))
    elif len(shape) == 3 and "image_position_ids" in inputs:
        views = _positioned(inputs, shape, tokens, config)
    elif len(shape) == 5 and hasattr(config, "image_grid_pinpoints"):
        views = _anyres(inputs, shape, tokens, processor, config)
    elif len(shape) == 4 and "image_grid_thw" in inputs:
        views = _padded(inputs, shape, tokens, int(setting(processor, "merge_size")))
    elif len(shape) in (4, 5):
        views = _stacked(inputs, shape, tokens, config)
    else:
        raise strange(shape, tokens)
    return tuple(_in_order(view, tokens, shape) for view in views)


def _stacked(
    inputs: Mapping[str, Any], shape: tuple[int, ...], tokens: TokenMap, config: Any
) -> list[PixelView]:
    """Returns consecutive views with one grid each; smaller views are padded at their ends (Mistral 3)."""
    n_views, patch = int(np.prod(shape[:-3])), patch_sides(config)
    sizes = [shape[-2:]] * n_views
    if len(shape) == 4 and "image_sizes" in inputs:
        sizes = [(int(high), int(wide)) for high, wide in inputs["image_sizes"]]
    own = _with_pixels(tokens)
    areas = np.array([high * wide for high, wide in sizes])
    stops = np.cumsum(areas * len(own) / areas.sum()).round().astype(int).tolist()
    views, start = [], 0
    for at, (stop, size) in enumerate(zip(stops, sizes, strict=True)):
        grid = _blocks((size[0] // patch[0], size[1] // patch[1]), stop - start)
        if grid is None:
            raise strange(shape, tokens)
        rows, cols = (edges * side for edges, side in zip(grid, patch, strict=True))
        cells = own[start:stop].reshape(len(rows), len(cols))
        views.append(PixelView(cells, rows, cols, partial(_one_of_many, at=at)))
        start = stop
    return views


def _blocks(patches: tuple[int, int], n: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the first and end patch of the rows and columns of `n` square blocks of patches; the last may be cut."""
    for block in range(1, max(*patches, 1) + 1):
        for grid in ([p // block for p in patches], [-(-p // block) for p in patches]):
            if grid[0] * grid[1] == n:
                starts = [np.arange(cells) * float(block) for cells in grid]
                rows, cols = (
                    np.stack([one, np.minimum(one + block, end)], axis=1)
                    for one, end in zip(starts, patches, strict=True)
                )
                return rows, cols
    return None


def _flattened(
    inputs: Mapping[str, Any], shape: tuple[int, ...], tokens: TokenMap, config: Any, merge: int
) -> list[PixelView]:
    """Returns the views of Qwen's patches, which are in the order of their merged blocks."""
    side, views, start, first = patch_sides(config)[0], [], 0, 0
    for frames, down, across in ([int(n) for n in grid] for grid in inputs["image_grid_thw"]):
        rows, cols = down // merge, across // merge
        if frames != 1 or shape[1] % (3 * side**2) or start + rows * cols > tokens.n:
            raise strange(shape, tokens)
        take = partial(_merged, start=first, grid=(rows, cols), merge=merge, side=side)
        cells = np.arange(start, start + rows * cols).reshape(rows, cols)
        views.append(PixelView(cells, _lines(rows, merge * side), _lines(cols, merge * side), take))
        start, first = start + rows * cols, first + down * across
    if (start, first) != (tokens.n, shape[0]):
        raise strange(shape, tokens)
    return views


def _padded(
    inputs: Mapping[str, Any], shape: tuple[int, ...], tokens: TokenMap, merge: int
) -> list[PixelView]:
    """Returns the views of Kimi's patches, (patch, channel, row, col), which are row-major over the padded image."""
    side, views, start, first = shape[-1], [], 0, 0
    for _, down, across in ([int(n) for n in grid] for grid in inputs["image_grid_thw"]):
        rows, cols = down // merge, across // merge
        cells = np.arange(start, start + rows * cols).reshape(rows, cols)
        take = partial(_gridded, start=first, grid=(down, across))
        views.append(PixelView(cells, _lines(rows, merge * side), _lines(cols, merge * side), take))
        start, first = start + rows * cols, first + down * across
    if (start, first) != (tokens.n, shape[0]):
        raise strange(shape, tokens)
    return views


def _positioned(
    inputs: Mapping[str, Any], shape: tuple[int, ...], tokens: TokenMap, config: Any
) -> list[PixelView]:
    """Returns the views of Gemma 4's patches: one grid an image, row by row, padded at its end."""
    side, pool, views, start = patch_sides(config)[0], int(config.vision_config.pooling_kernel_size), [], 0
    for image, positions in enumerate(np.asarray(inputs["image_position_ids"])):
        cols, rows = ((positions.max(axis=0) + 1) // pool).tolist()
        if shape[2] != 3 * side**2 or start + rows * cols > tokens.n:
            raise strange(shape, tokens)
        cells = np.arange(start, start + rows * cols).reshape(rows, cols)
        take = partial(_in_place, image=image, patches=(rows * pool, cols * pool), side=side)
        views.append(PixelView(cells, _lines(rows, pool * side), _lines(cols, pool * side), take))
        start += rows * cols
    if start != tokens.n:
        raise strange(shape, tokens)
    return views


def _anyres(
    inputs: Mapping[str, Any], shape: tuple[int, ...], tokens: TokenMap, processor: Any, config: Any
) -> list[PixelView]:
    """Returns the views of LLaVA-NeXT and OneVision: the whole image, then the joined tiles with newlines."""
    cut, views, start = AnyRes.read(processor.image_processor, config, _most(config)), [], 0
    n, cell = cut.per_tile, cut.patch
    together = [1] * shape[0]
    if "batch_num_images" in inputs:
        together = [int(k) for k in inputs["batch_num_images"] for _ in range(int(k))]
    for image, size in enumerate(tokens.sizes):
        cells = np.arange(start, start + n * n).reshape(n, n)
        whole = partial(_one_of_many, at=image * shape[1])
        views.append(PixelView(cells, _lines(n, cell), _lines(n, cell), whole))
        start += n * n
        if together[image] > 1:
            start += 1
            continue
        cols, rows = cut.lines(size)
        grid = (cut.best(size)[1] // cut.side, cut.best(size)[0] // cut.side)
        cells = np.arange(start, start + len(rows) * (len(cols) + 1)).reshape(len(rows), -1)
        views.append(PixelView(cells[:, :-1], rows, cols, partial(_tiled, image=image, grid=grid)))
        start += cells.size
    if start != tokens.n:
        raise strange(shape, tokens)
    return views


def _most(config: Any) -> int | None:
    """Returns OneVision's bound on the grid of tiles."""
    ratio = getattr(config, "vision_aspect_ratio", None)
    return None if ratio is None else int(str(ratio).removeprefix("anyres_max_"))


def _with_pixels(tokens: TokenMap) -> Int[np.ndarray, " token"]:
    """Returns the tokens of views with area, which excludes class tokens."""
    seen = ~np.isnan(tokens.footprints).any(axis=1)
    return np.flatnonzero(np.isin(tokens.views, np.unique(tokens.views[seen])))


def _in_order(view: PixelView, tokens: TokenMap, shape: tuple[int, ...]) -> PixelView:
    """Returns the view with its tokens ordered like their footprints: row by row, or column by column."""
    n_rows, n_cols = view.tokens.shape
    for cells in (view.tokens, view.tokens.reshape(n_cols, n_rows).T):
        boxes = tokens.footprints[cells]
        if _grows(boxes[..., 0]) and _grows(boxes[..., 1].T):
            return PixelView(cells, view.rows, view.cols, view.picture)
    raise strange(shape, tokens)


def _grows(edges: Float[np.ndarray, "row col"]) -> bool:
    """Whether known edges grow along every row."""
    lines = (line[~np.isnan(line)] for line in edges)
    return all((np.diff(line) >= 0).all() and (len(line) < 2 or line[-1] > line[0]) for line in lines)


def _one_of_many(values: np.ndarray, at: int) -> np.ndarray:
    return values.reshape(-1, *values.shape[-3:])[at][None]


def _merged(values: np.ndarray, start: int, grid: tuple[int, int], merge: int, side: int) -> np.ndarray:
    (rows, cols), m, p = grid, merge, side
    own = values[start : start + rows * cols * m * m]
    blocks = own.reshape(rows, cols, m, m, 3, -1, p, p)  # … merged row, merged col, channel, frame, y, x
    return blocks.transpose(5, 4, 0, 2, 6, 1, 3, 7).reshape(-1, 3, rows * m * p, cols * m * p)


def _gridded(values: np.ndarray, start: int, grid: tuple[int, int]) -> np.ndarray:
    (rows, cols), (channels, high, wide) = grid, values.shape[-3:]
    own = values[start : start + rows * cols].reshape(rows, cols, channels, high, wide)
    return own.transpose(2, 0, 3, 1, 4).reshape(1, channels, rows * high, cols * wide)


def _in_place(values: np.ndarray, image: int, patches: tuple[int, int], side: int) -> np.ndarray:
    (rows, cols), p = patches, side
    own = values[image, : rows * cols].reshape(rows, cols, p, p, 3)
    return own.transpose(4, 0, 2, 1, 3).reshape(1, 3, rows * p, cols * p)


def _tiled(values: np.ndarray, image: int, grid: tuple[int, int]) -> np.ndarray:
    (rows, cols), (channels, high, wide) = grid, values.shape[-3:]
    tiles = values[image, 1 : 1 + rows * cols].reshape(rows, cols, channels, high, wide)
    return tiles.transpose(2, 0, 3, 1, 4).reshape(1, channels, rows * high, cols * wide)


def _lines(n: int, cell: int) -> Float[np.ndarray, "line 2"]:
    starts = np.arange(n) * float(cell)
    return np.stack([starts, starts + cell], axis=1)


def _overlap(lines: Float[np.ndarray, "line 2"], n: int) -> Float[np.ndarray, "line pixel"]:
    """Returns the share of each of `n` pixels that lies in each line."""
    at = np.arange(n)
    return np.clip(np.minimum(lines[:, 1:], at + 1) - np.maximum(lines[:, :1], at), 0.0, None)


def strange(shape: tuple[int, ...], tokens: TokenMap) -> ModelError:
    """Returns the error for pixel values of an unknown form."""
    return ModelError(
        "expected pixel values in views of (channel, row, col), or Qwen's patches, with square blocks of patches as "
        f"tokens; these are {shape} for {tokens.n} image tokens in the views {sorted(set(map(str, tokens.views)))}. "
        "Use an indicator that needs no pixels, such as one of embeddings."
    )
