"""The view of the whole image, and its tokens' pixels in a processor's pixel values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import MethodError, ModelError
from interp.models.geometry import setting
from interp.models.pixels import PixelView, pixel_views
from interp.tokens import TokenMap

__all__ = ["channel_scale", "pixel_grid", "whole_view"]

_WHOLE = ("", "base", "global", "thumbnail")
"""Views that show the whole image in one grid."""


def whole_view(tokens: TokenMap) -> Bool[np.ndarray, " token"]:
    """The tokens of the one view that shows the whole image: the only one, or "base", "global", "thumbnail".

    Raises:
        MethodError: Several views and none of these names.
    """
    return np.asarray(tokens.views == _whole_name(tokens))


def _whole_name(tokens: TokenMap) -> str:
    names = [str(name) for name in np.unique(tokens.views[~np.isnan(tokens.footprints).any(axis=1)])]
    if len(names) == 1:
        return names[0]
    known = [name for name in names if name in _WHOLE]
    if len(known) != 1:
        raise MethodError(
            f"ViCrop slides its windows over the one view of the whole image, named {', '.join(map(repr, _WHOLE))}; "
            f"this image has the views {names}. Name it so in the adapter's footprints."
        )
    return known[0]


def pixel_grid(inputs: Mapping[str, Any], tokens: TokenMap, processor: Any, config: Any) -> PixelView:
    """The pixels of the whole view of one sample's only image.

    Raises:
        MethodError: Pixel values that are neither views of (channel, row, col) nor Qwen's flattened patches, or
            that do not hold the view's tokens as square blocks of patches.
    """
    mine = np.flatnonzero(whole_view(tokens))
    try:
        views = pixel_views(inputs, tokens, processor, config)
    except ModelError as error:
        raise MethodError(
            f"map='pure_grad' needs to know which pixel each gradient belongs to: {error} Here: map='rel_att' or "
            "'grad_att'."
        ) from error
    found = [view for view in views if np.array_equal(np.sort(view.tokens, axis=None), mine)]
    if len(found) != 1:
        raise MethodError(
            f"map='pure_grad' needs the whole image in one view; its {len(mine)} tokens lie in several. Use "
            "map='rel_att' or 'grad_att'."
        )
    return found[0]


def channel_scale(processor: Any) -> Float[np.ndarray, " channel"]:
    """What the processor divided each channel by, after 0 … 1."""
    std = setting(processor, "image_std") if setting(processor, "do_normalize") else None
    return np.ones(3) if std is None else np.broadcast_to(np.asarray(std, float), (3,))
