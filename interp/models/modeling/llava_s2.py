"""LLaVA with S² ("scaling on scales"): one CLIP tower looks at the image at several sizes.

transformers' LLaVA joins several of a tower's layers along the channels before its projector. Here the tower gives,
instead of its layers, the one layer at each size; everything else is transformers' own.
"""

from __future__ import annotations

from typing import Any, no_type_check

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModel, LlavaConfig, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = ["LlavaS2Config", "LlavaS2ForConditionalGeneration", "ScalesTower"]


@no_type_check  # transformers' dataclass takes more than its fields
class LlavaS2Config(LlavaConfig):
    """LLaVA's config, with the sizes.

    `vision_feature_layer` counts the sizes and `vision_feature_select_strategy` is "full", for the tower has taken
    its layer and left out the class token by then.

    Attributes:
        scales: sides in pixels at which the tower looks, increasing; the first is the tower's own.
        scale_feature_layer: the tower's layer that is taken.
    """

    model_type = "interp_llava_s2"
    scales: list[int] | None = None
    scale_feature_layer: int = -2


class ScalesTower(nn.Module):
    """A vision tower at several sizes.

    At each size the pixels are resized (bicubic, no antialias), cut into tiles of the tower's own size, and the
    tower's features of the tiles joined into one grid, which is averaged down to the grid of the smallest size.

    Source: github.com/bfshi/scaling_on_scales, core.py, as UCSC-VLAA/MedTrinity-25M calls it.
    """

    def __init__(self, config: LlavaS2Config) -> None:
        super().__init__()
        self.tower = AutoModel.from_config(config.vision_config)
        self.scales = list(config.scales or [])
        self.layer = config.scale_feature_layer

    def forward(
        self, pixel_values: Float[Tensor, "image channel row col"], **options: Any
    ) -> BaseModelOutputWithPooling:
        """`hidden_states`: (image, token, channel) for each size, smallest first, without class tokens."""
        options |= {"output_hidden_states": True, "return_dict": True}
        return BaseModelOutputWithPooling(
            hidden_states=tuple(self._seen(pixel_values, side, options) for side in self.scales)
        )

    def _seen(
        self, pixels: Tensor, side: int, options: dict[str, Any]
    ) -> Float[Tensor, "image token channel"]:
        n = side // self.scales[0]
        resize = nn.functional.interpolate
        sized = resize(pixels.float(), size=side, mode="bicubic").to(pixels.dtype)
        tiles = rearrange(sized, "b c (n h) (m w) -> (n m b) c h w", n=n, m=n)
        features = self.tower(tiles, **options).hidden_states[self.layer][:, 1:]
        along = round(features.shape[1] ** 0.5)
        grid = rearrange(features, "(n m b) (h w) c -> b c (n h) (m w)", n=n, m=n, h=along)
        pooled = resize(grid.float(), size=along, mode="area").to(grid.dtype)
        return rearrange(pooled, "b c h w -> b (h w) c")


class LlavaS2ForConditionalGeneration(LlavaForConditionalGeneration):
    """transformers' LLaVA with `ScalesTower` for a tower."""

    config_class = LlavaS2Config

    def __init__(self, config: LlavaS2Config) -> None:
        super().__init__(config)
        self.model.add_module("vision_tower", ScalesTower(config))
