"""Idefics2, whose tokens are latents of a resampler; Idefics3 and SmolVLM, whose tokens are places of tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from torch import nn
from transformers.image_utils import SizeDict
from transformers.models.idefics2.image_processing_pil_idefics2 import (
    get_resize_output_image_size as idefics2_size,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, Window, concatenate, in_frames, lay, pulled_back
from interp.inputs.patch_map import Patches
from interp.models.base import Family, Resampler
from interp.models.resizing import agree, blank, in_corner, one_image, pixel_size, whole, without_area
from interp.models.vision_patches import patches_of_latents, split_views

__all__ = ["Idefics2", "Idefics3", "SmolVlm"]


class Idefics3(Family):
    """The `idefics3` family: views "tile", row by row, and "global"; or "global" alone. Patches are merged."""

    name = "idefics3"
    model_types = ("idefics3",)
    layout = "squashed onto rows×cols tiles, each a row-major grid, tiles row by row; then the whole image"
    examples = ("HuggingFaceM4/Idefics3-8B-Llama3", "HuggingFaceTB/SmolVLM-Instruct")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per tile and one for the whole image; a rim that patches do not fill has no token.

        Raises:
            ModelError: The tiles of the inputs do not follow from the image processor's settings.
        """
        if not sizes:
            return concatenate([])
        settings = processor.image_processor
        side = int(settings.max_image_size["longest_edge"])
        splits = [_splits(size, settings, side) for size in sizes]
        shape = (1, sum(1 + rows * cols for rows, cols in splits), 3, side, side)
        agree("tiles of shape", shape, tuple(inputs["pixel_values"].shape), settings)
        cell = int(config.vision_config.patch_size) * int(config.scale_factor)
        return concatenate([_views(*one, side, cell) for one in zip(sizes, splits, strict=True)])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the family's chat format without its first token."""
        return _turns(text, n_images, system)


