"""Idefics2: latents of a perceiver resampler stand in the prompt; its attention says which patches they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn
from transformers.image_utils import SizeDict
from transformers.models.idefics2.image_processing_pil_idefics2 import get_resize_output_image_size

from interp.inputs.footprints import Footprints, Size, Window, concatenate
from interp.inputs.patch_map import Patches
from interp.models.base import Family, Resampler
from interp.models.resizing import agree, blank, in_corner, one_image, pixel_size, whole
from interp.models.vision_patches import patches_of_latents, split_views

__all__ = ["Idefics2"]


class Idefics2(Family):
    """The `idefics2` family: 64 latents for each view, which are no places; patches of four quarters and the whole.

    A view keeps its aspect ratio within the limits of the processor and is padded at the right and the bottom to the
    largest of the sample; patches that are not wholly of the view are masked and have no footprint.
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
        latents = [
            Footprints(
                np.full((n * views, 4), np.nan), None, np.full(n * views, "latent"), np.zeros(n * views, int)
            )
            for _ in sizes
        ]
        return concatenate(latents)

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
        views = [_views(size, settings) for size in sizes]
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
        """Returns the patches of each view, those of padding without an area; no latent is made of them one by one."""
        found = self.latent_patches(sizes, inputs, processor, config)
        n = len(self.footprints(sizes, inputs, processor, config))
        return patches_of_latents(split_views(found, inputs), n)

    def resampler(self, model: nn.Module) -> Resampler:
        """Returns the perceiver; its layers attend to the patches and, after them, to the latents."""
        found: Any = model.get_submodule("model.connector.perceiver_resampler")
        return Resampler(found, "context", [layer.self_attn for layer in found.layers])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the family's chat format without its first token."""
        head = "" if system is None else f"System: {system}<end_of_utterance>\n"
        return head + "User:" + "<image>" * n_images + f"{text}<end_of_utterance>\nAssistant:"


def _n_views(processor: Any) -> int:
    return 5 if processor.image_processor.do_image_splitting else 1


def _views(size: Size, settings: Any) -> list[tuple[Window, Size]]:
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
        rows, cols = get_resize_output_image_size(blank(own), limits) if settings.do_resize else own[::-1]
        found.append((box, (int(cols), int(rows))))
    return found
