"""Llama 3.2 Vision (Mllama), whose image lies outside the sequence, and Llama 4, whose tiles lie in it.

transformers' image processor of Llama 4 needs torchvision. `Llama4ImageProcessorPil` serves where that is missing. Its
sizes are transformers' own. PIL resizes its pixels instead of torch, which moves them by a grey level or two; they are
then scaled in bfloat16, as the original does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.models.mllama.image_processing_pil_mllama import (
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)
from transformers.processing_utils import ImagesKwargs

from interp.errors import ModelError
from interp.inputs.footprints import CrossKeys, Footprints, Size, concatenate, lay, pulled_back
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family
from interp.models.resizing import agree, check_views, one_image, pixel_size, whole, without_area
from interp.models.vision_patches import merged, split_views
from interp.models.without_torchvision import module_of

__all__ = ["Llama4", "Llama4ImageProcessorPil", "Mllama", "canvas"]


class Llama4(Family):
    """The `llama4` family: view "tile" with a grid per tile, and after several tiles view "global" of the whole image.

    The separators between tiles and the marks around them have ids of their own, so they are no image tokens.
    """

    name = "llama4"
    model_types = ("llama4",)
    layout = (
        "fitted into a canvas of square tiles and padded right and below, each tile a row-major grid; after several "
        "tiles the whole image, squashed"
    )
    examples = ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "meta-llama/Llama-4-Maverick-17B-128E-Instruct")

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """Returns the language model's layers, which lie one module deeper than in other families."""
        return list(model.get_decoder().model.layers)  # pyright: ignore[reportCallIssue]

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the tiles row by row, then the whole. Tokens that see only padding have no footprint.

        Raises:
            ModelError: The tiles are not the model's, or the pixel values do not follow from the settings.
        """

        if not sizes:
            return concatenate([])
        settings = processor.image_processor
        side, tokens = _tile(processor, config)
        laid = [canvas(size, settings) for size in sizes]
        counts = [rows * cols + (rows * cols > 1) for (rows, cols), _ in laid]
        check_views(inputs, [(side, side)] * sum(counts), sizes, processor)
        return concatenate([_views(size, *one, side, tokens) for size, one in zip(sizes, laid, strict=True)])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns each tile's patches, one sequence with a class token behind it; k×k patches make a token."""

        side, tokens = _tile(processor, config)
        k = round(1 / config.vision_config.pixel_shuffle_ratio)
        laid = [(size, *canvas(size, processor.image_processor)) for size in sizes]
        tiles = split_views(concatenate([_views(*one, side, tokens * k) for one in laid]), inputs)
        weights = PatchWeights.stacked([merged((tokens, tokens), k)] * len(tiles))
        return Patches(tuple(map(TowerSequence, tiles)), ("cls",), weights, at_end=True)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Llama 4's turns; the processor writes an image's tiles in the place of its token."""
        turns = [] if system is None else [f"<|header_start|>system<|header_end|>\n\n{system}<|eot|>"]
        turns.append(f"<|header_start|>user<|header_end|>\n\n{'<|image|>' * n_images}{text}<|eot|>")
        return "<|begin_of_text|>" + "".join(turns) + "<|header_start|>assistant<|header_end|>\n\n"


def _tile(processor: Any, config: Any) -> tuple[int, int]:
    """Returns the side of a tile in pixels and in tokens."""
    size, vision = processor.image_processor.size, config.vision_config
    patches, ratio = int(size["height"]) // vision.patch_size, vision.pixel_shuffle_ratio
    own = (vision.image_size, vision.image_size, round(1 / ratio**2))
    found = (int(size["height"]), int(size["width"]), processor.downsample_ratio)
    if own != found or int(patches * ratio) != patches * ratio:
        raise ModelError(
            f"llama4's model takes tiles of {own[0]}×{own[1]} px and merges {own[2]} patches of {vision.patch_size} px "
            f"into a token; the processor makes tiles of {found[0]}×{found[1]} px and counts {found[2]} patches a "
            "token. Set processor.image_processor.size, or pass the processor of this checkpoint."
        )
    return found[0], int(patches * ratio)


def _views(size: Size, grid: tuple[int, int], fitted: Size, side: int, tokens: int) -> Footprints:
    """Returns the tokens of one image."""
    cells, tiles = (tokens, tokens), []
    for row, col in product(range(grid[0]), range(grid[1])):
        window = (col * side, row * side, (col + 1) * side, (row + 1) * side)
        tiles.append(lay(size, cells, pulled_back(window, size, fitted), view="tile"))
    if len(tiles) == 1:
        return one_image(tiles)
    return one_image([*tiles, lay(size, cells, whole(size), view="global")])


class Llama4ImageProcessorKwargs(ImagesKwargs, total=False):
    """The settings of `Llama4ImageProcessorPil` besides those of every image processor.

    Attributes:
        max_patches: The most tiles that an image is cut into.
        resize_to_max_canvas: Whether an image is enlarged as far as its canvas of tiles allows.
    """

    max_patches: int
    resize_to_max_canvas: bool


def canvas(size: Size, settings: Any) -> tuple[tuple[int, int], Size]:
    """Returns the canvas that an image is laid on, and the size it is resized to first.

    Args:
        size: (width, height) of the image.
        settings: The image processor, transformers' or the one here.

    Returns:
        (rows, columns) of tiles, and (width, height) of the resized image, which lies at the canvas's top left.
    """
    own, (width, height) = module_of("llama4.image_processing_llama4"), size
    tile = SizeDict(height=int(settings.size["height"]), width=int(settings.size["width"]))
    largest = bool(settings.resize_to_max_canvas)
    possible = torch.tensor(
        own.find_supported_resolutions(max_num_chunks=settings.max_patches, patch_size=tile)
    )
    target = own.get_best_fit((height, width), possible, resize_to_max_canvas=largest).tolist()
    side = int(tile.height or 0)
    room = [min(max(n, side), most) for n, most in zip((height, width), target, strict=True)]
    high, wide = own.get_max_res_without_distortion((height, width), tuple(target if largest else room))
    return (target[0] // side, target[1] // side), (max(int(wide), 1), max(int(high), 1))


class Llama4ImageProcessorPil(PilBackend):
    """An image laid on the canvas of square tiles that distorts nothing and wastes least, then squashed as a whole."""

    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]  # noqa: RUF012 - transformers' way
    image_std = [0.5, 0.5, 0.5]  # noqa: RUF012
    size = {"height": 336, "width": 336}  # noqa: RUF012
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    max_patches = 16
    resize_to_max_canvas = False
    valid_kwargs = Llama4ImageProcessorKwargs

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)

    def _preprocess(  # pyright: ignore[reportIncompatibleMethodOverride] - as transformers' own do
        self,
        images: Sequence[np.ndarray],
        do_resize: bool,
        size: SizeDict,
        resample: Any,
        return_tensors: Any,
        **options: Any,
    ) -> BatchFeature:
        """Returns the tiles of every image, each image's squashed whole after several, and (rows, columns) of tiles."""
        if not do_resize:
            raise ModelError(
                "Llama 4 always lays images on a canvas of tiles, so do_resize=False is not possible. Leave do_resize "
                "at True."
            )
        views: list[np.ndarray] = []
        grids = []
        for image in images:
            settings = _Settings(size, options["max_patches"], options["resize_to_max_canvas"])
            (rows, cols), (wide, high) = canvas((image.shape[2], image.shape[1]), settings)
            side = int(size["height"])
            fitted = self.resize(image, SizeDict(height=high, width=wide), resample)
            padded = np.pad(fitted, [(0, 0), (0, rows * side - high), (0, cols * side - wide)])
            tiles = padded.reshape(-1, rows, side, cols, side).transpose(1, 3, 0, 2, 4)
            views += list(tiles.reshape(-1, *tiles.shape[2:]))
            if rows * cols > 1:
                views.append(self.resize(image, SizeDict(height=side, width=side), resample))
            grids.append([rows, cols])
        pixels = _scaled(np.stack(views), options)
        return BatchFeature(
            {"pixel_values": pixels, "aspect_ratios": np.array(grids)}, tensor_type=return_tensors
        )


