"""Arithmetic of image preprocessing that several families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import Gemma3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from interp.errors import ModelError
from interp.inputs.footprints import (
    Footprints,
    Size,
    Window,
    concatenate,
    crop_offset,
    lay,
    pulled_back,
    select,
    shortest_edge,
)
from interp.inputs.text import count

__all__ = [
    "agree",
    "blank",
    "check_views",
    "class_image_settings",
    "cropped_window",
    "down_columns",
    "halved_twice",
    "in_corner",
    "merged_patches",
    "one_image",
    "own_image_settings",
    "pan_and_scan",
    "patch_sides",
    "pixel_size",
    "resized_sizes",
    "seen_part",
    "setting",
    "squashed_size",
    "tile_windows",
    "whole",
    "without_area",
]


def own_image_settings(processor: Any) -> dict[str, Any]:
    """Returns the image settings that a processor gives its image processor in each call, over the latter's own.

    They are the processor's `images_kwargs` and, in older transformers, the defaults of its class.
    """
    return {**(getattr(processor, "images_kwargs", None) or {}), **class_image_settings(processor)}


def class_image_settings(processor: Any) -> dict[str, Any]:
    """Returns the image settings that are defaults of a processor's class (transformers before 5.23)."""
    defaults = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    return dict(defaults.get("images_kwargs", {}))


def setting(processor: Any, name: str) -> Any:
    """Returns the value of an image setting in a call of the processor.

    The processor's own (InternVL and Gemma 3 have some) overrides its image processor's attribute.
    """
    own = own_image_settings(processor)
    return own[name] if name in own else getattr(processor.image_processor, name, None)


def resized_sizes(inputs: Mapping[str, Any], processor: Any) -> list[Size]:
    """Returns (width, height) of each image as the processor resized it: image_grid_thw times the patch size.

    Empty where the inputs have no such grid.
    """
    grids = inputs.get("image_grid_thw")
    if grids is None:
        return []
    patch = int(setting(processor, "patch_size"))
    return [(int(columns) * patch, int(rows) * patch) for _, rows, columns in grids.tolist()]


def squashed_size(size: Size, processor: Any, family: str) -> Size:
    """Returns (width, height) after a resize to a fixed size that does not keep the aspect ratio.

    Raises:
        ModelError: The size is not given as height and width, or a crop or padding follows.
    """
    kind = type(processor.image_processor).__name__
    for step in ("do_center_crop", "do_pad"):
        if setting(processor, step):
            raise ModelError(
                f"the {family} adapter expects images to be squashed, but {kind} has {step}=True. Set it to False, "
                "or pass adapter= with your own footprints."
            )
    if not setting(processor, "do_resize"):
        return size
    wanted = dict(setting(processor, "size"))
    if set(wanted) != {"height", "width"}:
        raise ModelError(
            f'the {family} adapter expects the size as "height" and "width"; {kind} has {wanted}. Set '
            "processor.image_processor.size, or pass adapter= with your own footprints."
        )
    return int(wanted["width"]), int(wanted["height"])


def check_views(
    inputs: Mapping[str, Any], views: Sequence[Size], sizes: Sequence[Size], processor: Any
) -> None:
    """Raises `ModelError` unless `pixel_values` hold exactly these views, (width, height) each, in this order."""
    found = [(int(view.shape[-1]), int(view.shape[-2])) for view in inputs.get("pixel_values", ())]
    if found == list(views):
        return
    raise ModelError(
        f"the settings of {type(processor).__name__} turn images of {_listed(sizes)} into {_counted(views)}, but "
        f"pixel_values hold {_counted(found)} (width×height). Was it called with settings other than its own? "
        "Set them on processor.image_processor, or in processor.images_kwargs where the processor has its own."
    )


def patch_sides(config: Any) -> tuple[int, int]:
    """Returns (height, width) of a patch of a model's vision tower, in pixels, from one number or two in its config."""
    sides = config.vision_config.patch_size
    down, across = sides if isinstance(sides, tuple | list) else (sides, sides)
    return int(down), int(across)


def seen_part(pixels: Size, cell: Size, grid: tuple[int, int], window: Window) -> Window:
    """Returns the part of `window` under a grid (rows, cols) of cells of `cell` (width, height) pixels.

    Pixels at the right and the bottom that do not fill a whole cell belong to no cell.
    """
    across, down = grid[1] * cell[0] / pixels[0], grid[0] * cell[1] / pixels[1]
    x0, y0, x1, y1 = window
    return x0, y0, x0 + (x1 - x0) * across, y0 + (y1 - y0) * down


