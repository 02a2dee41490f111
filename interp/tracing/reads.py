"""What to read during a trace, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from interp.errors import SiteError
from interp.tracing.site import Layers, Selector, Site

__all__ = ["Read", "Residual", "Rows"]


@dataclass(frozen=True)
class Rows:
    """Rows of attention: softmax probabilities of the site's queries over its keys, after any edit.

    A row holds float32 values in [0, 1]. Over every key it sums to 1 (less what a "zero" knockout took); over
    the image tokens alone it sums to the share of attention that goes to the image.

    Args:
        site: Layers, heads, queries and keys.
        reduce: "head" averages over the site's heads of each layer before anything is stored.

    Raises:
        SiteError: An unknown reduction, or a site that is not a `Site`.
    """

    site: Site = field(default_factory=Site)
    reduce: Literal["head"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise SiteError(f"Rows reads a Site, as in Rows(Site(layers=[14])); got {self.site!r}.")
        if self.reduce is not None and not (isinstance(self.reduce, str) and self.reduce == "head"):
            raise SiteError(f'reduce is None or "head"; got {self.reduce!r}.')

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        return {"rows": {"site": self.site.to_dict(), "reduce": self.reduce}}


@dataclass(frozen=True)
class Residual:
    """The residual stream after decoder layers, after any edit: (layer, position, hidden), in the model's units.

    That is what the layer returns, and what the next one (at the end, the final norm) gets, except in Qwen3-VL,
    which adds features of the image to its tokens between its first layers. With `generate=` and positions "last"
    a first dimension "step" goes on with each generated token's.

    Args:
        layers: "all" or decoder layers, 0-based.
        positions: Groups of the prompt's tokens ("last", "image", "question", …) or `interp.positions([…])`.

    Raises:
        SiteError: Layers or positions that are none.
    """

    layers: Layers = "all"
    positions: Selector | Sequence[Selector] = "last"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)

    @property
    def site(self) -> Site:
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"residual": {"layers": site["layers"], "positions": site["queries"]}}


Read: TypeAlias = Rows | Residual
