"""Which rectangle of the original image each image token stands for.

Every preprocessing of one image amounts to a grid of cells over a window of the original image. The window may
reach outside the image (padding) or leave part of it out (cropping).

Where image tokens are no part of the sequence, they are keys of cross-attention layers: `CrossKeys`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from interp.errors import ImageTokenMismatch, ModelError

__all__ = [
    "CrossKeys",
    "Footprints",
    "center_crop",
    "check_count",
    "check_layout",
    "concatenate",
    "covered_area",
    "crop_offset",
    "in_frames",
    "joined_in_time",
    "lay",
    "pad_to_square",
    "select",
    "shortest_edge",
    "squash",
]


Size = tuple[int, int]  # (width, height)
Window = tuple[float, float, float, float]
_SNAP = 1e-9  # share of the window's side: a cell edge this close to a whole pixel is moved onto it


@dataclass(frozen=True, eq=False)
class Footprints:
    """The rectangles of a sample's image tokens, in the order the language model sees the tokens.

    Attributes:
        boxes: (token, 4) xyxy in pixels of the original image, inside it; NaN rows have no area (padding,
            newlines).
        grid: (rows, cols) when the tokens are row-major grids of that shape, one after another; else None.
        views: (token,) name of the view a token belongs to ("", "base", "tile", …).
        image: (token,) index of the image in its sample; in a video, of the token's first frame.
        frames: (token, 2) half-open range of the frames that a token stands for; None for images, where it is
            `image` and `image` + 1.
    """

    boxes: Float[np.ndarray, "token 4"]
    grid: tuple[int, int] | None
    views: np.ndarray
    image: Int[np.ndarray, " token"]
    frames: Int[np.ndarray, "token 2"] | None = None

    def __len__(self) -> int:
        return len(self.boxes)


@lru_cache(maxsize=64)
def lay(size: Size, grid: tuple[int, int], window: Window, *, view: str = "", image: int = 0) -> Footprints:
    """Returns a row-major `grid` (rows, cols) over `window`, xyxy in pixels of an image of (width, height).

    Cells are clipped to the image. Cells entirely outside it are NaN. The arrays are read-only, because equal calls
    share them.

    Raises:
        ModelError: The size, the grid or the window has no area.
    """
    (width, height), (rows, cols) = size, grid
    if min(width, height, rows, cols) < 1 or not (window[2] > window[0] and window[3] > window[1]):
        raise ModelError(
            f"footprints need an image, a grid and a window with area; got an image of {width}×{height}, a "
            f"grid of {rows}×{cols} and the window {window}."
        )
    xs = np.clip(_edges(window[0], window[2], cols), 0, width)
    ys = np.clip(_edges(window[1], window[3], rows), 0, height)
    x0, y0 = np.meshgrid(xs[:-1], ys[:-1])
    x1, y1 = np.meshgrid(xs[1:], ys[1:])
    boxes = np.stack([x0, y0, x1, y1], axis=-1).reshape(rows * cols, 4)
    boxes[(boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])] = np.nan
    arrays = (boxes, np.full(len(boxes), view), np.full(len(boxes), image))
    for array in arrays:
        array.setflags(write=False)
    return Footprints(arrays[0], grid, arrays[1], arrays[2])


def _edges(low: float, high: float, n: int) -> Float[np.ndarray, " edge"]:
    """Returns n + 1 evenly spaced edges; an edge within rounding error of a whole pixel is moved onto it."""
    edges = low + (high - low) * np.arange(n + 1) / n
    whole = np.round(edges)
    return np.where(np.abs(edges - whole) < _SNAP * max(abs(low), abs(high)), whole, edges)


def squash(size: Size, grid: tuple[int, int]) -> Footprints:
    """Returns the grid over the whole image; each axis is resized independently: u = x · R / W."""
    return lay(size, grid, (0.0, 0.0, float(size[0]), float(size[1])))


def pad_to_square(size: Size, grid: tuple[int, int]) -> Footprints:
    """Returns the grid over the square of side s = max(W, H) with the image at offset ⌊(s − W)/2⌋, ⌊(s − H)/2⌋.

    Cells in the padding are NaN. Cells across its edge keep their visible part.
    """
    side = max(size)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    return lay(size, grid, (float(-left), float(-top), float(side - left), float(side - top)))


def center_crop(
    size: Size, grid: tuple[int, int], resized: Size | None = None, *, crop: Size | None = None
) -> Footprints:
    """Returns the grid over the centre of the image.

    Args:
        size: (width, height) of the original image.
        grid: (rows, cols) of tokens.
        resized: (width, height) after the resize and before the crop, in whole pixels (`shortest_edge`).
        crop: (width, height) of the crop, in whole pixels. If `resized` and `crop` are both given, the crop
            covers the same pixels as in transformers; if neither is, it is the exact central square of side
            min(W, H).

    Raises:
        ModelError: Only one of `resized` and `crop` is given.
    """
    if (resized is None) != (crop is None):
        raise ModelError(
            "center_crop needs both resized= and crop= (whole pixels) or neither of them; got one."
        )
    if resized is None or crop is None:
        side = float(min(size))
        left, top = (size[0] - side) / 2, (size[1] - side) / 2
        return lay(size, grid, (left, top, left + side, top + side))
    offset = (crop_offset(resized[0], crop[0]), crop_offset(resized[1], crop[1]))
    return lay(size, grid, pulled_back((*offset, offset[0] + crop[0], offset[1] + crop[1]), size, resized))


def shortest_edge(size: Size, edge: int) -> Size:
    """Returns (width, height) after transformers resizes the shorter side to `edge`; the longer one is rounded down."""
    width, height = size
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge


def crop_offset(length: int, crop: int, *, round_up: bool = False) -> int:
    """Returns the first pixel of a central crop; negative where the crop is larger and transformers pads with zeros.

    If the padding is odd, transformers' torchvision backend puts the larger half after the image and its PIL
    backend puts it before the image (`round_up`).
    """
    return (length - crop) // 2 if round_up else int((length - crop) / 2)


def pulled_back(window: Window, size: Size, resized: Size) -> Window:
    """Converts a window from pixels of the `resized` image to pixels of the image of `size`."""
    across, down = size[0] / resized[0], size[1] / resized[1]
    return window[0] * across, window[1] * down, window[2] * across, window[3] * down


def select(
    cells: Footprints, at: Int[np.ndarray, " chosen"] | slice, grid: tuple[int, int] | None = None
) -> Footprints:
    """Returns some of the tokens, in the order of `at`; tokens of videos lose their frames.

    Args:
        cells: The footprints to choose from.
        at: The indices of the tokens, or a slice.
        grid: (rows, cols) if the chosen tokens are one row-major grid.
    """
    return Footprints(cells.boxes[at], grid, cells.views[at], cells.image[at])


def concatenate(parts: Sequence[Footprints], *, one_image: bool = False) -> Footprints:
    """Joins the tokens of several images (numbered 0, 1, …) or, with `one_image`, of several views of one image.

    The grid is kept when all parts have the same grid.
    """
    if not parts:
        return Footprints(np.empty((0, 4)), None, np.empty(0, str), np.empty(0, int))
    if len(parts) == 1 and (one_image or not parts[0].image.any()):
        return parts[0]
    grids = {part.grid for part in parts}
    return Footprints(
        np.concatenate([part.boxes for part in parts]),
        grids.pop() if len(grids) == 1 else None,
        np.concatenate([part.views for part in parts]),
        np.concatenate([part.image if one_image else np.full(len(part), i) for i, part in enumerate(parts)]),
    )


def in_frames(one: Footprints, n_frames: int, together: int = 1) -> Footprints:
    """Returns the tokens of a video whose frames all have the same footprints, in the order of time.

    Args:
        one: The footprints of one frame, or of frames that were merged.
        n_frames: How many frames the video has.
        together: How many consecutive frames one token stands for; the last group may be shorter.

    >>> cells = squash((8, 8), (1, 2))
    >>> in_frames(cells, 3, together=2).frames.tolist()
    [[0, 2], [0, 2], [2, 3], [2, 3]]
    """
    starts = np.repeat(np.arange(0, n_frames, together), len(one))
    n = -(-n_frames // together)
    return Footprints(
        np.tile(one.boxes, (n, 1)),
        one.grid,
        np.tile(one.views, n),
        starts,
        np.stack([starts, np.minimum(starts + together, n_frames)], axis=1),
    )


def joined_in_time(parts: Sequence[Footprints]) -> Footprints:
    """Joins parts of one video in the order of their tokens; there is no grid."""
    frames = [np.stack([p.image, p.image + 1], axis=1) if p.frames is None else p.frames for p in parts]
    return Footprints(
        np.concatenate([part.boxes for part in parts]),
        None,
        np.concatenate([part.views for part in parts]),
        np.concatenate([part.image for part in parts]),
        np.concatenate(frames),
    )


def covered_area(
    regions: Float[np.ndarray, "region 4"], rectangles: Float[np.ndarray, "rectangle 4"]
) -> Float[np.ndarray, " region"]:
    """Returns the exact area of each region that the union of the rectangles covers; NaN rows are skipped.

    Coordinate compression: the edges of the rectangles cut the plane into cells that are entirely covered or not
    at all.
    """
    if np.isnan(rectangles).any():
        rectangles = rectangles[~np.isnan(rectangles).any(axis=1)]
    if not len(rectangles) or not len(regions):
        return np.zeros(len(regions))
    xs, ys, inside = _cells(np.asarray(rectangles, np.float64).tobytes())
    across, down = _overlaps(regions[:, [0, 2]], xs), _overlaps(regions[:, [1, 3]], ys)
    # Σ down · inside · across, the longer axis first; np.einsum takes longer to read that than to compute it
    if len(inside) >= inside.shape[1]:
        return np.vecdot((inside.T @ down.T).T, across)
    return np.vecdot(across @ inside.T, down)


@lru_cache(maxsize=64)
def _cells(
    rectangles: bytes,
) -> tuple[Float[np.ndarray, " x"], Float[np.ndarray, " y"], Float[np.ndarray, "row col"]]:
    """The edges of rectangles, given as the bytes of (rectangle, 4), and which cells between edges they cover: 1 or 0.

    Cached, because the samples of a study share few layouts.
    """
    corners = np.frombuffer(rectangles).reshape(-1, 4)
    xs, ys = np.unique(corners[:, [0, 2]]), np.unique(corners[:, [1, 3]])
    x0, x1 = np.searchsorted(xs, corners[:, [0, 2]]).T
    y0, y1 = np.searchsorted(ys, corners[:, [1, 3]]).T
    steps = np.zeros((len(ys), len(xs)), int)
    for rows, columns, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(steps, (rows, columns), sign)
    inside = steps.cumsum(0).cumsum(1)[:-1, :-1] > 0
    return xs, ys, inside.astype(float)


def _overlaps(spans: np.ndarray, edges: np.ndarray) -> Float[np.ndarray, "region interval"]:
    """Returns the length that each span shares with each interval between edges; 0 for NaN spans."""
    high = np.minimum(spans[:, 1:], edges[None, 1:])
    low = np.maximum(spans[:, :1], edges[None, :-1])
    shared = high - low
    return np.where(shared > 0, shared, 0.0)


def check_count(n_tokens: int, footprints: Footprints, *, family: str, sizes: Sequence[Size]) -> None:
    """Raises `ImageTokenMismatch` unless the prompt holds as many image tokens as there are footprints."""
    if n_tokens == len(footprints):
        return
    images = " and ".join(f"a {width}×{height} image" for width, height in sizes) or "no image"
    times = "" if len(sizes) < 2 else f"{len(sizes)}×"
    shape = "" if footprints.grid is None else f"{times}{footprints.grid[0]}×{footprints.grid[1]} = "
    hint = (
        "None of the prompt's ids is the config's image_token_id: does the processor write another image token, or was "
        "the config made for another tokenizer? Compare model.config.image_token_id with "
        "processor.tokenizer.convert_tokens_to_ids(processor.image_token)."
        if n_tokens == 0
        else "Did the processor truncate? Raise max_length or pass truncation=False."
        if n_tokens < len(footprints)
        else "Does the question itself hold the image placeholder? Or do the processor's patch_size, "
        "num_additional_image_tokens and vision_feature_select_strategy differ from the model's config?"
    )
    raise ImageTokenMismatch(
        f"the prompt holds {n_tokens} image tokens but {family}'s grid for {images} is "
        f"{shape}{len(footprints)}. {hint}"
    )


def check_layout(
    footprints: Footprints, sizes: Sequence[Size], visible: Sequence[Window] | None = None
) -> None:
    """Raises `ModelError` unless the footprints are valid.

    Rectangles must lie inside their image. Within one view they must not overlap. With a grid they must run
    row-major. With `visible` (one xyxy window per image) the union of each view must be exactly that window.
    """
    boxes = footprints.boxes
    seen = ~np.isnan(boxes).any(axis=1)
    if not (seen | np.isnan(boxes).all(axis=1)).all():
        raise ModelError(
            "a footprint is four finite edges, or four NaN for a token without area; got a mixture."
        )
    if footprints.grid is not None:
        _check_order(boxes, footprints.grid)
    for i, (width, height) in enumerate(sizes):
        mine = seen & (footprints.image == i)
        low, high = boxes[mine][:, :2], boxes[mine][:, 2:]
        if (low < 0).any() or (high > (width, height)).any() or (high <= low).any():
            raise ModelError(
                f"footprints of image {i} are empty, inverted or reach outside its {width}×{height} pixels."
            )
        for view in np.unique(footprints.views[mine]):
            tiles = boxes[mine & (footprints.views == view)]
            _check_tiling(tiles, f"image {i}, view {str(view)!r}", None if visible is None else visible[i])


def _check_tiling(tiles: Float[np.ndarray, "token 4"], name: str, visible: Window | None) -> None:
    """Checks that tiles of one view do not overlap and fill exactly the visible window, where that is known."""
    whole = np.array([[*tiles[:, :2].min(axis=0), *tiles[:, 2:].max(axis=0)]])
    total = np.prod(tiles[:, 2:] - tiles[:, :2], axis=1).sum()
    union = covered_area(whole, tiles)[0]
    if not np.isclose(total, union, rtol=1e-7, atol=0):
        raise ModelError(
            f"{name}: footprints overlap; their areas add to {total:.6g} px², their union to {union:.6g}."
        )
    if visible is None:
        return
    window = np.array([visible], float)
    area = float((visible[2] - visible[0]) * (visible[3] - visible[1]))
    if not np.allclose([covered_area(window, tiles)[0], union], area, rtol=1e-7, atol=0):
        raise ModelError(
            f"{name}: footprints cover {union:.6g} px², but {area:.6g} px² of the image are visible."
        )


def _check_order(boxes: Float[np.ndarray, "token 4"], grid: tuple[int, int]) -> None:
    """Checks that cells of a column share x, cells of a row share y, and both increase along the grid."""
    rows, cols = grid
    if len(boxes) % (rows * cols):
        raise ModelError(
            f"{len(boxes)} footprints are not whole grids of {rows}×{cols} = {rows * cols} tokens."
        )
    for block in boxes.reshape(-1, rows, cols, 4):
        for edge, name, along in ((0, "columns", block), (1, "rows", block.swapaxes(0, 1))):
            low, high = _span(along[..., edge])
            known = low <= high
            if not (high[known] - low[known] < 1e-6).all() or not (np.diff(low[known]) > 0).all():
                raise ModelError(
                    f"footprints are not in row-major order: the {rows}×{cols} grid's {name} do not line up."
                )


def _span(values: Float[np.ndarray, "other line"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the smallest and the largest known value of each line; +inf and −inf for a line of NaN."""
    unknown: Bool[np.ndarray, "other line"] = np.isnan(values)
    return np.where(unknown, np.inf, values).min(axis=0), np.where(unknown, -np.inf, values).max(axis=0)


@dataclass(frozen=True, eq=False)
class CrossKeys:
    """What the rows of one prompt may attend to in cross-attention layers.

    Keys come in blocks of `width`, such as a tile with its class token: block b has the columns b·width … (b + 1)·width
    − 1. All rows of a block are open or none.

    Attributes:
        placeholders: (image,) positions of the sequence that stand for the images, increasing.
        blocks: (row, block) whether a row of the prompt sees a block's keys.
        width: Keys of a block.
    """

    placeholders: Int[np.ndarray, " image"]
    blocks: Bool[np.ndarray, "row block"]
    width: int

    @property
    def n(self) -> int:
        """Keys of a cross-attention layer, those of padding included; 0 without an image."""
        return self.blocks.shape[1] * self.width

    @cached_property
    def first_text(self) -> int:
        """The position after the last placeholder; 0 without one."""
        return int(self.placeholders[-1]) + 1 if len(self.placeholders) else 0

    def seen(self, row: int) -> Int[np.ndarray, " key"]:
        """The columns that a row of the prompt sees; every generated token sees what the last row does."""
        return np.flatnonzero(np.repeat(self.blocks[row], self.width))
