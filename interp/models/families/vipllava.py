"""ViP-LLaVA: LLaVA's grid of patches, each token made of the features of several layers of its CLIP tower."""

from __future__ import annotations

from typing import Any

from interp.models.families.llava import Llava

__all__ = ["VipLlava"]


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
