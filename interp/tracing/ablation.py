"""The edit that takes whole heads out of a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from interp.errors import EditError
from interp.tracing.edits import Edit, Steps, check_last_of_generated
from interp.tracing.site import Site
from interp.tracing.values import Values

__all__ = ["AblateHeads"]


@dataclass(frozen=True)
class AblateHeads(Edit):
    """Puts zero, or a mean, in the place of a head's whole output.

    A head's output at a position is z = Σ_key p·v over every key it sees, those of generated tokens too, before the
    output projection (`o_proj`; before its gate, in models that have one). Here z becomes 0 or the head's mean over a
    reference set. The weights stay what they are: `interp.Rows` reads them as without the edit.

    This is not `interp.Knockout`, which takes *some keys* away from a head: under "renormalise" the head then says
    something else, with full strength. `Knockout(site, "zero")` of every key gives the same z = 0 in the prompt; of
    generated tokens it leaves the keys of other generated tokens, and this edit does not.

    Zero is no neutral value: heads write a constant part whatever the input, which later layers count on, so that
    removing it overstates what the head does for this input. The mean keeps that part.

    Args:
        site: Layers, heads and queries. Its keys must be left at their default, or "all": they play no part. Queries
            are "last" by default: a head is then ablated in the prompt's last row alone. Write queries="all" for every
            row of the prompt, and queries=["all", "last"] with steps="all" for generated tokens as well.
        by: "zero", or "mean" for `means`.
        means: For "mean": (layer, head, dim), or (head, dim) for (layer, head) pairs, as `interp.head_means` gives
            them; or one such array per sample.
        steps: "prefill" (rows of the prompt), "decode" (the row of each generated token, queries "last") or "all".

    Raises:
        EditError: An unknown `by` or steps, keys named, means with "zero" or none with "mean", or means of other
            dimensions or not finite; when traced, means of another shape than the site's heads.
        SiteError: When traced, a layer or head that is not there, or layers without a softmax.

    Source: zero and mean ablation as in Wang et al. 2022 (arXiv 2211.00593).
    """

    site: Site
    by: Literal["zero", "mean"] = "zero"
    means: Any = None
    steps: Steps = "prefill"

    def __post_init__(self) -> None:
        if not isinstance(self.site, Site):
            raise EditError(
                f"AblateHeads takes a Site first, such as Site(heads=[(14, 3)]); got {self.site!r}."
            )
        if self.site.groups[1] not in (("image",), ("all",)):
            raise EditError(
                f"AblateHeads takes a head's whole output away, of all keys; got keys={self.site.keys!r}. Leave keys "
                "out, or take single keys from a head with interp.Knockout(site)."
            )
        if self.site.tower is not None:
            raise EditError(
                "AblateHeads is for heads of the language model; got tower='vision'. There, "
                "interp.Knockout(Site(…, keys='all', tower='vision'), 'zero') takes a head's output away."
            )
        if not isinstance(self.by, str) or self.by not in ("zero", "mean"):
            raise EditError(f'by is "zero" or "mean"; got {self.by!r}.')
        if (self.by == "mean") != (self.means is not None):
            raise EditError(
                'by="mean" takes means=, and by="zero" takes none. Get them with interp.head_means(mllm, samples, '
                f"site); got by={self.by!r} and means={type(self.means).__name__}."
            )
        check_last_of_generated(self.steps, self.site.groups[0], "AblateHeads")
        if self.means is not None:
            object.__setattr__(self, "means", Values.of(self.means, 2 if self.site.pairs is not None else 3))

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON values, the means by their hash."""
        means = {} if self.means is None else {"means_sha256": self.means.digest}
        return {"ablate_heads": {"site": self.site.to_dict(), "by": self.by, **means, "steps": self.steps}}
