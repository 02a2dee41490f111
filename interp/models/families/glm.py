"""GLM-4.1V, GLM-4.5V and GLM-4.6V: patches merged 2×2 over the squashed image, one row-major grid per image."""

from __future__ import annotations

from typing import Any

from transformers.models.glm4v.image_processing_pil_glm4v import smart_resize

from interp.models.families.qwen import Qwen2Vl
from interp.models.resizing import merged_patches, setting

__all__ = ["Glm4v", "Glm4vMoe", "Glm46V"]


class Glm4v(Qwen2Vl):
    """The `glm4v` family: Qwen2-VL's grid; the limits count the pixels of both frames that an image is repeated to."""

    name = "glm4v"
    model_types = ("glm4v",)
    layout = (
        "patches of 14 px merged 2×2, one row-major grid; each axis resized on its own to a multiple of 28 px; the "
        "limits count an image's pixels twice"
    )
    video = False
    examples = ("zai-org/GLM-4.1V-9B-Thinking",)
    default_system = None

    def grid_of(self, size: tuple[int, int], processor: Any, config: Any) -> tuple[int, int]:
        """Returns (rows, columns) of patches of a resized image, in GLM's own arithmetic.

        Raises:
            ModelError: As in `merged_patches`.
        """
        frames = setting(processor, "temporal_patch_size")

        def resize(height: int, width: int, block: int, fewest: int, most: int) -> tuple[int, int]:
            return smart_resize(frames, height, width, frames, block, fewest, most)

        return merged_patches(size, processor, config, resize)

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns GLM's turns, each image between its begin and end tokens."""
        head = "" if system is None else f"<|system|>\n{system}"
        images = "<|begin_of_image|><|image|><|end_of_image|>" * n_images
        return f"[gMASK]<sop>{head}<|user|>\n{images}{text}<|assistant|>\n"


class Glm46V(Glm4v):
    """The `glm46v` family: GLM-4.1V's image part and decoder under another class."""

    name = "glm46v"
    model_types = ("glm46v",)
    examples = ("zai-org/GLM-4.6V-Flash",)


class Glm4vMoe(Glm4v):
    """The `glm4v_moe` family: after a first dense layer a router gives each token to some of the experts."""

    name = "glm4v_moe"
    model_types = ("glm4v_moe",)
    examples = ("zai-org/GLM-4.5V",)
