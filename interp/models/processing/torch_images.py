"""transformers' image processors that know torchvision alone, where torchvision is not installed.

Of torchvision they need an antialiased resize, the normalisation, and a copy of grey channels. Each is a call or two of
torch, which is also what torchvision's own code makes of it for tensors of floats.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.utils.import_utils import is_torchvision_available

from interp.errors import ImageError

__all__ = ["TorchImages", "gemma4_unified_images", "lfm2_vl_images", "module_of"]

_MODES = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


@cache
def module_of(name: str) -> Any:
    """Returns a module of transformers, imported with empty names in the place of torchvision where that is missing.

    Args:
        name: The module below `transformers.models`, such as "llama4.image_processing_llama4".
    """
    whole = f"transformers.models.{name}"
    if is_torchvision_available():
        return import_module(whole)
    parts = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2")
    stand_ins: dict[str, Any] = {part: ModuleType(part) for part in parts}
    stand_ins[parts[-1]].functional = SimpleNamespace(InterpolationMode=None)
    missing = [part for part in parts if part not in sys.modules]
    sys.modules.update({part: stand_ins[part] for part in missing})
    try:
        return import_module(whole)
    finally:
        for part in missing:
            del sys.modules[part]


class TorchImages(TorchvisionBackend):
    """What such an image processor takes for its base: the operations of torchvision, by torch.

    Pixels are those of torchvision for floats; of bytes a resize may differ by one grey level, by its rounding.
    """

    def process_image(self, image: Any, do_convert_rgb: bool | None = None, **options: Any) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A PIL image becomes an array here: older transformers asks torchvision for that."""
        if not isinstance(image, Image):
            return super().process_image(image, do_convert_rgb=do_convert_rgb, **options)
        array = np.array(convert_to_rgb(image) if do_convert_rgb else image)
        options["input_data_format"] = ChannelDimension.LAST if array.ndim == 3 else None
        return super().process_image(array, do_convert_rgb=False, **options)

    def resize(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: torch.Tensor, size: Any, resample: Any = None, **_: Any
    ) -> torch.Tensor:
        """Antialiased, to `size.height` × `size.width`; bytes are rounded to bytes."""
        mode = _MODES[PILImageResampling.BILINEAR if resample is None else PILImageResampling(resample)]
        whole = image if image.ndim == 4 else image[None]
        found = torch.nn.functional.interpolate(
            whole.float(), (int(size.height), int(size.width)), mode=mode, antialias=True
        )
        if not image.is_floating_point():
            found = found.round().clamp(0, 255).to(image.dtype)
        return found if image.ndim == 4 else found[0]

    def convert_to_rgb(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        """One channel becomes three alike. Arrays with an alpha channel are refused: pass them as PIL images."""
        if image.shape[0] not in (1, 3):
            raise ImageError(
                f"expected 1 or 3 channels, got {image.shape[0]}; pass the image as a PIL image."
            )
        return image.expand(3, -1, -1)

    def normalize(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: torch.Tensor, mean: Any, std: Any, **_: Any
    ) -> torch.Tensor:
        """By channel."""
        middle, spread = (torch.as_tensor(one, dtype=image.dtype)[:, None, None] for one in (mean, std))
        return (image - middle) / spread


@cache
def lfm2_vl_images() -> type[Any]:
    """Returns transformers' `Lfm2VlImageProcessor`, also where torchvision is not installed."""
    whole = module_of("lfm2_vl.image_processing_lfm2_vl").Lfm2VlImageProcessor
    if is_torchvision_available():
        return whole

    class Lfm2VlImageProcessor(whole, TorchImages):
        pass

    return Lfm2VlImageProcessor


@cache
def gemma4_unified_images() -> type[Any]:
    """Returns transformers' `Gemma4UnifiedImageProcessor`, also where torchvision is not installed."""
    module = module_of("gemma4_unified.image_processing_gemma4_unified")
    whole = module.Gemma4UnifiedImageProcessor
    if is_torchvision_available():
        return whole

    class Gemma4UnifiedImageProcessor(whole, TorchImages):
        def aspect_ratio_preserving_resize(
            self, image: torch.Tensor, *parts: Any, resample: Any, **limits: Any
        ) -> torch.Tensor:
            """To the original's own size, by torch."""
            high, wide = module.get_aspect_ratio_preserving_size(*image.shape[-2:], *parts, **limits)
            if (high, wide) == tuple(image.shape[-2:]):
                return image
            return self.resize(image, SizeDict(height=high, width=wide), resample)

    return Gemma4UnifiedImageProcessor
