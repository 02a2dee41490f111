"""Kimi K2.5: the image shrunk to a number of patches, padded to whole cells at the right and bottom; its processor.

transformers has this image processor for torchvision alone. `KimiImages` makes the same patches with Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay, pulled_back
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.models.base import Family
from interp.models.resizing import agree, setting
from interp.models.vision_patches import merged

__all__ = ["KimiImages", "KimiK25", "fitted_and_padded"]


class KimiK25(Family):
    """The `kimi_k25` family: MoonViT's patches merged 2×2, and a decoder with latent attention (MLA) and experts."""

    name = "kimi_k25"
    model_types = ("kimi_k25",)
    layout = "shrunk to a bound of patches, padded at the right and the bottom, one row-major grid of merged patches"
    examples = ("moonshotai/Kimi-K2.5", "moonshotai/Kimi-K2.6")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image; a cell across the edge of the image keeps the part inside.

        Raises:
            ModelError: There are videos, the settings differ from the model's, or the grids do not follow from them.
        """
        if inputs.get("video_grid_thw") is not None:
            raise ModelError("expected images for kimi_k25, got a video; pass its frames as images.")
        patch, merge = int(setting(processor, "patch_size")), int(setting(processor, "merge_size"))
        vision = config.vision_config
        mine, theirs = (patch, [merge, merge]), (vision.patch_size, list(vision.merge_kernel_size))
        if mine != theirs or not setting(processor, "do_resize"):
            raise ModelError(
                f"kimi_k25's processor has patches of {patch} px, merged {merge}×{merge}, and do_resize="
                f"{setting(processor, 'do_resize')}; the model takes {theirs[0]} px and {theirs[1][0]}×{theirs[1][1]}, "
                "and images that are resized and padded. Set them to the checkpoint's."
            )
        made = [_made(size, processor) for size in sizes]
        found = [tuple(int(n) for n in grid) for grid in inputs.get("image_grid_thw", ())]
        grids = [(1, high // patch, wide // patch) for _, (wide, high) in made]
        agree("grids of (1, rows, columns) of patches", grids, found, processor.image_processor)
        cell, parts = patch * merge, []
        for size, (fitted, (wide, high)) in zip(sizes, made, strict=True):
            window = pulled_back((0, 0, wide, high), size, fitted)
            parts.append(lay(size, (high // cell, wide // cell), window))
        return concatenate(parts)

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each image, row by row, those of its padding without an area.

        Raises:
            ModelError: As `footprints`.
        """
        self.footprints(sizes, inputs, processor, config)
        patch, merge = int(setting(processor, "patch_size")), int(setting(processor, "merge_size"))
        sequences, weights = [], []
        for number, size in enumerate(sizes):
            fitted, (wide, high) = _made(size, processor)
            grid, window = (high // patch, wide // patch), pulled_back((0, 0, wide, high), size, fitted)
            sequences.append(TowerSequence(lay(size, grid, window, image=number)))
            weights.append(merged((grid[0] // merge, grid[1] // merge), merge))
        return Patches(tuple(sequences), (), PatchWeights.stacked(weights))

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Kimi's turns."""
        head = "" if system is None else f"<|im_system|>system<|im_middle|>{system}<|im_end|>"
        images = "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n" * n_images
        user = f"<|im_user|>user<|im_middle|>{images}{text}<|im_end|>"
        return f"{head}{user}<|im_assistant|>assistant<|im_middle|>"


def _made(size: Size, processor: Any) -> tuple[Size, Size]:
    """Returns (width, height) of an image after it is fitted, and after it is padded."""
    patch, merge = int(setting(processor, "patch_size")), int(setting(processor, "merge_size"))
    limits = (int(setting(processor, "max_patches")), int(dict(setting(processor, "size"))["max_height"]))
    return fitted_and_padded(size, patch, merge, *limits)


def fitted_and_padded(size: Size, patch: int, merge: int, most: int, along: int) -> tuple[Size, Size]:
    """Returns (width, height) of an image after it is shrunk to a number of patches, and after padding to whole cells.

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
    """transformers' `Kimi_K25ImageProcessor`, with Pillow's bicubic resize instead of torchvision's."""

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
