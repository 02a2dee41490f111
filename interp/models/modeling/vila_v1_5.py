"""VILA 1.5 (VILA-M3): transformers' LLaVA with VILA's projector, and its processor."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, isqrt
from typing import Any, no_type_check

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.activations import ACT2FN

__all__ = [
    "MERGED",
    "VilaConfig",
    "VilaForConditionalGeneration",
    "VilaProcessor",
    "VilaProjector",
    "tokens_along",
]

MERGED = 2
"""Patches along each side of what one token is merged from."""


def tokens_along(pixels: int, patch: int) -> int:
    """Tokens along a side of an image: whole patches, padded to an even number, two by two."""
    return ceil(pixels // patch / MERGED)


@no_type_check  # transformers' dataclass takes more than its fields
class VilaConfig(LlavaConfig):
    """LLaVA's config under a name of its own."""

    model_type = "interp_vila"


class VilaProjector(nn.Module):
    """2×2 patches to one token; then LayerNorm, Linear, GELU, Linear.

    A grid of an odd side gets a row of zeros below and a column to the right. The channels of a token are those of
    its patches at row 0 column 0, row 0 column 1, row 1 column 0, row 1 column 1. Tokens run down the columns: the
    original merges columns first and does not turn the grid back.

    Source: `mlp_downsample` of github.com/NVlabs/VILA at 355fda9, which VILA-M3's repository pins. Later versions
    of that file turn the grid back and so read the same weights in another order.
    """

    def __init__(self, config: VilaConfig) -> None:
        super().__init__()
        vision: Any = config.vision_config
        text: Any = config.text_config
        width = vision.hidden_size * MERGED**2
        self.layer_norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, text.hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(text.hidden_size, text.hidden_size)

    def forward(self, features: Float[Tensor, "image patch channel"]) -> Float[Tensor, "image token hidden"]:
        """The tokens of each image, down the columns."""
        side = isqrt(features.shape[1])
        grid = features.unflatten(1, (side, side))
        odd = side % MERGED
        grid = nn.functional.pad(grid, (0, 0, 0, odd, 0, odd))
        merged = rearrange(grid, "n (r i) (c j) k -> n (c r) (i j k)", i=MERGED, j=MERGED)
        return self.linear_2(self.act(self.linear_1(self.layer_norm(merged))))


class VilaForConditionalGeneration(LlavaForConditionalGeneration):
    """transformers' LLaVA with `VilaProjector`; everything else is its own."""

    config_class = VilaConfig

    def __init__(self, config: VilaConfig) -> None:
        super().__init__(config)
        self.model.add_module("multi_modal_projector", VilaProjector(config))


class VilaProcessor(LlavaProcessor):
    """LLaVA's processor, counting VILA's tokens."""

    def replace_image_token(self, image_inputs: Mapping[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The image token as often as the image has tokens."""
        patch: Any = self.patch_size
        rows, cols = (tokens_along(n, patch) for n in image_inputs["pixel_values"][image_idx].shape[-2:])
        return self.image_token * (rows * cols)

    def _get_num_multimodal_tokens(self, image_sizes: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError("VILA's processor counts tokens when it sees the images.")
