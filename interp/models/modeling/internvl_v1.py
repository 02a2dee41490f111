"""InternVL 1.2 (MedRegA): transformers' InternVL whose image tokens run down the columns."""

from __future__ import annotations

from typing import Any, no_type_check

from jaxtyping import Float
from torch import Tensor
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLModel

__all__ = ["InternVLV1Config", "InternVLV1ForConditionalGeneration", "InternVLV1Model"]


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
