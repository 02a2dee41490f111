"""LLaVA-1.5 and everything in transformers' `llava` classes: one square grid per image, row-major."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import nn

from interp.errors import ModelError
from interp.footprints import Footprints, concatenate, crop_offset, lay, pulled_back, shortest_edge

__all__ = ["Llava"]

Size = tuple[int, int]  # (width, height)
# Class tokens a vision tower puts before its patches, by model_type; for others the processor is asked.
_CLASS_TOKENS = {
    "clip_vision_model": 1,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "siglip2_vision_model": 0,
    "siglip_vision_model": 0,
    "vit": 1,
}


class Llava:
    """The `llava` family: a vision tower's patches, projected, in the place of the image tokens."""

    name = "llava"

    def matches(self, config: Any) -> bool:
        """Whether the config is a LlavaConfig (LLaVA-1.5, BakLLaVA, converted LLaVA-Med and Huatuo)."""
        return getattr(config, "model_type", None) == "llava"

    def layers(self, model: nn.Module) -> list[nn.Module]:
        """The language model's layers."""
        return list(model.get_decoder().layers)  # pyright: ignore[reportCallIssue]

    def image_positions(self, input_ids: Any, config: Any) -> Int[np.ndarray, " token"]:
        """Where the ids equal the config's image token."""
        token = getattr(config, "image_token_id", None)
        token = getattr(config, "image_token_index", None) if token is None else token
        return np.flatnonzero(np.asarray(input_ids).reshape(-1) == token)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """One grid per image, through the image processor's own steps: pad, resize, crop.

        Raises:
            ModelError: Settings that are not understood, or that do not lead to the pixel values at hand.
        """
        pixels = (
            [tuple(int(n) for n in image.shape[-2:]) for image in inputs["pixel_values"]] if sizes else []
        )
        if len(pixels) != len(sizes):
            raise ModelError(f"the sample has {len(sizes)} image(s), but pixel_values hold {len(pixels)}.")
        patch = int(config.vision_config.patch_size)
        dropped = _leading(processor, config) - (config.vision_feature_select_strategy == "default")
        parts = []
        for size, (height, width) in zip(sizes, pixels, strict=True):
            grid = (height // patch, width // patch)
            window = _window(
                size, (width, height), (grid[1] * patch, grid[0] * patch), processor.image_processor
            )
            parts.append(_leading_tokens(lay(size, grid, window), dropped))
        return concatenate(parts)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """LLaVA-1.5's vicuna prompt."""
        head = "" if system is None else f"{system} "
        return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"


def _window(size: Size, pixels: Size, seen: Size, settings: Any) -> tuple[float, float, float, float]:
    """The window of the original image under the first `seen` pixels of the processed one."""
    padded = bool(getattr(settings, "do_pad", False))
    canvas = (max(size), max(size)) if padded else size
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
            "the processor called with other settings than it carries? Set them on processor.image_processor "
            "instead."
        )
    x0, y0, x1, y1 = pulled_back((left, top, left + seen[0], top + seen[1]), canvas, resized)
    across, down = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    return x0 - across, y0 - down, x1 - across, y1 - down


def _resized(canvas: Size, settings: Any) -> Size:
    """(width, height) after the resize, in transformers' integer arithmetic."""
    size = {key: value for key, value in dict(settings.size).items() if value is not None}
    if set(size) == {"height", "width"}:
        return int(size["width"]), int(size["height"])
    if set(size) == {"shortest_edge"}:
        return shortest_edge(canvas, int(size["shortest_edge"]))
    raise ModelError(
        f'the llava adapter knows image sizes given as "height" and "width" or as "shortest_edge"; '
        f"{type(settings).__name__} has {size}. Pass adapter= with footprints of your own."
    )


def _leading(processor: Any, config: Any) -> int:
    """How many tokens the vision tower puts before its patches: CLIP's class token, DINOv2's registers."""
    vision = config.vision_config
    if vision.model_type not in _CLASS_TOKENS:
        return int(getattr(processor, "num_additional_image_tokens", 0) or 0)
    return _CLASS_TOKENS[vision.model_type] + int(getattr(vision, "num_register_tokens", 0) or 0)


def _leading_tokens(cells: Footprints, extra: int) -> Footprints:
    """The grid with `extra` tokens without area in front; negative drops cells, as transformers does."""
    if extra == 0:
        return cells
    if extra < 0:
        return Footprints(cells.boxes[-extra:], None, cells.views[-extra:], cells.image[-extra:])
    front = Footprints(np.full((extra, 4), np.nan), None, np.full(extra, "class"), np.zeros(extra, int))
    return concatenate([front, cells], one_image=True)
