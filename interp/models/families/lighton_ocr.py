"""LightOnOCR: Pixtral's merged patches over the squashed page, as in Mistral 3, without line breaks between rows."""

from __future__ import annotations

from typing import Any

from interp.models.families.mistral3 import Mistral3
from interp.models.resizing import setting

__all__ = ["LightOnOcr"]


class LightOnOcr(Mistral3):
    """The `lighton_ocr` family: both edges are rounded up to patches; odd patches at the end are not merged."""

    name = "lighton_ocr"
    model_types = ("lighton_ocr",)
    layout = "longest edge bounded, both edges rounded up to patches, one row-major grid of merged patches"
    examples = ("lightonai/LightOnOCR-1B-1025",)

    def rounded_to(self, processor: Any, cell: int) -> tuple[int, int]:
        """Returns the image processor's own patch size, which its processor leaves as it is."""
        patch = setting(processor, "patch_size")
        return int(patch["height"]), int(patch["width"])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns ChatML."""
        head = "" if system is None else f"<|im_start|>system\n{system}<|im_end|>\n"
        images = "<|image_pad|>" * n_images
        return f"{head}<|im_start|>user\n{images}{text}<|im_end|>\n<|im_start|>assistant\n"