class SmolVlm(Idefics3):
    """The `smolvlm` family; images as in Idefics3. Each frame of a video is squashed onto one tile."""

    name = "smolvlm"
    model_types = ("smolvlm",)
    examples = ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct")
    video = True

    def video_footprints(
        self, size: Size, n_frames: int, inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid a frame; a rim that patches do not fill has no token.

        Raises:
            ModelError: The frames of the inputs do not follow from the video processor's settings.
        """
        settings = processor.video_processor
        if not settings.do_resize:
            raise ModelError(
                "the smolvlm adapter expects frames to be squashed onto one tile, but the video processor is set not "
                "to resize. Set do_resize to True on processor.video_processor."
            )
        side = int(settings.max_image_size["longest_edge"])
        shape = (1, n_frames, 3, side, side)
        agree("frames of shape", shape, tuple(inputs["pixel_values"].shape), settings)
        cell = int(config.vision_config.patch_size) * int(config.scale_factor)
        n = side // cell
        window = pulled_back((0, 0, n * cell, n * cell), size, (side, side))
        return in_frames(lay(size, (n, n), window), n_frames)


def _turns(text: str, n_images: int, system: str | None) -> str:
    head = "" if system is None else f"System: {system}<end_of_utterance>\n"
    return head + "User:" + "<image>" * n_images + f"{text}<end_of_utterance>\nAssistant:"


def _views(size: Size, split: tuple[int, int], side: int, cell: int) -> Footprints:
    """Returns a grid for each of (rows, cols) tiles and one for the whole image; cells are in pixels of a tile."""
    n = side // cell
    corners, parts = [(c * side, r * side, split) for r in range(split[0]) for c in range(split[1])], []
    for x, y, (rows, cols) in [*corners, (0, 0, (1, 1))]:
        window = pulled_back((x, y, x + n * cell, y + n * cell), size, (cols * side, rows * side))
        parts.append(lay(size, (n, n), window, view="tile" if len(parts) < len(corners) else "global"))
    return one_image(parts)


def _splits(size: Size, settings: Any, side: int) -> tuple[int, int]:
    """Returns (rows, cols) of tiles of `side` pixels, in transformers' integer arithmetic; (0, 0) for a single view."""
    if not settings.do_image_splitting:
        return 0, 0
    edges = pixel_size(settings) if settings.do_resize else {"width": size[0], "height": size[1]}
    if longest := edges.get("longest_edge"):
        edges["height"], edges["width"] = get_resize_output_image_size(blank(size), longest)
    width, height = edges["width"], edges["height"]
    wide, aspect, long = width >= height, width / height, ceil(max(width, height) / side)
    short = ceil(int(long * side / aspect if wide else long * side * aspect) / side)
    splits = (short, long) if wide else (long, short)
    return (0, 0) if splits == (1, 1) else splits


class Idefics2(Family):
    """The `idefics2` family: 64 latents for each view, which stand for no place; views are four quarters and the whole.

    A view keeps its aspect ratio within the limits of the processor and is padded at the right and the bottom to the
    largest of the sample; patches that do not lie wholly in the view are masked and have no footprint.
    """

    name = "idefics2"
    model_types = ("idefics2",)
    maps = "composed"
    layout = (
        "latents of a perceiver resampler, no places; their patches: four quarters, each a row-major grid, then the "
        "whole image; or the whole alone"
    )
    examples = ("HuggingFaceM4/idefics2-8b", "HuggingFaceM4/idefics2-8b-chatty")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns a token without area for each latent of each view; `latent_patches` has the places."""
        n, views = int(processor.image_seq_len), _n_views(processor)
        return concatenate([without_area(n * views, "latent") for _ in sizes])

    def latent_patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the footprint of each patch that the resampler attends to, view by view.

        Raises:
            ModelError: The views of the inputs do not follow from the image processor's settings.
        """
        if not sizes:
            return concatenate([])
        settings, patch = processor.image_processor, int(config.vision_config.patch_size)
        views = [_latent_views(size, settings) for size in sizes]
        pixels = [view for one in views for _, view in one]
        across, down = (max(view[axis] for view in pixels) for axis in (0, 1))
        shape = (1, len(pixels), 3, down, across)
        agree("views of shape", shape, tuple(inputs["pixel_values"].shape), settings)
        grid = (down // patch, across // patch)
        return concatenate(
            [
                one_image(
                    [
                        in_corner(
                            size, box, view, patch, grid, "global" if len(own) == 1 or i == 4 else "tile"
                        )
                        for i, (box, view) in enumerate(own)
                    ]
                )
                for size, own in zip(sizes, views, strict=True)
            ]
        )

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns the patches of each view, those of padding without an area; no latent has patches of its own."""
        found = self.latent_patches(sizes, inputs, processor, config)
        n = len(self.footprints(sizes, inputs, processor, config))
        return patches_of_latents(split_views(found, inputs), n)

    def resampler(self, model: nn.Module) -> Resampler:
        """Returns the perceiver; its layers attend to the patches and, after them, to the latents."""
        found: Any = model.get_submodule("model.connector.perceiver_resampler")
        return Resampler(found, "context", [layer.self_attn for layer in found.layers])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the family's chat format without its first token."""
        return _turns(text, n_images, system)


def _n_views(processor: Any) -> int:
    return 5 if processor.image_processor.do_image_splitting else 1


def _latent_views(size: Size, settings: Any) -> list[tuple[Window, Size]]:
    """Returns each view's window of the image and its (width, height) once resized, in transformers' arithmetic."""
    width, height = size
    x, y = width // 2, height // 2
    boxes: list[Window] = [whole(size)]
    if settings.do_image_splitting:
        boxes = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height), *boxes]
    limits = SizeDict(**pixel_size(settings))
    found = []
    for box in boxes:
        own = (int(box[2] - box[0]), int(box[3] - box[1]))
        rows, cols = idefics2_size(blank(own), limits) if settings.do_resize else own[::-1]
        found.append((box, (int(cols), int(rows))))
    return found