def _listed(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{width}×{height}" for width, height in sizes) or "no size"


def _counted(views: Sequence[Size]) -> str:
    return f"{count(len(views), 'view')} of {_listed(list(dict.fromkeys(views)))}"


Resize = Callable[[int, int, int, int, int], tuple[int, int]]
"""(height, width, side of a merged block, fewest pixels, most pixels) → (height, width) after the resize."""


def merged_patches(size: Size, processor: Any, config: Any, resize: Resize = smart_resize) -> tuple[int, int]:
    """Returns (rows, cols) of patches of the Qwen processors; each axis is resized to whole merged blocks.

    Args:
        size: (width, height) of the image.
        processor: The processor.
        config: The model's config.
        resize: transformers' arithmetic of the new size.

    Raises:
        ModelError: The size lacks a smallest or largest number of pixels, or the patches differ from the model's.
    """
    patch, merge = setting(processor, "patch_size"), setting(processor, "merge_size")
    vision = config.vision_config
    if (patch, merge) != (vision.patch_size, vision.spatial_merge_size):
        raise ModelError(
            f"the processor cuts patches of {patch} px and merges {merge}×{merge}; the model takes "
            f"{vision.patch_size} px and {vision.spatial_merge_size}×{vision.spatial_merge_size}. Pass the "
            "processor of this checkpoint."
        )
    width, height = size
    if setting(processor, "do_resize"):
        limits = dict(setting(processor, "size"))
        if not {"shortest_edge", "longest_edge"} <= set(limits):
            raise ModelError(
                'this processor\'s size is "shortest_edge" and "longest_edge", the fewest and the most pixels; '
                f"{type(processor.image_processor).__name__} has {limits}. Set both."
            )
        fewest, most = limits["shortest_edge"], limits["longest_edge"]
        height, width = resize(height, width, patch * merge, fewest, most)
    return height // patch, width // patch


def pan_and_scan(size: Size, processor: Any) -> list[Window]:
    """Returns the windows of Gemma 3's crops, left to right or top to bottom; empty if it makes none.

    It runs transformers' own function on an image of coordinates. The crops tile the image; the last may be smaller.

    Raises:
        ModelError: Pan and scan lacks one of its three settings.
    """
    if not setting(processor, "do_pan_and_scan"):
        return []
    names = ("min_crop_size", "max_num_crops", "min_ratio_to_activate")
    options = {f"pan_and_scan_{name}": setting(processor, f"pan_and_scan_{name}") for name in names}
    if None in options.values():
        raise ModelError(
            f"pan and scan needs a value for each of its settings; {type(processor).__name__} has {options}."
        )
    (width, height), cut = size, Gemma3ImageProcessorPil().pan_and_scan
    across = cut(np.broadcast_to(np.arange(width), (1, height, width)), **options)
    down = cut(np.broadcast_to(np.arange(height)[:, None], (1, height, width)), **options)
    return [
        (float(x[0, 0, 0]), float(y[0, 0, 0]), float(x[0, 0, -1] + 1), float(y[0, -1, 0] + 1))
        for x, y in zip(across, down, strict=True)
    ]


def whole(size: Size) -> Window:
    """Returns the window of the whole image."""
    return 0.0, 0.0, float(size[0]), float(size[1])


def tile_windows(size: Size, canvas: tuple[int, int]) -> list[Window]:
    """Returns the windows of a canvas of equal tiles, (columns, rows), over the whole image, row by row."""
    (cols, rows), (wide, high) = canvas, (size[0] / canvas[0], size[1] / canvas[1])
    return [
        (c * wide, r * high, (c + 1) * wide, (r + 1) * high) for r, c in product(range(rows), range(cols))
    ]


def one_image(parts: Sequence[Footprints]) -> Footprints:
    """Joins the views of one image in order; the grid is kept if there is only one view."""
    joined = concatenate(parts, one_image=True)
    return joined if len(parts) == 1 else replace(joined, grid=None)


def down_columns(cells: Footprints) -> Footprints:
    """Returns a row-major grid's cells in column order, for models whose tokens run down the columns."""
    rows, cols = cells.grid or (1, len(cells))
    return select(cells, np.arange(rows * cols).reshape(rows, cols).T.ravel())


def without_area(n: int, view: str = "") -> Footprints:
    """Returns `n` tokens of one image that stand for no place, such as class tokens, newlines and latents.

    Args:
        n: The number of tokens.
        view: The name of the tokens' view.
    """
    return Footprints(np.full((n, 4), np.nan), None, np.full(n, view), np.zeros(n, int))


def halved_twice(patches: int) -> Float[np.ndarray, " edge"]:
    """Returns the edges, in patches, of what two convolutions of kernel 3, stride 2 and padding 1 make of a line.

    Cell j is centred on patch 4j, the middle of all that it sees; its edges lie halfway to its neighbours' middles.
    The first cell starts and the last one ends with the line.
    """
    cells = (patches + 3) // 4
    return np.concatenate([[0.0], np.arange(1, cells) * 4 - 1.5, [float(patches)]])


def in_corner(
    size: Size,
    box: Window,
    view: Size,
    patch: int,
    grid: tuple[int, int],
    name: str = "",
    *,
    partial: bool = False,
) -> Footprints:
    """Returns the patches of a view that was resized into the upper left corner of a larger canvas.

    Args:
        size: (width, height) of the image.
        box: The window of the image that the view shows.
        view: (width, height) of the view once resized, in pixels of the canvas.
        patch: The side of a patch in these pixels.
        grid: (rows, cols) of the canvas; patches outside the view have no area.
        name: The view's name.
        partial: Whether a patch that crosses the view's edge belongs to the view.
    """
    rows, cols = ((length + (patch - 1) * partial) // patch for length in view[::-1])
    boxes = np.full((*grid, 4), np.nan)
    across, down = (box[2] - box[0]) / view[0], (box[3] - box[1]) / view[1]
    window = (box[0], box[1], box[0] + cols * patch * across, box[1] + rows * patch * down)
    boxes[:rows, :cols] = lay(size, (rows, cols), window).boxes.reshape(rows, cols, 4)
    n = grid[0] * grid[1]
    return Footprints(boxes.reshape(n, 4), None, np.full(n, name), np.zeros(n, int))


def agree(what: str, derived: Any, found: Any, settings: Any) -> None:
    """Raises `ModelError` unless the value derived from the processor's settings equals the one found in the inputs."""
    if derived == found:
        return
    raise ModelError(
        f"{type(settings).__name__}'s settings give {what} {derived}, but the inputs hold {found}. Was the "
        "processor called with settings other than its own? Set them on processor.image_processor instead."
    )


def blank(size: Size) -> np.ndarray:
    """Returns an image of (width, height), channels first, that takes no memory, for functions that want an image."""
    return np.broadcast_to(np.uint8(0), (1, size[1], size[0]))


def pixel_size(settings: Any) -> dict[str, int]:
    """Returns an image processor's `size` without the keys that are not set."""
    return {key: int(value) for key, value in dict(settings.size).items() if value is not None}


def cropped_window(size: Size, pixels: Size, seen: Size, settings: Any) -> Window:
    """Returns the window of the original image under the first `seen` processed pixels, after pad, resize and crop.

    Args:
        size: (width, height) of the original image.
        pixels: (width, height) of the processor's output.
        seen: (width, height) of the whole patches in it.
        settings: The image processor (CLIP's or LLaVA's).

    Raises:
        ModelError: The settings are not supported, or `pixels` does not follow from them.
    """
    canvas = (max(size), max(size)) if getattr(settings, "do_pad", False) else size
    resized = _resized(canvas, settings) if getattr(settings, "do_resize", True) else canvas
    left, top = 0, 0
    final = resized
    if getattr(settings, "do_center_crop", False):
        final = (int(settings.crop_size["width"]), int(settings.crop_size["height"]))
        round_up = getattr(settings, "backend", "torchvision") == "pil"
        left, top = (crop_offset(resized[axis], final[axis], round_up=round_up) for axis in (0, 1))
    if final != pixels:
        raise ModelError(
            f"{type(settings).__name__}'s settings turn a {size[0]}×{size[1]} image into "
            f"{final[0]}×{final[1]} pixels, but pixel_values are {pixels[0]}×{pixels[1]} (width×height). Was "
            "the processor called with settings other than its own? Set them on processor.image_processor "
            "instead."
        )
    x0, y0, x1, y1 = pulled_back((left, top, left + seen[0], top + seen[1]), canvas, resized)
    across, down = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    return x0 - across, y0 - down, x1 - across, y1 - down


def _resized(canvas: Size, settings: Any) -> Size:
    """Returns (width, height) after the resize, in transformers' integer arithmetic."""
    size = pixel_size(settings)
    if set(size) == {"height", "width"}:
        return size["width"], size["height"]
    if set(size) == {"shortest_edge"}:
        return shortest_edge(canvas, size["shortest_edge"])
    raise ModelError(
        f'the llava adapter supports image sizes given as "height" and "width" or as "shortest_edge"; '
        f"{type(settings).__name__} has {size}. Pass adapter= with your own footprints."
    )
