"""What to read during a trace, as values."""

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
        layers: "all" or decoder layers, 0-based; or those of a kind, "attention", "linear" or
            "convolution" (`Mllm.layer_kinds`).
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
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"residual": {"layers": site["layers"], "positions": site["queries"]}}


@dataclass(frozen=True)
class MLP:
    """What MLPs are given, or what they add to the residual stream: (layer, position, hidden), float32.

    The input is what enters the layer's MLP, after the norm before it. The output is what the layer adds to the
    stream: after the norm that follows the MLP where the family has one (Gemma). The output is read after its edits.
    With `generate=` a first dimension "step" comes before. The array is called "mlp_input" or "mlp_output".

    Args:
        layers: "all", or layers, 0-based. Layers with experts have no single MLP and are refused.
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
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"mlp": {"layers": site["layers"], "positions": site["queries"], "side": self.side}}


@dataclass(frozen=True)
class Experts:
    """The routing of mixture-of-experts layers: (layer, token, expert), the weights with which experts are mixed.

    A token's weights are those that the layer itself multiplies its experts by: after the choice of the top k and the
    model's own renormalisation and scaling; 0 for an expert that is not chosen. They are 0 or more. Over the experts
    they sum to 1 (Qwen), to `routed_scaling_factor` (GLM), or to the sigmoid of the chosen expert's score (Llama 4,
    which multiplies the expert's input instead of its output). Experts that every token goes through (shared experts)
    are not routed and not among them.

    The routing is that of the pass, under its edits. It is a choice, so an edit of attention that moves a token a
    little can flip it: compare the routing with and without an edit before blaming attention alone.

    Where only image tokens are read, the array has the dimension "token", numbered as the image tokens are, with their
    unpadded "position" along it; otherwise it has the dimension "position". With `generate=` a first dimension "step"
    comes before.

    Args:
        layers: "all" for all layers with experts, or such layers, 0-based.
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
        """Its layers and tokens, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.tokens)

    def layers_of(self, routed: Collection[int]) -> tuple[int, ...]:
        """The layers that are read in a model whose layers `routed` have experts.

        Raises:
            SiteError: There are none, or a layer that is named has none.
        """
        if not routed:
            raise SiteError(
                "Experts reads which experts tokens go to, but no layer of this model has a router. Use it with a "
                "mixture of experts, such as qwen3_vl_moe, glm4v_moe or llama4."
            )
        chosen = tuple(sorted(routed)) if isinstance(self.layers, str) else tuple(self.layers)
        dense = [layer for layer in chosen if layer not in routed]
        if dense:
            raise SiteError(
                f"the layers with experts are {', '.join(map(str, sorted(routed)))}; Experts names {dense}, which have "
                'no router. Leave those out, or write layers="all" for all that have one.'
            )
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """The read as JSON values."""
        site = self.site.to_dict()
        return {"experts": {"layers": site["layers"], "tokens": site["queries"]}}


Read: TypeAlias = Rows | Residual | MLP | Experts


def of_tower(one: Any) -> bool:
    """Whether a read or an edit is of the vision tower."""
    return getattr(getattr(one, "site", None), "tower", None) is not None
