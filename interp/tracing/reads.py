"""Reads: values that say what to read during a trace."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from interp.errors import SiteError
from interp.inputs.argument_checks import check_one_of
from interp.tracing.site import Layers, Selector, Site

__all__ = ["MLP", "Experts", "Read", "Residual", "Rows", "of_tower"]


@dataclass(frozen=True)
class Rows:
    """Rows of attention: the weights of the site's queries over its keys, after the softmax and all edits.

    The values are float32. Without edits of weights they lie in [0, 1], and a row over all keys sums to 1; the sum over
    the image tokens is the share of attention that goes to the image. Rows of gated DeltaNet layers are signed and may
    have any sum.

    Args:
        site: Layers, heads, queries and keys.
        reduce: "head" averages over the site's heads in each layer before rows are stored; None keeps every head.

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
    """The residual stream after decoder layers and after all edits: (layer, position, hidden), in the model's units.

    This is the layer's output and the input of the next layer (after the last layer, of the final norm). Qwen3-VL is an
    exception: between its first layers it adds features of the image to the image tokens. With `generate=` the array
    has a first dimension "step"; with positions "last" it also has a step for every generated token that is fed back.

    Args:
        layers: "all" or decoder layers, 0-based; or a kind of layers, "attention", "linear", "cross" or "convolution"
            (`Mllm.layer_kinds`).
        positions: Groups of the prompt's tokens ("last", "image", "question", …) or `interp.positions([…])`.

    Raises:
        SiteError: A value that names no layers or no positions.
    """

    layers: Layers = "all"
    positions: Selector | Sequence[Selector] = "last"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)

    @property
    def site(self) -> Site:
        """The read's layers and positions, as the layers and queries of a site."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"residual": {"layers": site["layers"], "positions": site["queries"]}}


@dataclass(frozen=True)
class MLP:
    """The inputs of MLPs, or the vectors that MLPs add to the residual stream: (layer, position, hidden), float32.

    The input is read after the norm before the MLP. The output is the vector that the layer adds to the residual
    stream; where the family has a norm after the MLP (Gemma), it is read after that norm. The output is read after all
    edits. With `generate=` the array has a first dimension "step". The array's name is "mlp_input" or "mlp_output".

    Args:
        layers: "all", or layers, 0-based. Layers with experts have no single MLP, so naming them is an error.
        positions: Groups of the prompt's tokens or `interp.positions([…])`, as in `Residual`.
        side: "input" or "output".

    Raises:
        SiteError: A value that names no layers or no positions, or another side.
    """

    layers: Layers = "all"
    positions: Selector | Sequence[Selector] = "last"
    side: Literal["input", "output"] = "output"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)
        check_one_of("side", self.side, ("input", "output"), SiteError)

    @property
    def site(self) -> Site:
        """The read's layers and positions, as the layers and queries of a site."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"mlp": {"layers": site["layers"], "positions": site["queries"], "side": self.side}}


@dataclass(frozen=True)
class Experts:
    """The routing of mixture-of-experts layers: (layer, token, expert), the weights with which experts are mixed.

    These are the weights by which the layer multiplies its experts, after the choice of the top k experts and after the
    model's own renormalisation and scaling. They are ≥ 0, and 0 for an expert that is not chosen. A token's weights sum
    to 1 (Qwen), to `routed_scaling_factor` (GLM), or to the sigmoid of the chosen expert's score (Llama 4, which
    multiplies the expert's input instead of its output). Shared experts, which process every token, have no routing and
    are not included.

    The routing is read with all edits applied. Routing is a discrete choice, so an edit of attention that changes a
    token's vector only slightly can change its experts: compare the routing with and without an edit before you explain
    an effect by attention alone.

    If only image tokens are read, the array has the dimension "token", which numbers the image tokens, with the
    coordinate "position", their unpadded positions. Otherwise it has the dimension "position". With `generate=` it has
    a first dimension "step".

    Args:
        layers: "all" for all layers with experts, or some of these layers, 0-based.
        tokens: Groups of the prompt's tokens ("image", "last", "question", "all", …), `interp.positions([…])` or
            `interp.image_mask(…)`.

    Raises:
        SiteError: A value that names no layers or no tokens.
    """

    layers: Literal["all"] | Sequence[int] = "all"
    tokens: Selector | Sequence[Selector] = "image"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.tokens)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "tokens", site.queries)

    @property
    def site(self) -> Site:
        """The read's layers and tokens, as the layers and queries of a site."""
        return Site(layers=self.layers, queries=self.tokens)

    def layers_of(self, routed: Collection[int]) -> tuple[int, ...]:
        """The layers that are read in a model whose layers `routed` have experts.

        Raises:
            SiteError: The model has no experts, or a named layer has none.
        """
        if not routed:
            raise SiteError(
                "Experts reads the routing of tokens to experts, but no layer of this model has a router. Use it with "
                "a mixture-of-experts model, such as qwen3_vl_moe, glm4v_moe or llama4."
            )
        chosen = tuple(sorted(routed)) if isinstance(self.layers, str) else tuple(self.layers)
        dense = [layer for layer in chosen if layer not in routed]
        if dense:
            raise SiteError(
                f"the layers with experts are {', '.join(map(str, sorted(routed)))}; Experts names {dense}, without "
                'experts. Leave these out, or write layers="all" for all layers with experts.'
            )
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"experts": {"layers": site["layers"], "tokens": site["queries"]}}


Read: TypeAlias = Rows | Residual | MLP | Experts


def of_tower(one: Any) -> bool:
    """Whether a read or an edit concerns the vision tower."""
    return getattr(getattr(one, "site", None), "tower", None) is not None
