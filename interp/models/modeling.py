"""Models that transformers has no class for: the smallest subclasses of its own that compute what the originals do.

Their configs carry a `model_type` that begins with "interp_", so that plain transformers refuses a folder of theirs
by name. Its own class would load the folder and see the image in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import ceil, isqrt
from typing import Any, no_type_check

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling

__all__ = [
    "MERGED",
    "InternVLV1Config",
    "InternVLV1ForConditionalGeneration",
    "InternVLV1Model",
    "LlavaS2Config",
    "LlavaS2ForConditionalGeneration",
    "ScalesTower",
    "VilaConfig",
    "VilaForConditionalGeneration",
    "VilaProcessor",
    "VilaProjector",
    "register",
    "tokens_along",
]


@no_type_check  # transformers' dataclass takes more than its fields
class LlavaS2Config(LlavaConfig):
    """LLaVA's config, with the sizes.

    `vision_feature_layer` counts the sizes. `vision_feature_select_strategy` is "full", because the tower itself takes
    its layer and leaves out the class token.

    Attributes:
        scales: Sides in pixels at which the tower looks, increasing; the first is the tower's own.
        scale_feature_layer: The tower's layer that is taken.
    """

    model_type = "interp_llava_s2"
    scales: list[int] | None = None
    scale_feature_layer: int = -2


class ScalesTower(nn.Module):
    """A vision tower at several sizes: S², "scaling on scales".

    transformers' LLaVA joins several of a tower's layers along the channels before its projector. This tower returns
    one layer at each size instead of several layers; everything else is transformers' own.

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


@no_type_check  # transformers' dataclass takes more than its fields
class InternVLV1Config(InternVLConfig):
    """InternVL's config under a name of its own."""

    model_type = "interp_internvl_v1"


class InternVLV1Model(InternVLModel):
    """transformers' InternVL with the pixel shuffle of `ps_version` "v1".

    The first version shuffles columns first and does not turn the grid back, so a tile's tokens run down its
    columns; transformers' class is the second version. What each token holds is the same in both, and the language
    model was trained on the order, so the weights alone cannot make up for it.

    Source: `pixel_shuffle` of github.com/OpenGVLab/InternVL, also in github.com/xmed-lab/MedRegA.
    """

    def pixel_shuffle(
        self, vision_features: Float[Tensor, "tile row col channel"], scale_factor: float = 0.5
    ) -> Float[Tensor, "tile newcol newrow wide"]:
        """The second version's grid, transposed."""
        return super().pixel_shuffle(vision_features, scale_factor).transpose(1, 2).contiguous()


class InternVLV1ForConditionalGeneration(InternVLForConditionalGeneration):
    """transformers' class around `InternVLV1Model`."""

    config_class = InternVLV1Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.__class__ = InternVLV1Model


@cache
def register() -> None:
    """Makes transformers' auto classes know these models. Further calls do nothing."""
    for config, model in (
        (VilaConfig, VilaForConditionalGeneration),
        (InternVLV1Config, InternVLV1ForConditionalGeneration),
        (LlavaS2Config, LlavaS2ForConditionalGeneration),
    ):
        AutoConfig.register(config.model_type, config)
        AutoModelForImageTextToText.register(config, model)
    AutoProcessor.register(VilaConfig, VilaProcessor)
