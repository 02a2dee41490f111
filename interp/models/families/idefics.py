"""Idefics3 and SmolVLM: the image is squashed onto rows×cols tiles and then, as a whole, onto one tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, in_frames, lay, pulled_back
from interp.models.base import Family
from interp.models.resizing import agree, blank, one_image, pixel_size

__all__ = ["Idefics3", "SmolVlm"]


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
        head = "" if system is None else f"System: {system}<end_of_utterance>\n"
        return head + "User:" + "<image>" * n_images + f"{text}<end_of_utterance>\nAssistant:"


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
