"""Attention rollout: how much of each image token reaches the last row over all paths of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import xarray as xr

from interp.errors import MapError
from interp.indicators.indicator_checks import check_call
from interp.indicators.maps import BATCH_SIZE, ONE_MAP, Maps, Samples, label_map, maps_in_batches
from interp.inputs.prompt import Prompt, Target
from interp.tracing import Mllm, Prefix
from interp.tracing.cost import Meter
from interp.tracing.derived.rollout_rows import rollout
from interp.tracing.passes.prefix_pass import given_as

__all__ = ["Rollout"]


@dataclass(frozen=True)
class Rollout:
    """The last row of ∏_ℓ ½(I + mean_h A_ℓ) at the image tokens, in [0, 1]: over all positions it sums to 1.

    Unlike maps of one row it includes paths through the question's rows and through other image tokens. But it treats
    heads as equal, values as alike, and the residual stream as half of each layer, and it does not depend on the
    target. Early tokens and sinks get most of it, and after many layers little of the place in the image is left.

    Cost: one forward pass, and every layer's attention a second time, in chunks of rows. No S×S matrix is kept; the
    queries and keys of all layers are, until the product has used them.

    Source: Abnar and Zuidema (arXiv 2005.00928).
    """

    dims: ClassVar[tuple[str, ...]] = ONE_MAP

    def __call__(
        self,
        mllm: Mllm,
        samples: Samples,
        *,
        prompt: Prompt | None = None,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch_size: int = BATCH_SIZE,
        progress: bool = True,
    ) -> Maps:
        """The maps (token) of these samples, in micro-batches of `batch_size`, with `progress`, as in `Mllm.trace`.

        They do not depend on the target.

        Raises:
            MapError: A hybrid model, some of whose layers have no softmax.
            InterpError: Samples or prompts that cannot be encoded.
        """
        check_call(mllm, prompt, target)
        return maps_in_batches(self._together, mllm, samples, prompt, target, batch_size, progress)

    def to_dict(self) -> dict[str, Any]:
        """The indicator as JSON values, part of a study's hash."""
        return {"indicator": "rollout"}

    def _together(self, mllm: Mllm, samples: Samples, prompt: Prompt | None, target: Target) -> Maps:
        """The maps of samples that run together."""
        linear = list(mllm.linear_heads)
        if linear:
            raise MapError(
                f"rollout multiplies the attention of every layer, rows that sum to 1; layers {linear} of this model "
                "are linear (gated DeltaNet), with signed rows, or convolutions, with none. Use Attention(), or "
                "TokenKnockout(), for this model."
            )
        with Meter(mllm.device) as meter:
            given = given_as(mllm, samples, prompt)
            batch = given.batch if isinstance(given, Prefix) else given
            shares, after = rollout(mllm, batch, meter)
            table = shares.cpu().numpy()
            maps = tuple(
                label_map(table[i, tokens.image + int(batch.pad[i])], tokens, "attention rollout")
                for i, tokens in enumerate(batch.tokens)
            )
            logits = xr.DataArray(after.cpu().numpy(), dims=["sample", "token_id"], name="logits")
        return Maps(maps, batch.tokens, meter.cost, logits)
