"""Aria: learned queries attend to the patches of a view in the projector; their attention says what they have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, Window, concatenate, pulled_back
from interp.inputs.patch_map import Patches
from interp.models.base import Family, Resampler, chatml
from interp.models.resizing import blank, check_views, in_corner, one_image, setting, whole, without_area
from interp.models.vision_patches import patches_of_latents, split_views

__all__ = ["Aria"]


class Aria(Family):
    """The `aria` family: 128 queries for a view of 490 px, 256 for one of 980; they stand for no place.

    A view's longer side is resized to that size, and the rest is padded at the right and the bottom; patches of padding
    are masked and have no footprint. With `split_image` the views are tiles of a canvas of the best of several shapes.
    """

    name = "aria"
    model_types = ("aria",)
    maps = "composed"
    layout = (
        "queries of the projector, no places; their patches: one row-major grid of the whole image, fitted into a "
        "corner of 980 px and padded; or of each tile, with split_image"
    )
    examples = ("rhymes-ai/Aria", "rhymes-ai/Aria-Chat")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns a token without area for each query of each view; `latent_patches` has the places.

        Raises:
            ModelError: The model has no number of queries for the processor's views.
        """
        side = int(setting(processor, "max_image_size"))
        patches = (side // int(config.vision_config.patch_size)) ** 2
        known = config.projector_patch_to_query_dict
        if patches not in known:
            raise ModelError(
                f"aria's processor makes views of {side} px, {patches} patches; the model has queries for "
                f"{', '.join(map(str, known))} patches. Set processor.image_processor.max_image_size."
            )
        n = known[patches]
        return concatenate([without_area(n * len(_views(size, processor)), "latent") for size in sizes])

    def latent_patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns the footprint of each patch that the queries attend to, view by view.

        Raises:
            ModelError: The views of the inputs do not follow from the image processor's settings.
        """
        if not sizes:
            return concatenate([])
        side, patch = int(setting(processor, "max_image_size")), int(config.vision_config.patch_size)
        views = [_views(size, processor) for size in sizes]
        check_views(inputs, [(side, side)] * sum(map(len, views)), sizes, processor)
        grid = (side // patch, side // patch)
        name = "tile" if setting(processor, "split_image") else ""
        return concatenate(
            [
                one_image([in_corner(size, box, view, patch, grid, name, partial=True) for box, view in own])
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
        """Returns the projector, in which the queries attend to the patches once."""
        found: Any = model.get_submodule("model.multi_modal_projector")
        own = [found.cross_attn.multihead_attn]
        return Resampler(found, "key_value_states", own, attends_to_latents=False)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns the family's chat format."""
        return chatml("<fim_prefix><|img|><fim_suffix>" * n_images + text, system)


def _views(size: Size, processor: Any) -> list[tuple[Window, Size]]:
    """Returns each view's window of the image and its (width, height) once resized, in transformers' arithmetic."""
    side, least = int(setting(processor, "max_image_size")), int(setting(processor, "min_image_size"))
    if not setting(processor, "split_image"):
        return [(whole(size), _resized(size, side, least))]
    high, wide = select_best_resolution((size[1], size[0]), setting(processor, "split_resolutions"))
    fitted_high, fitted_wide = get_patch_output_size(blank(size), (high, wide), ChannelDimension.FIRST)
    left, top = (wide - fitted_wide) // 2, (high - fitted_high) // 2
    found = []
    for y in range(0, high, side):
        for x in range(0, wide, side):
            x1, y1 = min(x + side, wide), min(y + side, high)
            window = pulled_back((x - left, y - top, x1 - left, y1 - top), size, (fitted_wide, fitted_high))
            found.append((window, _resized((x1 - x, y1 - y), side, least)))
    return found


def _resized(size: Size, side: int, least: int) -> Size:
    """Returns (width, height) of a view: the longer side is `side`, the other at least `least`."""
    scale = side / max(size)
    if size[0] >= size[1]:
        return side, max(int(size[1] * scale), least)
    return max(int(size[0] * scale), least), side
