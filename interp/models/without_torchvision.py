"""transformers' image and video processors that need torchvision, where torchvision is not installed.

Image processors need an antialiased resize, the normalisation, and a copy of grey channels. Each is a call or two of
torch, which is also what torchvision's own code makes of it for tensors of floats.

Video processors call torchvision for four things: to resize, crop and normalise frames and to make grey ones RGB. Their
classes stay what they are, and only these four are computed by torch, as torchvision 0.28 does it: the pixels are equal
bit for bit (tests/models/test_without_torchvision.py, where torchvision is installed).
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_transforms import convert_to_rgb, get_resize_output_image_size
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.utils.import_utils import is_torchvision_available
from transformers.video_processing_utils import BaseVideoProcessor

from interp.errors import ImageError, ModelError
from interp.models.resizing import blank

__all__ = [
    "VIDEO_PROCESSORS",
    "TorchImages",
    "gemma4_unified_images",
    "lfm2_vl_images",
    "module_of",
    "video_processor_class",
]


_MODES = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


VIDEO_PROCESSORS = {
    "LlavaNextVideoProcessor": "llava_next_video:LlavaNextVideoVideoProcessor",
    "LlavaOnevisionProcessor": "llava_onevision:LlavaOnevisionVideoProcessor",
    "Qwen2VLProcessor": "qwen2_vl:Qwen2VLVideoProcessor",
    "Qwen2_5_VLProcessor": "qwen2_vl:Qwen2VLVideoProcessor",
    "Qwen3VLProcessor": "qwen3_vl:Qwen3VLVideoProcessor",
    "SmolVLMProcessor": "smolvlm:SmolVLMVideoProcessor",
}
"""Processors whose videos `interp` reads: class → model:class of the video processor in transformers."""
_FRAME_MODES = {0: "nearest-exact", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Pillow's resampling filters by number → `torch.nn.functional.interpolate`'s modes, as torchvision has them."""
_FUNCTIONS = "torchvision.transforms.v2.functional"


@cache
def module_of(name: str) -> Any:
    """Returns a module of transformers, imported with empty stand-ins for torchvision where that is missing.

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
    """The base class of such image processors: the operations of torchvision, computed by torch.

    Pixels are those of torchvision for floats; of bytes a resize may differ by one grey level, by its rounding.
    """

    def process_image(self, image: Any, do_convert_rgb: bool | None = None, **options: Any) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Turns a PIL image into an array first: older transformers asks torchvision for that."""
        if not isinstance(image, Image):
            return super().process_image(image, do_convert_rgb=do_convert_rgb, **options)
        array = np.array(convert_to_rgb(image) if do_convert_rgb else image)
        options["input_data_format"] = ChannelDimension.LAST if array.ndim == 3 else None
        return super().process_image(array, do_convert_rgb=False, **options)

    def resize(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: torch.Tensor, size: Any, resample: Any = None, **_: Any
    ) -> torch.Tensor:
        """Returns the image resized to `size.height` × `size.width`, antialiased; bytes are rounded to bytes."""
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
        """Returns three channels; a single one is repeated. Arrays with an alpha channel are refused."""
        if image.shape[0] not in (1, 3):
            raise ImageError(
                f"expected 1 or 3 channels, got {image.shape[0]}; pass the image as a PIL image."
            )
        return image.expand(3, -1, -1)

    def normalize(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, image: torch.Tensor, mean: Any, std: Any, **_: Any
    ) -> torch.Tensor:
        """Returns (image − mean) / std for each channel."""
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
            """Resizes by torch to the size that the original chooses."""
            high, wide = module.get_aspect_ratio_preserving_size(*image.shape[-2:], *parts, **limits)
            if (high, wide) == tuple(image.shape[-2:]):
                return image
            return self.resize(image, SizeDict(height=high, width=wide), resample)

    return Gemma4UnifiedImageProcessor


