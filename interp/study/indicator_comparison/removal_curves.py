"""Faithfulness of several maps of one sample: the same fractions of tokens are removed in the same way for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.errors import MapError
from interp.inputs.prompt import Diff, Target
from interp.metrics import comprehensiveness, curve_area, most_important, normalised, sufficiency

__all__ = ["CURVES", "MEASURES", "Curves", "measured", "run_removal", "scaled"]

CURVES = ("deletion", "insertion")
MEASURES = ("deletion", "insertion", "comprehensiveness", "sufficiency")
VARIANTS = 32


@dataclass(frozen=True, eq=False)
class Curves:
    """The target's value, in nats, for one map under one removal; the fractions begin with 0 and end with 1.

    Attributes:
        deletion: Without the most important tokens, by the share removed.
        insertion: With the most important tokens alone, by the share kept.
    """

    deletion: Float[np.ndarray, " fraction"]
    insertion: Float[np.ndarray, " fraction"]


def run_removal(
    removal: Any,
    mllm: Any,
    sample: Any,
    maps: Mapping[str, Float[np.ndarray, " token"]],
    steps: Sequence[float],
    *,
    seed: int,
    options: Mapping[str, Any],
) -> tuple[dict[str, Curves], Any]:
    """Each map's curves over (0, *steps, 1), and the cost of the removal; one call for all maps.

    Raises:
        MapError: A value of the target is not finite.
    """
    n = len(next(iter(maps.values())))
    masks = [np.ones((1, n), bool)]
    for values in maps.values():
        first = most_important(values, steps, seed=seed)
        masks += [first, ~first]
    found = removal.scores(mllm, sample, np.concatenate(masks), batch=VARIANTS, **options)
    values = np.asarray(found.values, np.float64)
    if not np.isfinite(values).all() or not np.isfinite(found.plain):
        raise MapError(
            f'the target is NaN or infinite with tokens taken away by {removal.name}. Try dtype="float32".'
        )
    parts = values[1:].reshape(len(maps), len(CURVES), len(steps))
    ends = float(found.plain), float(values[0])
    curves = {
        label: Curves(np.array([ends[0], *without, ends[1]]), np.array([ends[1], *only, ends[0]]))
        for label, (without, only) in zip(maps, parts, strict=True)
    }
    return curves, found.cost


def scaled(values: Float[np.ndarray, "*shape"], target: Target) -> Float[np.ndarray, "*shape"]:
    """The target's value on the scale of faithfulness: a probability, or nats for a difference of answers."""
    return values if isinstance(target.spec, Diff) else np.exp(values)


def measured(
    curves: Curves, steps: Sequence[float], erased: Sequence[float], target: Target, least: float
) -> dict[str, float]:
    """The areas of the normalised curves, and the mean falls over the erased fractions, by name of measure."""
    shares = np.array([0.0, *steps, 1.0])
    without, only = (scaled(values, target) for values in (curves.deletion, curves.insertion))
    untouched, removed = without[0], without[-1]
    places = [list(shares).index(share) for share in erased]
    areas = [
        float(curve_area(shares, normalised(values, untouched, removed, least=least)))
        for values in (without, only)
    ]
    falls = float(comprehensiveness(untouched, without[places])), float(sufficiency(untouched, only[places]))
    return dict(zip(MEASURES, (*areas, *falls), strict=True))
