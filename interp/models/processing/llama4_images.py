"""Llama 4's image processor where torchvision is not installed; transformers' own needs it for three operations.

The arithmetic of sizes is transformers' own. Pixels are resized by PIL instead of torch, which moves them by a grey
level or two, then scaled in bfloat16 as the original does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from interp.errors import ModelError
from interp.models.processing.torch_images import module_of

__all__ = ["Llama4ImageProcessorPil", "canvas"]

Size = tuple[int, int]


class Llama4ImageProcessorKwargs(ImagesKwargs, total=False):
    """Settings beside those that all image processors have.

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
    """What `canvas` takes of an image processor, for the arguments of one call."""

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
