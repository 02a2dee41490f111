"""Aya Vision and Command A Vision: tiles by aspect ratio, shuffled 2×2, then a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size
from interp.models.base import Family
from interp.models.tiling import tiled_footprints

__all__ = ["AyaVision", "Cohere2Vision"]


class AyaVision(Family):
    """The `aya_vision` family: SigLIP tiles on a Cohere 2, most of whose layers have a sliding window."""

    name = "aya_vision"
    model_types = ("aya_vision",)
    layout = "a canvas of square tiles by aspect ratio, each a row-major grid; a thumbnail of the whole last"
    examples = ("CohereLabs/aya-vision-8b", "CohereLabs/aya-vision-32b")

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns view "tile" with a grid per tile, row by row; after several tiles also view "thumbnail" of the whole.

        Raises:
            ModelError: The tiles are not square, or the pixel values do not follow from the settings.
        """
        if getattr(config, "vision_feature_select_strategy", "full") != "full":
            raise ModelError(
                f"{self.name} expects every patch of the tower (vision_feature_select_strategy='full'); "
                f"this config has {config.vision_feature_select_strategy!r}. Pass adapter= with your own footprints."
            )
        return tiled_footprints(
            sizes, inputs, processor, config, family=self.name, ratio=1 / config.downsample_factor
        )

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns Cohere's turns."""
        turn, end = "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"
        head = "" if system is None else f"{turn}<|SYSTEM_TOKEN|>{system}{end}"
        images = self._image * n_images
        return f"{head}{turn}<|USER_TOKEN|>{images}{text}{end}{turn}<|CHATBOT_TOKEN|>"

    _image = "<image>"


class Cohere2Vision(AyaVision):
    """The `cohere2_vision` family: Aya Vision's tiles. Their tokens are followed by one line break each."""

    name = "cohere2_vision"
    model_types = ("cohere2_vision",)
    examples = ("CohereLabs/command-a-vision-07-2025",)
    _image = "<|IMG_PATCH|>"
