"""LLaVA-1.5 and everything in transformers' `llava` classes: one grid per image, row-major."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.models.base import Family
from interp.models.geometry import cropped_window

__all__ = ["Llava"]

# Class tokens a vision tower puts before its patches, by model_type; for others the processor is asked.
_CLASS_TOKENS = dict.fromkeys(("clip_vision_model", "dinov2", "dinov2_with_registers", "vit"), 1)
_CLASS_TOKENS |= dict.fromkeys(("siglip_vision_model", "siglip2_vision_model"), 0)


class Llava(Family):
    """The `llava` family: a vision tower's patches, projected (LLaVA-1.5, BakLLaVA, LLaVA-Med, Huatuo, LLaVA-Tri)."""

    name = "llava"
    model_types = ("llava", "interp_llava_s2")
    layout = (
        "one row-major grid of patches; the image centre-cropped, padded or squashed as its processor is set"
    )
    examples = ("llava-hf/llava-1.5-7b-hf", "llava-hf/bakLlava-v1-hf")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """One grid per image, through the image processor's own steps: pad, resize, crop.

        Raises:
            ModelError: Settings that are not understood, or that do not lead to the pixel values at hand.
        """
        pixels = [tuple(int(n) for n in view.shape[-2:]) for view in inputs.get("pixel_values", ()) if sizes]
        if len(pixels) != len(sizes):
            raise ModelError(f"the sample has {len(sizes)} image(s), but pixel_values hold {len(pixels)}.")
        scales = getattr(
            config, "scales", None
        )  # S² sees the pixels at several sizes, a token the same place in each
        patch = int(config.vision_config.patch_size) * (scales[-1] // scales[0] if scales else 1)
        dropped = _leading(processor, config) - (config.vision_feature_select_strategy == "default")
        dropped = 0 if scales else dropped
        parts = []
        for size, (height, width) in zip(sizes, pixels, strict=True):
            grid = (height // patch, width // patch)
            seen = (grid[1] * patch, grid[0] * patch)
            window = cropped_window(size, (width, height), seen, processor.image_processor)
            parts.append(_leading_tokens(lay(size, grid, window), dropped))
        return concatenate(parts)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """LLaVA-1.5's vicuna prompt."""
        head = "" if system is None else f"{system} "
        return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"


def _leading(processor: Any, config: Any) -> int:
    """How many tokens the vision tower puts before its patches: CLIP's class token, DINOv2's registers."""
    vision = config.vision_config
    if vision.model_type not in _CLASS_TOKENS:
        return int(getattr(processor, "num_additional_image_tokens", 0) or 0)
    return _CLASS_TOKENS[vision.model_type] + int(getattr(vision, "num_register_tokens", 0) or 0)


def _leading_tokens(cells: Footprints, extra: int) -> Footprints:
    """The grid with `extra` tokens without area in front; negative drops cells, as transformers does."""
    if extra <= 0:
        return (
            cells
            if not extra
            else Footprints(cells.boxes[-extra:], None, cells.views[-extra:], cells.image[-extra:])
        )
    front = Footprints(np.full((extra, 4), np.nan), None, np.full(extra, "class"), np.zeros(extra, int))
    return concatenate([front, cells], one_image=True)
