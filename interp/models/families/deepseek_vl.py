"""DeepSeek-VL: the image is shrunk to fit a square, padded to it, and cut into one row-major grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.errors import ModelError
from interp.inputs.footprints import Footprints, Size, concatenate, lay, pulled_back
from interp.models.base import Family
from interp.models.resizing import check_views, pixel_size, setting

__all__ = ["DeepseekVl", "DeepseekVlHybrid"]


class DeepseekVl(Family):
    """The `deepseek_vl` family: a token is one patch of its SigLIP tower; no patch is merged or dropped."""

    name = "deepseek_vl"
    model_types = ("deepseek_vl",)
    layout = "fitted into a square and padded, the image in the middle; one row-major grid of its patches"
    examples = ("deepseek-community/deepseek-vl-1.3b-chat",)

    def footprints(
        self, sizes: Sequence[Size], inputs: Mapping[str, Any], processor: Any, config: Any
    ) -> Footprints:
        """Returns one grid per image over its square; cells in the padding are NaN.

        Raises:
            ModelError: The settings do not fit the tower, or the pixel values do not follow from them.
        """
        settings, vision = processor.image_processor, config.vision_config
        side, patch = int(vision.image_size), int(vision.patch_size)
        wanted = pixel_size(settings)
        steps = {step: setting(processor, step) for step in ("do_resize", "do_pad")}
        if wanted != {"height": side, "width": side} or not all(steps.values()):
            raise ModelError(
                f"{self.name}'s tower takes images fitted and padded to {side}×{side} pixels; "
                f"{type(settings).__name__} has size={wanted} and {steps}. Set them to the checkpoint's."
            )
        check_views(inputs, [(side, side)] * len(sizes), sizes, processor)
        n, fitted = side // patch, self.fitted_to(settings, side)
        seen = fitted * n * patch / side
        return concatenate([_laid(size, fitted, n, seen, int(settings.min_size)) for size in sizes])

    def fitted_to(self, settings: Any, side: int) -> int:
        """Returns the side of the square that images are fitted into and padded to, for a tower of `side` pixels."""
        return side

    def fallback_prompt(self, text: str, n_images: int, system: str | None) -> str:
        """Returns DeepSeek's conversation."""
        head = "" if system is None else f"{system}\n\n"
        return head + "User: " + "<image_placeholder>" * n_images + f"{text}\n\nAssistant:"


class DeepseekVlHybrid(DeepseekVl):
    """The `deepseek_vl_hybrid` family: beside SigLIP a SAM tower sees the image at 1024 px; a token holds both halves.

    The image is fitted and padded at the higher resolution, and shrunk to the lower one from there. Two convolutions
    make SAM's half of a token, which is centred on the upper left quarter of its cell; SigLIP's is the cell.
    """

    name = "deepseek_vl_hybrid"
    model_types = ("deepseek_vl_hybrid",)
    layout = (
        "fitted into a square and padded, the image in the middle; one row-major grid, seen by two towers"
    )
    examples = ("deepseek-community/deepseek-vl-7b-chat",)

    def fitted_to(self, settings: Any, side: int) -> int:
        """Returns the side of the high-resolution image."""
        wanted = {
            name: int(value) for name, value in dict(settings.high_res_size).items() if value is not None
        }
        if set(wanted) != {"height", "width"} or len(set(wanted.values())) > 1:
            raise ModelError(
                f"{self.name}'s second tower takes a square; {type(settings).__name__} has high_res_size={wanted}. Set "
                "it to the checkpoint's."
            )
        return wanted["height"]


def _laid(size: Size, side: int, n: int, seen: float, least: int) -> Footprints:
    """Returns the tokens of one image whose longer edge becomes `side` pixels and the shorter at least `least`.

    `seen`: how many of the square's pixels along a side belong to whole patches.
    """
    scale = side / max(size)
    fitted = (max(round(size[0] * scale), least), max(round(size[1] * scale), least))
    left, top = ((side - edge) // 2 for edge in fitted)
    square = (-left, -top, seen - left, seen - top)  # in pixels of the fitted image
    return lay(size, (n, n), pulled_back(square, size, fitted))
