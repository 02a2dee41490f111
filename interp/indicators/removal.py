"""Taking image tokens away from a model: what insertion, deletion, occlusion, RISE and knockout share.

A removal says how a token is taken away: hidden from attention, its embedding replaced, its pixels painted over. One
operator flatters the indicators that are built on it, so whoever measures faithfulness uses several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.indicators.arguments import check_whole
from interp.prompt import PAPER_PROMPT, Prompt, Target
from interp.sample import Sample
from interp.tracing import Cost, Mllm

__all__ = ["Removal", "Removed", "checked_masks"]


@dataclass(frozen=True, eq=False)
class Removed:
    """The target's value under each variant, and with nothing removed.

    Attributes:
        values: nats, one per variant, in the order of the masks.
        plain: nats, nothing removed.
        cost: everything, the plain pass included.
    """

    values: Float[np.ndarray, " variant"]
    plain: float
    cost: Cost


@runtime_checkable
class Removal(Protocol):
    """A way to take image tokens away. Frozen: compares, hashes and serialises."""

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        ...

    def scores(
        self,
        mllm: Mllm,
        sample: Sample,
        masks: Bool[np.ndarray, "variant token"],
        *,
        prompt: Prompt = PAPER_PROMPT,
        target: Target = Target("greedy"),  # noqa: B008 – a frozen value
        batch: int = 32,
    ) -> Removed:
        """The target's value under each variant.

        Args:
            mllm: the model.
            sample: the sample.
            masks: masks[v, j] is True where image token j is taken away in variant v. A variant that takes
                nothing away has the plain value.
            prompt: how the question is put.
            target: the answer whose log-probability is taken. "greedy" means what the untouched model would
                answer, in every variant.
            batch: variants side by side at most; the values do not depend on it, but for rounding.

        Raises:
            MapError: masks that are not boolean with one column per image token.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Everything its numbers depend on, as JSON values."""
        ...


def checked_masks(masks: Any, n: int, batch: int = 1) -> Bool[np.ndarray, "variant token"]:
    """The masks as a boolean array.

    Raises:
        MapError: Another type, or not one column per image token; a batch of no variants.
    """
    check_whole("batch", batch, 1)
    found = np.asarray(masks)
    if found.dtype != bool or found.ndim != 2 or found.shape[1] != n:
        raise MapError(
            f"masks are boolean, (variant, token), with one column for each of the sample's {n} image tokens, True "
            f"where a token is taken away; got {found.dtype} of shape {found.shape}."
        )
    return found
