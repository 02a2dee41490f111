"""LLaVA-1.5, ViP-LLaVA, FastVLM and all models in transformers' `llava` classes: one row-major grid per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.inputs.patch_map import Patches, PatchWeights, TowerSequence
from interp.inputs.text import count
from interp.models.base import Family
from interp.models.resizing import cropped_window
from interp.models.vision_patches import leading_tokens

__all__ = ["FastVlm", "Llava", "VipLlava"]


# Class tokens a vision tower puts before its patches, by model_type; for others the processor's setting counts.
_CLASS_TOKENS = dict.fromkeys(("clip_vision_model", "dinov2", "dinov2_with_registers", "vit"), 1)
_CLASS_TOKENS |= dict.fromkeys(("siglip_vision_model", "siglip2_vision_model"), 0)


class Llava(Family):
    """The `llava` family: a vision tower's patches, projected (LLaVA-1.5, BakLLaVA, LLaVA-Med, Huatuo, LLaVA-Tri)."""

    name = "llava"
    model_types = ("llava", "interp_llava_s2")
    layout = "one row-major grid of patches; the image centre-cropped, padded or squashed, by its processor's settings"
    examples = ("llava-hf/llava-1.5-7b-hf", "llava-hf/bakLlava-v1-hf")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image, from the image processor's steps: pad, resize, crop.

        Raises:
            ModelError: The settings are not supported, or the pixel values do not follow from them.
        """
        dropped = self.leading(processor, config)
        cells = _cells(sizes, inputs, processor, self.cell(processor, config))
        return concatenate([_leading_tokens(one, dropped) for one in cells])

    def patches(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Patches:
        """Returns one grid per image; a token is a patch, but for class and register tokens that stay in front.

        Raises:
            ModelError: As `footprints`; also of S², whose tower runs several times over an image.
        """
        if getattr(config, "scales", None):
            raise ModelError(
                "with S² (LLaVA-Tri) the vision tower runs over the image at several sizes and the features are "
                "averaged, so a patch belongs to no single token. Its attention cannot be read or edited; read the "
                "language model's."
            )
        dropped = self.leading(processor, config)
        cells = _cells(sizes, inputs, processor, self.cell(processor, config))
        weights = [
            PatchWeights.members(
                [[]] * max(dropped, 0) + [[i] for i in range(max(-dropped, 0), len(one))], len(one)
            )
            for one in cells
        ]
        images = [replace(one, image=np.full(len(one), i)) for i, one in enumerate(cells)]
        return Patches(
            tuple(map(TowerSequence, images)), leading_tokens(config), PatchWeights.stacked(weights)
        )

    def cell(self, processor: Any, config: Any) -> tuple[int, int]:
        """Returns (height, width) of a token in processed pixels.

        S² sees the pixels at several sizes, a token the same place in each. InternViT's config has a patch size for
        each axis.
        """
        scales = getattr(config, "scales", None)
        sides = config.vision_config.patch_size
        down, across = sides if isinstance(sides, tuple | list) else (sides, sides)
        enlarged = scales[-1] // scales[0] if scales else 1
        return int(down) * enlarged, int(across) * enlarged

    def leading(self, processor: Any, config: Any) -> int:
        """Returns how many tokens without a place stand before the grid; below zero, how many cells are dropped."""
        if getattr(config, "scales", None):
            return 0
        return _leading(processor, config) - (config.vision_feature_select_strategy == "default")

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns LLaVA-1.5's vicuna prompt."""
        head = "" if system is None else f"{system} "
        return head + "USER: " + "<image>\n" * n_images + text + " ASSISTANT:"


def _cells(
    sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, cell: tuple[int, int]
) -> list[Footprints]:
    """Returns each image's grid of cells of (height, width) processed pixels.

    Raises:
        ModelError: The settings are not supported, or the pixel values do not follow from them.
    """
    values = inputs.get("pixel_values")
    pixels = [tuple(values.shape[-2:])] * len(values) if sizes and values is not None else []
    if len(pixels) != len(sizes):
        raise ModelError(f"the sample has {count(len(sizes), 'image')}, but pixel_values hold {len(pixels)}.")
    down, across = cell
    parts = []
    for size, (height, width) in zip(sizes, pixels, strict=True):
        grid = (height // down, width // across)
        seen = (grid[1] * across, grid[0] * down)
        parts.append(lay(size, grid, cropped_window(size, (width, height), seen, processor.image_processor)))
    return parts


def _leading(processor: Any, config: Any) -> int:
    """Returns how many tokens the vision tower puts before its patches: CLIP's class token, DINOv2's registers."""
    vision = config.vision_config
    if vision.model_type not in _CLASS_TOKENS:
        return int(getattr(processor, "num_additional_image_tokens", 0) or 0)
    return _CLASS_TOKENS[vision.model_type] + int(getattr(vision, "num_register_tokens", 0) or 0)


def _leading_tokens(cells: Footprints, extra: int) -> Footprints:
    """Returns the grid with `extra` tokens without area in front; a negative number drops cells."""
    if extra <= 0:
        return (
            cells
            if not extra
            else Footprints(cells.boxes[-extra:], None, cells.views[-extra:], cells.image[-extra:])
        )
    front = Footprints(np.full((extra, 4), np.nan), None, np.full(extra, "class"), np.zeros(extra, int))
    return concatenate([front, cells], one_image=True)


class VipLlava(Llava):
    """The `vipllava` family: the layers' features of a patch are joined side by side, so a token is still one patch."""

    name = "vipllava"
    model_types = ("vipllava",)
    layout = (
        "one row-major grid of patches, each with the features of five layers; centre-cropped, padded or squashed, by "
        "its processor's settings"
    )
    examples = ("llava-hf/vip-llava-7b-hf", "llava-hf/vip-llava-13b-hf")

    def leading(self, processor: Any, config: Any) -> int:
        """Returns 0: the model always drops its tower's first token, whatever the processor counts."""
        return 0

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ViP-LLaVA's prompt."""
        head = "" if system is None else f"{system}###"
        return f"{head}Human: " + "<image>\n" * n_images + f"{text}###Assistant:"


class FastVlm(Llava):
    """The `fast_vlm` family: LLaVA's processor, and a tower whose stride the processor knows as its `patch_size`."""

    name = "fast_vlm"
    model_types = ("fast_vlm",)
    layout = "one row-major grid of a tower of convolutions; the image cropped, padded or squashed, by its processor"
    examples = ("KamilaMila/FastVLM-0.5B", "KamilaMila/FastVLM-7B")
    unread_tower = "it is made of convolutions and of attention in timm's own code"
    token_stride = 64
    """Pixels of a token's side in the published checkpoints, which no config names: what errors tell to set."""

    def cell(self, processor: Any, config: Any) -> tuple[int, int]:
        """Returns the tower's stride, in pixels; its config does not name it."""
        stride = getattr(processor, "patch_size", None)
        if not isinstance(stride, int) or stride < 1:
            raise ModelError(
                "fast_vlm's processor counts tokens by its patch_size, the stride of the tower in pixels; it is "
                f"{stride!r}. Set processor.patch_size (FastVLM's: {self.token_stride})."
            )
        return stride, stride

    def leading(self, processor: Any, config: Any) -> int:
        """Returns 0: the tower has no class token."""
        return 0

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML."""
        system = "You are a helpful assistant." if system is None else system
        head = f"<|im_start|>system\n{system}<|im_end|>\n"
        return (
            f"{head}<|im_start|>user\n"
            + "<image>\n" * n_images
            + f"{text}<|im_end|>\n<|im_start|>assistant\n"
        )