class _Settings:
    """The settings that `canvas` reads of an image processor, for the arguments of one call."""

    def __init__(self, size: Any, max_patches: int, resize_to_max_canvas: bool) -> None:
        self.size, self.max_patches, self.resize_to_max_canvas = size, max_patches, resize_to_max_canvas


def _scaled(views: np.ndarray, options: Any) -> Float[np.ndarray, "view channel row col"]:
    """The pixels scaled and normalised in bfloat16, as the original does where it does both; then as float32."""
    scales, normalises = options["do_rescale"], options["do_normalize"]
    kind = torch.bfloat16 if scales and normalises else torch.float32
    pixels = torch.from_numpy(np.ascontiguousarray(views)).to(kind)
    if scales:
        pixels = pixels * options["rescale_factor"]
    if normalises:
        mean, std = (
            torch.tensor(options[name], dtype=kind)[:, None, None] for name in ("image_mean", "image_std")
        )
        pixels = (pixels - mean) / std
    return pixels.float().numpy()


class Mllama(Family):
    """The `mllama` family: view "tile", row by row; in each a class token without a place, then a row-major grid.

    The image is fitted into a canvas of tiles, in its upper left corner; the rest of the canvas is padding. In
    transformers a row before the first image sees every key, those of padding too.
    """

    name = "mllama"
    model_types = ("mllama",)
    maps = "cross"
    layout = (
        "outside of the sequence: fitted into the corner of a canvas of up to 4 tiles, tiles row by row, in each a "
        "class token and a row-major grid"
    )
    examples = ("meta-llama/Llama-3.2-11B-Vision-Instruct", "meta-llama/Llama-3.2-90B-Vision-Instruct")
    unread_tower = (
        "its layers attend over all tiles of an image at once, with a class token and padding after each"
    )

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns each tile's class token and grid; patches of padding, and padding tiles, have no footprint or token.

        Raises:
            ModelError: The tiles of the inputs do not follow from the image processor's settings.
        """
        if not sizes:
            return concatenate([])
        settings, vision = processor.image_processor, config.vision_config
        side, most = pixel_size(settings)["height"], int(settings.max_image_tiles)
        agree("the side of a tile", side, int(vision.image_size), settings)
        shape = (1, len(sizes), most, 3, side, side)
        agree("tiles of shape", shape, tuple(inputs["pixel_values"].shape), settings)
        canvases = [_canvas(size, side, most) for size in sizes]
        counts = [rows * cols for (rows, cols), _ in canvases]
        agree("tiles of the images", counts, inputs["aspect_ratio_mask"][0].sum(-1).tolist(), settings)
        patch = int(vision.patch_size)
        return concatenate([_tiles(*one, side, patch) for one in zip(sizes, canvases, strict=True)])

    def cross_keys(
        self, inputs: Mapping[str, Any], placeholders: Int[np.ndarray, " image"], config: Any
    ) -> tuple[Int[np.ndarray, " token"], CrossKeys]:
        """Returns the columns of the image tokens, those of tiles that are no padding, and what each row sees."""
        vision = config.vision_config
        width = (int(vision.image_size) // int(vision.patch_size)) ** 2 + 1
        length = inputs["input_ids"].shape[1]
        if "cross_attention_mask" not in inputs:
            return np.empty(0, int), CrossKeys(placeholders, np.zeros((length, 0), bool), width)
        blocks = inputs["cross_attention_mask"][0].reshape(length, -1).numpy() > 0
        tiles = inputs["aspect_ratio_mask"][0].reshape(-1).numpy() > 0
        blocks[~blocks.any(axis=1)] = True
        columns = np.flatnonzero(np.repeat(tiles, width))
        return columns, CrossKeys(placeholders, blocks, width)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the images and then the text, as a base model takes them; the processor adds the first token."""
        head = "" if system is None else f"{system}\n"
        return "<|image|>" * n_images + head + text


def _canvas(size: Size, side: int, most: int) -> tuple[tuple[int, int], Size]:
    """Returns (rows, cols) of tiles, and (width, height) of the image fitted into them, by transformers' arithmetic."""
    width, height = size
    down, across = (int(n) for n in get_optimal_tiled_canvas(height, width, most, side))
    fitted = get_image_size_fit_to_canvas(height, width, down, across, side)
    return (down // side, across // side), (int(fitted[1]), int(fitted[0]))


def _tiles(size: Size, canvas: tuple[tuple[int, int], Size], side: int, patch: int) -> Footprints:
    """Returns a class token and a grid for each tile; patches are in pixels of the canvas."""
    (rows, cols), fitted = canvas
    n = side // patch
    parts = []
    for row in range(rows):
        for col in range(cols):
            x, y = col * side, row * side
            window = pulled_back((x, y, x + n * patch, y + n * patch), size, fitted)
            parts += [without_area(1, "tile"), lay(size, (n, n), window, view="tile")]
    return one_image(parts)
