"""Each head's mean score, from sums per group, so that resampling groups is one product of matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from interp.metrics import METRICS

__all__ = ["HeadMeans", "draws", "goodness", "head_order"]


@dataclass(frozen=True, eq=False)
class HeadMeans:
    """Sums and counts of the defined scores of each group and head.

    Attributes:
        heads: (layer, head) pairs in that order.
        groups: The groups' names, sorted, so that the order of samples does not matter.
        sums: Of the defined scores.
        counts: How many are defined.
        undefined: How many are not, per head.
    """

    heads: tuple[tuple[int, int], ...]
    groups: tuple[str, ...]
    sums: Float[np.ndarray, "group pair"]
    counts: Float[np.ndarray, "group pair"]
    undefined: Int[np.ndarray, " pair"]

    @classmethod
    def of(cls, scores: pd.DataFrame) -> HeadMeans:
        """From a frame with the columns group, layer, head, value."""
        by = scores.groupby(["group", "layer", "head"]).value
        sums, counts = (part.unstack(["layer", "head"]).sort_index() for part in (by.sum(), by.count()))
        order = sorted(sums.columns)
        undefined = scores.value.isna().groupby([scores.layer, scores["head"]]).sum()
        return cls(
            tuple((int(layer), int(head)) for layer, head in order),
            tuple(str(group) for group in sums.index),
            sums[order].fillna(0.0).to_numpy(np.float64),
            counts[order].fillna(0).to_numpy(np.float64),
            undefined.reindex(order).to_numpy(np.int64),
        )

    def mean(self, weights: Float[np.ndarray, "draw group"] | None = None) -> Float[np.ndarray, "draw pair"]:
        """Each head's mean, groups counting as often as `weights` say; NaN where nothing is defined.

        Without weights every group counts once, and there is one draw; heads with equal scores then have equal
        means to the last bit, which a product of matrices does not promise.
        """
        if weights is None:
            sums, counts = (part.sum(axis=0, keepdims=True) for part in (self.sums, self.counts))
        else:
            sums, counts = weights @ self.sums, weights @ self.counts
        return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)

    def only(self, kept: Bool[np.ndarray, " pair"]) -> HeadMeans:
        """The same with some of the heads."""
        heads = tuple(head for head, keep in zip(self.heads, kept, strict=True) if keep)
        return HeadMeans(heads, self.groups, self.sums[:, kept], self.counts[:, kept], self.undefined[kept])


def draws(n_groups: int, n: int, rng: np.random.Generator) -> Float[np.ndarray, "draw group"]:
    """How often each group is drawn when as many groups as there are are drawn with replacement, n times."""
    return rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n).astype(np.float64)


def goodness(means: Float[np.ndarray, "*lead pair"], metric: str) -> Float[np.ndarray, "*lead pair"]:
    """Larger is better whatever the metric's direction; heads without a mean are at −∞."""
    signed = means if METRICS[metric].better == "higher" else -means
    return np.where(np.isnan(means), -np.inf, signed)


def head_order(means: Float[np.ndarray, " pair"], metric: str) -> Int[np.ndarray, " pair"]:
    """Places of the heads from best to worst; ties keep their order, heads without a mean come last."""
    return np.argsort(-goodness(means, metric), kind="stable")
