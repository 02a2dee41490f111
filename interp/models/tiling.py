"""How processors cut an image into tiles, and where the tiles' tokens and patches lie.

LLaVA-NeXT and LLaVA-OneVision ("anyres"): a view of the whole image, then tiles of the best resolution as one grid.
InternVL and Cohere: a canvas of square tiles chosen by the image's aspect ratio, then a thumbnail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch.nn.functional import interpolate
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, Window, concatenate, lay, pulled_back, select
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.resizing import (
    agree,
    blank,
    check_views,
    down_columns,
    one_image,
    patch_sides,
    pixel_size,
    setting,
    squashed_size,
    tile_windows,
    whole,
    without_area,
)

__all__ = [
    "AnyRes",
    "anyres_patches",
    "canvas_of",
    "mesh",
    "patch_lines",
    "squares",
    "squashed_tiles",
    "tiled_footprints",
]


_SNAP = 1e-9  # share of the image's longer side: a cell edge this close to a whole pixel is moved onto it


@dataclass(frozen=True)
class AnyRes:
    """How LLaVA-NeXT and LLaVA-OneVision cut an image into views.

    Attributes:
        pinpoints: The resolutions to choose from, (height, width) in pixels.
        side: The side of a tile and of the view of the whole image, in pixels.
        patch: The side of a patch, in pixels.
        most: The bound on the grid, in tiles; a grid of more than 1.1² times as many patches is shrunk. None for no
            bound.
    """

    pinpoints: tuple[tuple[int, int], ...]
    side: int
    patch: int
    most: int | None = None

    @classmethod
    def read(cls, settings: Any, config: Any, most: int | None = None) -> AnyRes:
        """Reads the settings of an image processor and a model's config.

        Raises:
            ModelError: The two differ, or the processor's size and crop differ.
        """
        side = int(config.vision_config.image_size)
        crop = {key: int(value) for key, value in dict(settings.crop_size or {}).items() if value is not None}
        if {*pixel_size(settings).values(), *crop.values()} != {side}:
            raise ModelError(
                f"the model's vision tower takes tiles of {side}×{side} pixels, but {type(settings).__name__} has "
                f"size={pixel_size(settings)} and crop_size={crop or None}. Set both to {side}, or pass adapter= "
                "with footprints of your own."
            )
        mine, theirs = (
            tuple((int(height), int(width)) for height, width in which.image_grid_pinpoints)
            for which in (settings, config)
        )
        if mine != theirs:
            raise ModelError(
                f"{type(settings).__name__}.image_grid_pinpoints are {list(mine)}, but the model's config has "
                f"{list(theirs)}, which it uses to join the tiles. Set both to the checkpoint's."
            )
        return cls(mine, side, int(config.vision_config.patch_size), most)

    @property
    def per_tile(self) -> int:
        """Patches along a tile."""
        return self.side // self.patch

    def best(self, size: Size) -> Size:
        """(width, height) of the resolution chosen for an image, in pixels."""
        height, width = select_best_resolution((size[1], size[0]), [list(p) for p in self.pinpoints])
        return width, height

    def n_tiles(self, size: Size) -> int:
        """The number of tiles of an image, without the view of the whole."""
        width, height = self.best(size)
        return (width // self.side) * (height // self.side)

    def base(self, size: Size) -> Footprints:
        """Returns the whole image squashed to one tile."""
        seen = self.per_tile * self.patch
        window = pulled_back((0, 0, seen, seen), size, (self.side, self.side))
        return lay(size, (self.per_tile, self.per_tile), window, view="base")

    def padded(self, size: Size) -> Footprints:
        """Returns the whole image padded to a square and resized to one tile, then a newline token without area."""
        edge = max(size)
        seen = self.per_tile * self.patch * edge / self.side
        left, top = (edge - size[0]) // 2, (edge - size[1]) // 2
        window = (float(-left), float(-top), seen - left, seen - top)
        grid = lay(size, (self.per_tile, self.per_tile), window, view="base")
        return concatenate([grid, without_area(1, "base")], one_image=True)

    def tiles(self, size: Size) -> Footprints:
        """Returns the image resized into the best resolution, padded, cut into tiles, joined, unpadded and shrunk.

        The order is row-major with one newline token without area at the end of each row. Unpadding drops equally many
        whole patches at both ends of one axis, so some padding may stay, or up to a patch of the image may be lost.
        """
        best, resized = self.best(size), self.resized(size)
        lines = [
            (pixels - (best[axis] - resized[axis]) // 2) * size[axis] / resized[axis]
            for axis, pixels in enumerate(self.lines(size))
        ]
        newline = np.zeros((1, 2))  # a column without width
        return mesh(size, lines[1], np.concatenate([lines[0], newline]), view="tile")

    def resized(self, size: Size) -> Size:
        """(width, height) of the image within the resolution chosen for it, in pixels; the rest is padding."""
        height, width = get_patch_output_size(blank(size), self.best(size)[::-1], ChannelDimension.FIRST)
        return int(width), int(height)

    def kept(self, size: Size) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Returns, for the columns and the rows of the joined tiles: first patch kept, patches kept, tokens.

        There are fewer tokens than patches where the model shrinks the grid.
        """
        best = self.best(size)
        patches = (best[0] // self.side * self.per_tile, best[1] // self.side * self.per_tile)
        cuts = _cuts(size, patches)
        kept = (patches[0] - 2 * cuts[0], patches[1] - 2 * cuts[1])
        cells = self._shrunk(kept)
        return (cuts[0], kept[0], cells[0]), (cuts[1], kept[1], cells[1])

    def lines(self, size: Size) -> tuple[Float[np.ndarray, "col 2"], Float[np.ndarray, "row 2"]]:
        """Returns the first and end pixel of the columns and rows of tokens, in pixels of the joined tiles."""
        edges = [
            first + np.arange(cells + 1) * kept / max(cells, 1) for first, kept, cells in self.kept(size)
        ]
        across, down = (
            patch_lines(one, patch=self.patch, per_tile=self.per_tile, side=self.side) for one in edges
        )
        return across, down

    def check(
        self, sizes: Sequence[Size], views: Sequence[int], inputs: Mapping[str, Any], settings: Any
    ) -> None:
        """Raises `ModelError` unless the inputs are images of these sizes with the expected numbers of views."""
        found = [(int(width), int(height)) for height, width in inputs["image_sizes"]]
        agree("images of (width, height)", list(sizes), found, settings)
        padded = [max(views) if settings.do_pad else n for n in views]
        shapes = [tuple(image.shape) for image in inputs["pixel_values"]]
        agree("views of shape", [(n, 3, self.side, self.side) for n in padded], shapes, settings)

    def _shrunk(self, kept: tuple[int, int]) -> tuple[int, int]:
        """Returns (cols, rows) after the model shrinks a grid that is too large."""
        if self.most is None:
            return kept
        ratio = math.sqrt(kept[0] * kept[1] / (self.most * self.per_tile**2))
        return (int(kept[0] // ratio), int(kept[1] // ratio)) if ratio > 1.1 else kept


def patch_lines(
    edges: Float[np.ndarray, " edge"], *, patch: int, per_tile: int, side: int
) -> Float[np.ndarray, "cell 2"]:
    """Returns the first and the end pixel of the cells between edges along one axis, in pixels of the tiled image.

    Patches lie in tiles. Where they do not fill a tile, the rim at its end belongs to no patch: a cell that ends with
    the tile's patches stops before the rim; a cell that spans two tiles includes it.

    Args:
        edges: Increasing edges, in patches from the start of the first tile; may be fractions.
        patch: The side of a patch, in pixels.
        per_tile: The number of patches along a tile.
        side: The side of a tile, in pixels.
    """
    low, high = edges[:-1], edges[1:]
    first, last = np.floor(low), np.ceil(high) - 1

    def pixels(patches: np.ndarray, part: np.ndarray) -> np.ndarray:
        return patches // per_tile * side + (patches % per_tile + part) * patch

    return np.stack([pixels(first, low - first), pixels(last, high - last)], axis=-1)


def mesh(
    size: Size, rows: Float[np.ndarray, "row 2"], cols: Float[np.ndarray, "col 2"], *, view: str
) -> Footprints:
    """Returns the row-major cells where rows and columns cross; each line is (low, high) in pixels of the image.

    Lines need not touch. Cells are clipped to the image of (width, height). Cells outside it or on a line without width
    are NaN.
    """

    def clipped(lines: np.ndarray, length: int) -> np.ndarray:
        near = np.round(lines)
        return np.clip(np.where(np.abs(lines - near) < _SNAP * max(size), near, lines), 0, length)

    boxes = np.empty((len(rows), len(cols), 4))
    boxes[..., [0, 2]], boxes[..., [1, 3]] = clipped(cols, size[0])[None], clipped(rows, size[1])[:, None]
    boxes = boxes.reshape(-1, 4)
    boxes[(boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])] = np.nan
    return Footprints(boxes, None, np.full(len(boxes), view), np.zeros(len(boxes), int))


def squares(size: Size, window: Window, edges: Float[np.ndarray, " edge"], *, view: str = "") -> Footprints:
    """Returns the row-major grid of cells between the same edges along both sides of a window.

    Args:
        size: (width, height) of the image.
        window: The part of the image, xyxy in its pixels.
        edges: Increasing, as parts of the window's side; they need not be even.
        view: The name of the tokens' view.
    """
    cols, rows = (
        np.stack([lines[:-1], lines[1:]], axis=1)
        for lines in (window[axis] + (window[axis + 2] - window[axis]) * edges for axis in (0, 1))
    )
    return replace(mesh(size, rows, cols, view=view), grid=(len(rows), len(cols)))


def _cuts(size: Size, patches: tuple[int, int]) -> tuple[int, int]:
    """Returns how many patches (across, down) transformers' `unpad_image` drops at each end of a padded grid."""
    (width, height), (across, down) = size, patches
    if width / height > across / down:
        return 0, (down - int(round(height * (across / width), 7))) // 2
    return (across - int(round(width * (down / height), 7))) // 2, 0


def anyres_patches(
    cut: AnyRes | None, images: Sequence[tuple[Size, bool]], leading: tuple[str, ...]
) -> Patches:
    """Returns the patches of images that are processed as LLaVA-NeXT or LLaVA-OneVision does.

    Args:
        cut: How images are cut; None if there are none.
        images: (width, height) of each image, and whether it has tiles besides the view of the whole.
        leading: The tokens that the tower puts before each sequence.
    """
    sequences: list[TowerSequence] = []
    weights: list[PatchWeights] = []
    for number, (size, tiled) in enumerate(images):
        assert cut is not None
        n = cut.per_tile
        base = cut.base(size) if tiled else select(cut.padded(size), slice(n * n), (n, n))
        tiles = _tiles(cut, size) if tiled else []
        sequences += [TowerSequence(replace(one, image=np.full(len(one), number))) for one in (base, *tiles)]
        weights.append(PatchWeights.members([[i] for i in range(n * n)], n * n))
        newline = PatchWeights.members([[]], 0)
        weights.append(_tile_weights(cut, size) if tiled else newline)
    return Patches(tuple(sequences), leading, PatchWeights.stacked(weights))


def _tiles(cut: AnyRes, size: Size) -> list[Footprints]:
    """Returns each tile's patches, tiles row by row; patches that see nothing but padding are NaN."""
    best, resized = cut.best(size), cut.resized(size)
    lines = []
    for axis in (0, 1):
        places = np.arange(cut.per_tile)[:, None] * cut.patch + np.array([0, cut.patch])
        corners = np.arange(0, best[axis], cut.side)[:, None, None]
        offset = (best[axis] - resized[axis]) // 2
        lines.append((corners + places - offset) * size[axis] / resized[axis])
    tiles = [mesh(size, down, across, view="tile") for down in lines[1] for across in lines[0]]
    return [replace(one, grid=(cut.per_tile, cut.per_tile)) for one in tiles]


def _tile_weights(cut: AnyRes, size: Size) -> PatchWeights:
    """Returns the weights of the tokens of the joined tiles, a newline token after each row."""
    (wide, high), n = cut.best(size), cut.per_tile
    across, down = wide // cut.side, high // cut.side
    numbers = np.arange(across * down * n * n).reshape(down, across, n, n).transpose(0, 2, 1, 3)
    joined = numbers.reshape(down * n, across * n)
    columns, rows = (_along(*one) for one in cut.kept(size))
    token, patch, weight = [], [], []
    for row, (which, share) in enumerate(rows):
        for column, (others, part) in enumerate(columns):
            found = joined[np.ix_(which, others)].reshape(-1)
            token.append(np.full(len(found), row * (len(columns) + 1) + column))
            patch.append(found)
            weight.append(np.outer(share, part).reshape(-1))
    shape = (len(rows) * (len(columns) + 1), int(numbers.size))
    return PatchWeights(np.concatenate(token), np.concatenate(patch), np.concatenate(weight), shape)


def _along(first: int, kept: int, cells: int) -> list[tuple[np.ndarray, Float[np.ndarray, " patch"]]]:
    """Returns the patches of each cell along an axis, and their weights: what bilinear interpolation takes of each."""
    if cells == kept:
        return [(np.array([first + i]), np.ones(1)) for i in range(kept)]
    whole = interpolate(torch.eye(kept, dtype=torch.float64)[None], size=cells, mode="linear")[0].T.numpy()
    return [(first + np.flatnonzero(one), one[one != 0]) for one in whole]


def tiled_footprints(
    sizes: Sequence[Size],
    inputs: Mapping[str, Any],
    processor: Any,
    config: Any,
    *,
    family: str,
    ratio: float,
    turned: bool = False,
) -> Footprints:
    """Returns view "tile" with a grid per tile, row by row; after several tiles also view "thumbnail" of the whole.

    Args:
        sizes: (width, height) of each image.
        inputs: The processor's output.
        processor: The processor.
        config: The model's config.
        family: The family's name, for messages.
        ratio: Tokens along a side for each patch along it, after the shuffle.
        turned: Whether each tile's tokens run down its columns.

    Raises:
        ModelError: The tiles are not square, or the pixel values do not follow from the settings.
    """
    tiles, canvases = squashed_tiles(sizes, inputs, processor, family, canvas_of)
    sides = [_side(tile, family, patch_sides(config), ratio) for tile in tiles]
    return concatenate([_laid(*one, turned) for one in zip(sizes, canvases, sides, strict=True)])


def squashed_tiles(
    sizes: Sequence[Size],
    inputs: Mapping[str, Any],
    processor: Any,
    family: str,
    canvas: Callable[[Size, Any], tuple[int, int]],
) -> tuple[list[Size], list[tuple[int, int]]]:
    """Returns the (width, height) of each image's tiles, and the (columns, rows) of its canvas.

    Where an image has several tiles, one more view of their size shows it whole.

    Args:
        sizes: (width, height) of each image.
        inputs: The processor's output.
        processor: The processor.
        family: The family's name, for messages.
        canvas: The (columns, rows) of tiles that a processor cuts an image of this size into.

    Raises:
        ModelError: Views are not of one size, or the pixel values do not follow from the settings.
    """
    tiles = [squashed_size(size, processor, family) for size in sizes]
    canvases = [canvas(size, processor) for size in sizes]
    counts = [cols * rows + (cols * rows > 1) for cols, rows in canvases]
    views = [tile for tile, count in zip(tiles, counts, strict=True) for _ in range(count)]
    check_views(inputs, views, sizes, processor)
    return tiles, canvases


def canvas_of(size: Size, processor: Any) -> tuple[int, int]:
    """Returns the (columns, rows) of tiles that an image is cut into."""
    fewest, most = setting(processor, "min_patches"), setting(processor, "max_patches")
    if not setting(processor, "crop_to_patches") or most <= 1:
        return 1, 1
    tile = dict(setting(processor, "size"))
    return get_optimal_tiled_canvas((size[1], size[0]), (tile["height"], tile["width"]), fewest, most)


def _side(tile: Size, family: str, patch: Sequence[int], ratio: float) -> int:
    """Returns the number of tokens along a tile's side."""
    high, wide = patch
    rows, cols, side = tile[1] // high, tile[0] // wide, int(tile[1] // high * ratio)
    if rows != cols or tile != (cols * wide, rows * high) or side != rows * ratio:
        raise ModelError(
            f"{family}'s model takes square tiles of whole patches of {wide}×{high} px that shuffle evenly (ratio "
            f"{ratio}); the processor makes tiles of {tile[0]}×{tile[1]} px. Set processor.image_processor.size."
        )
    return side


def _laid(size: Size, canvas: tuple[int, int], side: int, turned: bool) -> Footprints:
    """Returns the tokens of one image; with `turned` each tile's tokens run down its columns."""
    tiles = [lay(size, (side, side), window, view="tile") for window in tile_windows(size, canvas)]
    views = tiles if len(tiles) == 1 else [*tiles, lay(size, (side, side), whole(size), view="thumbnail")]
    return one_image([down_columns(view) for view in views] if turned else views)
