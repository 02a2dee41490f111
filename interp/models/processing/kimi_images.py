"""Kimi's image processor without torchvision, and the arithmetic of its sizes.

transformers has this image processor for torchvision alone. `KimiImages` makes the same patches with Pillow.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from interp.inputs.footprints import Size

__all__ = ["KimiImages", "fitted_and_padded"]


def fitted_and_padded(size: Size, patch: int, merge: int, most: int, along: int) -> tuple[Size, Size]:
    """Returns (width, height) of an image that is shrunk to a number of patches, and of the whole cells around it.

    An image is never enlarged. Its padding is at the right and at the bottom.

    Args:
        size: (width, height) of the original image.
        patch: The side of a patch, in pixels.
        merge: The side of a cell, in patches.
        most: The most patches of an image.
        along: The most patches along a side.

    Source: transformers' `navit_resize` (models/kimi_k25), which cannot be imported without torchvision.
    """
    width, height = size
    patches = max(1, height // patch) * max(1, width // patch)
    scale = min(1.0, sqrt(most / patches), along * patch / height, along * patch / width)
    fitted = tuple(min(max(1, int(length * scale)), along * patch) for length in size)
    cell = patch * merge
    padded = tuple(-(-length // cell) * cell for length in fitted)
    return (fitted[0], fitted[1]), (padded[0], padded[1])


class KimiImagesKwargs(ImagesKwargs, total=False):
    """The settings of `KimiImages` besides those of every image processor."""

    max_patches: int
    patch_size: int
    merge_size: int


class KimiImages(PilBackend):
    """transformers' `Kimi_K25ImageProcessor`, with Pillow's bicubic resize in the place of torchvision's."""

    resample = PILImageResampling.BICUBIC
    size = {"max_height": 512, "max_width": 512}  # noqa: RUF012 - as transformers' classes have it
    max_patches = 16384
    patch_size = 14
    merge_size = 2
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    image_mean = (0.5, 0.5, 0.5)
    image_std = (0.5, 0.5, 0.5)
    valid_kwargs = KimiImagesKwargs
    model_input_names = ["pixel_values", "image_grid_thw"]  # noqa: RUF012

    def _preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, images: list[np.ndarray], *, return_tensors: Any = None, **how: Any
    ) -> BatchFeature:
        """Returns the patches of all images, (patch, channel, row, col), and their grids (1, rows, cols)."""
        patch, found, grids = how["patch_size"], [], []
        for image in images:
            pixels = self._fitted(image, how) if how["do_resize"] else image
            if how["do_rescale"]:
                pixels = self.rescale(pixels, how["rescale_factor"])
            if how["do_normalize"]:
                pixels = self.normalize(pixels, how["image_mean"], how["image_std"])
            channels, height, width = pixels.shape
            rows, cols = height // patch, width // patch
            cut = pixels.reshape(channels, rows, patch, cols, patch).transpose(1, 3, 0, 2, 4)
            found.append(cut.reshape(rows * cols, channels, patch, patch))
            grids.append([1, rows, cols])
        data = {"pixel_values": np.concatenate(found), "image_grid_thw": np.array(grids)}
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _fitted(self, image: np.ndarray, how: dict[str, Any]) -> np.ndarray:
        """Returns an image (channel, row, col) after the resize and the padding with black."""
        limits = (how["patch_size"], how["merge_size"], how["max_patches"], how["size"].max_height)
        (width, height), (wide, high) = fitted_and_padded((image.shape[2], image.shape[1]), *limits)
        resized = self.resize(image, SizeDict(height=height, width=width), resample=how["resample"])
        padded: Any = self.pad([resized], pad_size=SizeDict(height=high, width=wide))
        return padded[0]
