"""Edits that put given values in place of what the model computes: rows of attention, the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import EditError
from interp.tracing.edits import AttentionEdit, Edit, Stage, Steps, check_steps
from interp.tracing.site import Layers, Selector, Site
from interp.tracing.values import Values

__all__ = ["PatchResidual", "PatchRows"]


@dataclass(frozen=True)
class PatchRows(AttentionEdit):
    """Puts given probabilities in the place of the site's, after the softmax; the rest of each row stays.

    The values are what a trace of the same site reads: `trace[i].rows` of one run patched into another. Rows
    need not sum to 1. Keys a row cannot see keep 0. Rows that already hold the values are left bit-equal; rows
    read in a trace of another kind (of other samples together, after a prefix or not, generating or not) differ by
    rounding.

    Args:
        site: Layers, heads, queries and keys.
        values: (layer, head, query, key) as `Rows(site)` reads, or (head, query, key) for (layer, head) pairs,
            the same for every sample; or one such array per sample, as a list or along a first axis. With
            steps "decode" or "all" they have a first dimension "step", 0 being the prompt, as a trace that
            generates reads; the queries must then be "last", and steps past a sample's values stay as they are.
        steps: See `Knockout`.

    Raises:
        EditError: Values of other dimensions or not finite, unknown steps; when traced, another shape than the
            site has in a sample.
    """

    site: Site
    values: Any
    steps: Steps = "prefill"

    @property
    def stage(self) -> Stage:
        """After the softmax."""
        return "probabilities"

    unsure: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self._check()
        if self.steps != "prefill" and self.site.groups[0] != ("last",):
            raise EditError(
                'rows of generated tokens are patched for queries "last", as a trace reads them; got queries='
                f"{self.site.queries!r} with steps={self.steps!r}."
            )
        ndim = (3 if self.site.pairs is not None else 4) + (self.steps != "prefill")
        object.__setattr__(self, "values", Values.of(self.values, ndim))

    def on(
        self, values: Float[Tensor, "sample head row key"], cells: Bool[Tensor, "sample _ row key"]
    ) -> Float[Tensor, "sample head row key"]:
        """The values. The plan of each layer puts the given ones in; this is not called."""
        raise EditError(
            "PatchRows is carried out by the plan of a trace. Pass it as edits=[…] to mllm.trace."
        )

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the values by their hash."""
        site = self.site.to_dict()
        return {"patch_rows": {"site": site, "values_sha256": self.values.digest, "steps": self.steps}}


@dataclass(frozen=True)
class PatchResidual(Edit):
    """Puts given vectors into the residual stream after decoder layers.

    The stream after layer l is what that layer returns, as `interp.Residual` reads it. The next layer gets just
    that (after the last layer, the final norm), except in Qwen3-VL: between its first layers features of the image
    are added to the image tokens (deepstack), after what is patched here.

    Args:
        layers: "all" or decoder layers, 0-based.
        positions: Groups or `interp.positions([…])` of the prompt, unpadded; "last" with steps "decode" or "all"
            also names each generated token.
        values: (layer, position, hidden) as `Residual(layers, positions)` reads, the same for every sample; or
            one such array per sample. With steps "decode" or "all" they have a first dimension "step", the
            positions must be "last", and steps past a sample's values stay as they are.
        steps: "prefill", "decode" or "all".

    Raises:
        EditError: Values of other dimensions or not finite, unknown steps; when traced, values of another shape.
        SiteError: Layers or positions that are none, or, when traced, that are not there.
    """

    layers: Layers
    positions: Selector | Sequence[Selector]
    values: Any
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)
        check_steps(self.steps, site.groups[0])
        if self.steps != "prefill" and site.groups[0] != ("last",):
            raise EditError(
                'the stream of generated tokens is patched at positions "last"; got positions='
                f"{self.positions!r} with steps={self.steps!r}."
            )
        object.__setattr__(self, "values", Values.of(self.values, 3 + (self.steps != "prefill")))

    @property
    def site(self) -> Site:
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the values by their hash."""
        site = self.site.to_dict()
        where = {"layers": site["layers"], "positions": site["queries"]}
        return {"patch_residual": {**where, "values_sha256": self.values.digest, "steps": self.steps}}
