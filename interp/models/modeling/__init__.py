"""Models that transformers has no class for: the smallest subclasses of its own that compute what the originals do.

Their configs carry a `model_type` that begins with "interp_", so that plain transformers refuses a folder of theirs
by name where its own class would load it and see the image in another order.
"""

from __future__ import annotations

from functools import cache

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

__all__ = ["register"]


@cache
def register() -> None:
    """Makes transformers' auto classes know these models; once is enough, more does nothing."""
    from interp.models.modeling.internvl_v1 import InternVLV1Config, InternVLV1ForConditionalGeneration
    from interp.models.modeling.llava_s2 import LlavaS2Config, LlavaS2ForConditionalGeneration
    from interp.models.modeling.vila_v1_5 import VilaConfig, VilaForConditionalGeneration, VilaProcessor

    for config, model in (
        (VilaConfig, VilaForConditionalGeneration),
        (InternVLV1Config, InternVLV1ForConditionalGeneration),
        (LlavaS2Config, LlavaS2ForConditionalGeneration),
    ):
        AutoConfig.register(config.model_type, config)
        AutoModelForImageTextToText.register(config, model)
    AutoProcessor.register(VilaConfig, VilaProcessor)
