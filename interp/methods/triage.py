"""The first half of VGRefine: which image tokens the chosen heads look at more than for a generic prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.prompt import Prompt
from interp.sample import Sample
from interp.tracing import Cost, Mllm, Prefix, Rows, Site

__all__ = ["HeadMaps", "Reference", "Triage", "kept_tokens", "measure_heads"]

Reference = Literal["layer-mean", "per-head", "none"]


class Triage(NamedTuple):
    """One sample's map, float64 (token,), and the image tokens it keeps, bool (token,)."""

    map: Float[np.ndarray, " token"]
    kept: Bool[np.ndarray, " token"]


@dataclass(frozen=True, eq=False)
class HeadMaps:
    """What each chosen head sees, sample by sample.

    Attributes:
        maps: One float64 (head, token) per sample, heads in the method's order; the mean of its first k rows is
            the map of the first k heads.
        cost: What measuring took, for the whole batch.
    """

    maps: tuple[Float[np.ndarray, "head _"], ...]
    cost: Cost


def kept_tokens(values: Float[np.ndarray, " token"], percentile: float) -> Bool[np.ndarray, " token"]:
    """True where a map is not strictly below its own percentile.

    The percentile is numpy's default, linear between the two nearest values: of N values in increasing order
    v₀ … v_{N−1}, v at index percentile/100 · (N − 1). Values equal to it are kept, so percentile 0 keeps all
    tokens, 100 those at the maximum, and a map whose values are all equal is kept whole. So is one with more
    zeros than the percentile drops: its percentile is 0 and nothing is below it.

    Raises:
        MapError: A map that is not (token,) with a token at least, or with a value that is not finite.

    >>> kept_tokens(np.array([1.0, 2.0, 3.0, 4.0]), 50).tolist()
    [False, False, True, True]
    """
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise MapError(
            f"a map is finite values over the image tokens, shape (token,); got shape {values.shape} with "
            f"{int((~np.isfinite(values)).sum())} values that are not finite."
        )
    return values >= np.percentile(values, percentile)


def measure_heads(
    mllm: Mllm,
    run: list[Sample] | Prefix,
    pairs: Sequence[tuple[int, int]],
    *,
    prompt: Prompt,
    generic: Prompt,
    reference: Reference,
    epsilon: float,
) -> HeadMaps:
    """Each chosen head's last-row attention to the image, over that of the generic prompt plus epsilon.

    The generic prompt's attention is the mean over all heads of the head's layer ("layer-mean") or the head's own
    ("per-head"); with "none" there is no division, and no pass of the generic prompt.
    """
    heads = Rows(Site(heads=list(pairs), queries="last", keys="image"))
    asked = mllm.trace(run, prompt=prompt, reads=[heads])
    weights = [one.rows.values[:, 0].astype(np.float64) for one in asked]
    if reference == "none":
        return HeadMaps(tuple(weights), asked.cost)
    layers = sorted({layer for layer, _ in pairs})
    means = Rows(Site(layers=layers, queries="last", keys="image"), reduce="head")
    other = mllm.trace(run, prompt=generic, reads=[means if reference == "layer-mean" else heads])
    rows = [one.rows.values[:, 0].astype(np.float64) for one in other]
    if reference == "layer-mean":
        rows = [one[[layers.index(layer) for layer, _ in pairs]] for one in rows]
    quotients = (w / (g + epsilon) for w, g in zip(weights, rows, strict=True))
    return HeadMaps(tuple(quotients), asked.cost + other.cost)