class _TorchFrames(BaseVideoProcessor):
    """The four functions of torchvision that video processors call, in torch."""

    def resize(
        self, image: Tensor, size: Any, resample: Any = None, antialias: bool = True, **options: Any
    ) -> Tensor:
        """Returns frames (…, channel, row, col) at the size that the settings ask for."""
        del options
        mode = _FRAME_MODES.get(2 if resample is None else int(resample))
        if mode is None:
            raise ModelError(
                f"frames are resized by one of {', '.join(_FRAME_MODES.values())}; this video processor has "
                f"resample={resample!r}. Set it on processor.video_processor, or install torchvision."
            )
        high, wide = _target(image, size)
        flat = image.reshape(-1, *image.shape[-3:])
        smooth = {"antialias": antialias, "align_corners": False} if mode != "nearest-exact" else {}
        given = flat if _takes_bytes(flat, mode) else flat.float()
        found = torch.nn.functional.interpolate(given, size=(high, wide), mode=mode, **smooth)
        if found.dtype != image.dtype:
            found = found.clamp(0, 255).round().to(image.dtype)
        return found.reshape(*image.shape[:-2], high, wide)

    def center_crop(self, image: Tensor, size: Any, **options: Any) -> Tensor:
        """Returns the central (height, width) of frames, with zeros around frames that are smaller."""
        del options
        if not (size.height and size.width):
            raise ModelError(f'a crop has a "height" and a "width"; this video processor has {size}.')
        missing = [
            max(wanted - have, 0)
            for wanted, have in zip((size.height, size.width), image.shape[-2:], strict=True)
        ]
        padding = [missing[1] // 2, (missing[1] + 1) // 2, missing[0] // 2, (missing[0] + 1) // 2]
        image = torch.nn.functional.pad(image, padding) if any(padding) else image
        top, left = int((image.shape[-2] - size.height) / 2), int((image.shape[-1] - size.width) / 2)
        return image[..., top : top + size.height, left : left + size.width]

    def normalize(self, image: Tensor, mean: Any, std: Any, inplace: bool = False, **options: Any) -> Tensor:
        """Returns (frames − mean) / std for each channel."""
        del inplace, options
        low, span = (
            torch.as_tensor(value, dtype=image.dtype, device=image.device).reshape(-1, 1, 1)
            for value in (mean, std)
        )
        return (image - low) / span

    def convert_to_rgb(self, video: Tensor) -> Tensor:
        """Returns RGB frames; frames of samples are RGB already."""
        if video.shape[-3] != 3:
            raise ModelError(f"frames have 3 channels; these are of shape {tuple(video.shape)}.")
        return video


def _takes_bytes(frames: Tensor, mode: str) -> bool:
    """Whether torch resizes these frames without a conversion to floats first, as torchvision has it."""
    if frames.dtype != torch.uint8 or frames.device.type != "cpu":
        return frames.is_floating_point()
    vector = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return mode != "bilinear" or vector or platform.machine() in ("aarch64", "arm64")


def _target(image: Tensor, size: Any) -> tuple[int, int]:
    """Returns (height, width) after a resize, in transformers' own arithmetic."""
    if size.shortest_edge and not size.longest_edge:
        return get_resize_output_image_size(
            blank((image.shape[-1], image.shape[-2])),
            size=size.shortest_edge,
            default_to_square=False,
            input_data_format=ChannelDimension.FIRST,
        )
    if size.height and size.width:
        return size.height, size.width
    raise ModelError(
        f'a size of frames is "height" and "width", or "shortest_edge"; this video processor has {size}. Set it on '
        "processor.video_processor, or install torchvision."
    )


@cache
def video_processor_class(processor_class: str) -> type[Any] | None:
    """Returns transformers' video processor class for a processor class by its name; None where it is not known.

    Without torchvision it is a subclass that needs none.
    """
    if processor_class not in VIDEO_PROCESSORS:
        return None
    model, name = VIDEO_PROCESSORS[processor_class].split(":")
    kind = getattr(_module(f"transformers.models.{model}.video_processing_{model}"), name)
    if is_torchvision_available():
        return kind
    return type(name, (kind, _TorchFrames), {"__module__": kind.__module__, "__doc__": kind.__doc__})


def _module(name: str) -> Any:
    """Imports a module of transformers. Qwen2-VL's imports torchvision for its annotations alone."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("torchvision"):
            raise
    parts = [".".join(_FUNCTIONS.split(".")[: n + 1]) for n in range(len(_FUNCTIONS.split(".")))]
    empty = {part: ModuleType(part) for part in parts}
    for part, module in empty.items():
        parent, _, own = part.rpartition(".")
        if parent:
            setattr(empty[parent], own, module)
    empty[_FUNCTIONS].InterpolationMode = int  # type: ignore[attr-defined] - an annotation names it
    sys.modules.update(empty)
    try:
        return import_module(name)
    finally:
        for part in parts:
            del sys.modules[part]
