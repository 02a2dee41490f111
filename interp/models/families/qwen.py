"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL (dense, experts): patches merged 2×2 over the squashed image, one grid per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, concatenate, squash
from interp.models.base import Family
from interp.models.resizing import merged_patches, setting

__all__ = ["Qwen2Vl", "Qwen3Vl", "Qwen3VlMoe", "Qwen25Vl"]


class Qwen2Vl(Family):
    """The `qwen2_vl` family. Its rope positions depend on the images' grids; `get_rope_index` computes them."""

    name = "qwen2_vl"
    model_types = ("qwen2_vl",)
    layout = (
        "patches of 14 px merged 2×2, one row-major grid; each axis resized on its own to a multiple of 28 px"
    )
    examples = ("Qwen/Qwen2-VL-7B-Instruct",)
    default_system: ClassVar[str | None] = "You are a helpful assistant."

    def footprints(
        self, sizes: Sequence[tuple[int, int]], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image over the whole image, with as many tokens as its resized pixels hold.

        Raises:
            ModelError: There are videos, the settings differ from the model's, or the grids do not follow from them.
        """
        if inputs.get("video_grid_thw") is not None:
            raise ModelError(f"expected images for {self.name}, got a video; pass its frames as images.")
        patches = [self.patches(size, processor, config) for size in sizes]
        found = [tuple(int(n) for n in grid) for grid in inputs.get("image_grid_thw", ())]
        if found != [(1, rows, cols) for rows, cols in patches]:
            images = ", ".join(f"{width}×{height}" for width, height in sizes) or "no size"
            raise ModelError(
                f"the settings of {type(processor.image_processor).__name__} cut images of {images} "
                f"(width×height) into {patches} (rows, columns) of patches, but image_grid_thw is {found}. Was it "
                "called with settings other than its own? Set them on processor.image_processor."
            )
        merge = setting(processor, "merge_size")
        grids = [(rows // merge, cols // merge) for rows, cols in patches]
        return concatenate([squash(size, grid) for size, grid in zip(sizes, grids, strict=True)])

    def patches(self, size: tuple[int, int], processor: Any, config: Any) -> tuple[int, int]:
        """Returns (rows, columns) of patches of a resized image.

        Raises:
            ModelError: As in `merged_patches`.
        """
        return merged_patches(size, processor, config)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML. The vision tokens around each image separate the rope positions of neighbouring images."""
        system = self.default_system if system is None else system
        head = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
        images = "<|vision_start|><|image_pad|><|vision_end|>" * n_images
        return f"{head}<|im_start|>user\n{images}{text}<|im_end|>\n<|im_start|>assistant\n"


class Qwen25Vl(Qwen2Vl):
    """The `qwen2_5_vl` family: Qwen2-VL's tokens, from a tower that attends in windows."""

    name = "qwen2_5_vl"
    model_types = ("qwen2_5_vl",)
    examples = ("Qwen/Qwen2.5-VL-7B-Instruct", "lingshu-medical-mllm/Lingshu-7B")


class Qwen3Vl(Qwen2Vl):
    """The `qwen3_vl` family. Layers of its tower are also added to the image tokens in the first decoder layers."""

    name = "qwen3_vl"
    model_types = ("qwen3_vl",)
    layout = (
        "patches of 16 px merged 2×2, one row-major grid; each axis resized on its own to a multiple of 32 px"
    )
    examples = ("Qwen/Qwen3-VL-8B-Instruct",)
    default_system = None


class Qwen3VlMoe(Qwen3Vl):
    """The `qwen3_vl_moe` family: Qwen3-VL's tokens; a router gives each of them to a few experts in each layer."""

    name = "qwen3_vl_moe"
    model_types = ("qwen3_vl_moe",)
    examples = ("Qwen/Qwen3-VL-30B-A3B-Instruct",)
