"""FastVLM: a tower of convolutions whose map of features has one token for a large square of pixels."""

from __future__ import annotations

from typing import Any

from interp.errors import ModelError
from interp.models.families.llava import Llava

__all__ = ["FastVlm"]


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
