"""The keys of cross-attention layers, which are the image's, and checks of the sites that name them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from interp.errors import SiteError
from interp.tracing.encoding.padding import Layout
from interp.tracing.site import ImageMask, Selector, Site

__all__ = ["CrossLayout", "check_rows", "is_cross"]

_ROWS = "the image is no part of this model's sequence, so its tokens are no rows"


@dataclass(frozen=True, eq=False)
class CrossLayout(Layout):
    """Rows as in a pass over prompts; columns are the image's keys, which no padding comes before.

    Attributes:
        n_cross: Keys of a cross-attention layer.
    """

    n_cross: int = 0

    @classmethod
    def of(cls, layout: Layout, n_cross: int) -> CrossLayout:
        """The layout of the cross-attention layers of the same pass."""
        return cls(layout.columns, layout.n_columns, layout.offset, n_cross)

    @property
    def n_keys(self) -> int:
        """Keys of a cross-attention layer."""
        return self.n_cross

    def keys(self, sample: int, positions: Int[np.ndarray, " key"]) -> Int[np.ndarray, " key"]:
        """The columns, as the sample numbers them."""
        return positions


def is_cross(site: Site, layers: Collection[int], cross: Collection[int]) -> bool:
    """Whether a site is of cross-attention layers, whose keys are the image's, in a model that has some.

    Args:
        site: Its queries and keys are checked.
        layers: Its layers.
        cross: The cross-attention layers of the model.

    Raises:
        SiteError: Keys that its layers do not have, layers of both kinds, or image tokens as rows.
    """
    check_rows(site)
    named = {layer in cross for layer in layers}
    if len(named) > 1:
        raise SiteError(
            f"layers={_layers(site)} name layers of two kinds, which have different keys. Write layers='cross' for "
            "those with the image's keys, layers='attention' for those with the text's, or their numbers."
        )
    image = [_is_image(one) for one in site.groups[1]]
    if True in named and not all(image):
        raise SiteError(
            f"keys={site.groups[1]!r}: cross-attention layers have no keys but the image's. Write keys='image' or "
            "interp.image_mask(…), or layers='attention' for keys of the text."
        )
    if True not in named and any(image):
        raise SiteError(
            f"keys={site.groups[1]!r}: the image is no part of this model's sequence, so its self-attention layers "
            "have no image keys. Write layers='cross' (mllm.layer_kinds names them), or keys='text'."
        )
    return True in named


def check_rows(site: Site) -> None:
    """Raise `SiteError` for image tokens as rows, of a model with cross-attention layers."""
    if any(_is_image(one) for one in site.groups[0]):
        raise SiteError(f"queries={site.groups[0]!r}: {_ROWS}. Write queries='text', or 'after_image'.")


def _is_image(selector: Selector) -> bool:
    return isinstance(selector, ImageMask) or (isinstance(selector, str) and selector == "image")


def _layers(site: Site) -> str:
    return repr(site.layers) if isinstance(site.layers, str) else str(list(site.layers))
