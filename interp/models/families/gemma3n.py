"""Gemma 3n: the squashed image becomes a square grid of features of a tower of convolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay
from interp.models.base import Family
from interp.models.resizing import check_views, squashed_size, whole

__all__ = ["Gemma3n"]


class Gemma3n(Family):
    """The `gemma3n` family. Its tower, MobileNet-V5, comes from timm; it pools its features to a square grid.

    Between its layers a token is four streams (AltUp), see `interp.tracing.layers.stacked_streams`. The last layers use
    earlier layers' keys.
    """

    name = "gemma3n"
    model_types = ("gemma3n",)
    layout = "the image squashed to a square (768 px), one row-major grid of a tower of convolutions (16×16)"
    examples = ("google/gemma-3n-E2B-it", "google/gemma-3n-E4B-it")
    unread_tower = "it is made of convolutions and of attention in timm's own code"

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image over the whole image.

        Raises:
            ModelError: The number of tokens is no square or not the processor's, the settings are not supported, or
                the pixel values do not follow from them.
        """
        n, own = int(config.vision_soft_tokens_per_image), int(processor.image_seq_length)
        side = isqrt(n)
        if side**2 != n or n != own:
            raise ModelError(
                f"gemma3n's images become a square grid of tokens; the config's vision_soft_tokens_per_image is {n}, "
                f"the processor's image_seq_length {own}. Pass the processor of this checkpoint."
            )
        check_views(inputs, [squashed_size(size, processor, self.name) for size in sizes], sizes, processor)
        return concatenate([lay(size, (side, side), whole(size)) for size in sizes])

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Gemma's turns; there is no system turn, so a system message starts the user's turn."""
        head = "" if system is None else f"{system}\n\n"
        images = "<image_soft_token>" * n_images
        return f"<start_of_turn>user\n{head}{images}{text}<end_of_turn>\n<start_of_turn>model\n"
