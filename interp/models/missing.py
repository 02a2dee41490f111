"""Two processors of transformers' that ask for packages which only videos, or nothing, need: here without them."""

from __future__ import annotations

import sys
from functools import wraps
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from interp.models.processors import images_only

__all__ = ["pixtral_processor", "smolvlm_processor"]

_PIXTRAL = "transformers.models.pixtral"


def pixtral_processor() -> type[Any]:
    """transformers' `PixtralProcessor`, also where torchvision is not installed.

    Its module imports one pure function from the torchvision image processor; the PIL one has the same.
    """
    name = f"{_PIXTRAL}.image_processing_pixtral"
    try:
        import_module(name)
    except ModuleNotFoundError:
        sys.modules[name] = import_module(f"{_PIXTRAL}.image_processing_pil_pixtral")
        try:
            return import_module(f"{_PIXTRAL}.processing_pixtral").PixtralProcessor
        finally:
            del sys.modules[name]
    return import_module(f"{_PIXTRAL}.processing_pixtral").PixtralProcessor


def smolvlm_processor() -> type[Any]:
    """transformers' `SmolVLMProcessor` for images, also without torchvision and num2words.

    It asks for num2words when it is built, and for its video processor when it fills a chat template.
    """
    module: Any = import_module("transformers.models.smolvlm.processing_smolvlm")
    whole = module.SmolVLMProcessor

    class SmolVLMProcessor(images_only(whole)):
        video_processor = SimpleNamespace(num_frames=None, fps=None)

        @wraps(whole.__init__)
        def __init__(self, *parts: Any, **options: Any) -> None:
            words = module.num2words
            module.num2words = words or str
            try:
                super().__init__(*parts, **options)
            finally:
                module.num2words = words

    return SmolVLMProcessor
