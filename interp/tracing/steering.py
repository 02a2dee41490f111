"""The edit that adds a vector to the residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.errors import EditError
from interp.inputs.argument_checks import check_number
from interp.tracing.edits import Edit, Steps, check_last_of_generated
from interp.tracing.site import Layers, Selector, Site
from interp.tracing.values import Values

__all__ = ["AddResidual"]

_LARGEST = float(torch.finfo(torch.float32).max)


@dataclass(frozen=True)
class AddResidual(Edit):
    """Adds a vector to the residual stream after decoder layers: h + α·v. Known as steering.

    The stream after layer l is what that layer returns, as `interp.Residual` reads it and `interp.PatchResidual` puts
    it: what is added goes into every later layer. The sum is made in float32 and rounded once to the model's dtype.
    With alpha 0, or a vector of zeros, the output stays bit-equal.

    Args:
        layers: "all" or decoder layers, 0-based. Several layers each add their vector, so that a late layer holds what
            the earlier ones added as well; to steer once, name one layer.
        positions: Groups or `interp.positions([…])` of the prompt, unpadded; "last" with steps "decode" or "all"
            also names each generated token.
        vector: (hidden,), the same after each layer; or (layer, hidden), one for each layer named, in that order; or a
            list of one such array per sample. In the stream's own units.
        alpha: α, any finite number; negative steers the other way.
        steps: "prefill" (positions of the prompt), "decode" (each generated token) or "all".

    Raises:
        EditError: A vector of other dimensions or not finite, an alpha that is no finite number, unknown steps, or
            steps that need the position "last"; when traced, a vector of another size than the stream or for another
            number of layers.
        SiteError: Layers or positions that are none, or, when traced, that are not there.

    Source: Turner et al. 2023 (arXiv 2308.10248); Rimsky et al. 2023 (arXiv 2312.06681) for the mean difference that
    `interp.steering_vector` takes.
    """

    layers: Layers
    positions: Selector | Sequence[Selector]
    vector: Any
    alpha: float = 1.0
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        site = Site(layers=self.layers, queries=self.positions)
        object.__setattr__(self, "layers", site.layers)
        object.__setattr__(self, "positions", site.queries)
        check_last_of_generated(self.steps, site.groups[0], "AddResidual")
        alpha = check_number("alpha", self.alpha, low=-_LARGEST, high=_LARGEST, error=EditError)
        object.__setattr__(self, "alpha", alpha)
        object.__setattr__(self, "vector", Values.of(_by_layer(self.vector), 2))

    @property
    def site(self) -> Site:
        """Its layers and positions, as a site's layers and queries."""
        return Site(layers=self.layers, queries=self.positions)

    @property
    def idle(self) -> bool:
        """Whether it changes nothing, whatever the stream."""
        return self.alpha == 0

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the vector by its hash."""
        site = self.site.to_dict()
        where = {"layers": site["layers"], "positions": site["queries"]}
        what = {"vector_sha256": self.vector.digest, "alpha": self.alpha}
        return {"add_residual": {**where, **what, "steps": self.steps}}


def _by_layer(given: Any) -> Any:
    """The vector with a first axis for layers; of a list of vectors, each."""
    if isinstance(given, list | tuple) and given and all(hasattr(one, "shape") for one in given):
        return [_by_layer(one) for one in given]
    flat: Any = given if hasattr(given, "ndim") else np.asarray(given, dtype=object)
    return flat[None] if flat.ndim == 1 else given
