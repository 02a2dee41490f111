"""How far raters agree: Krippendorff's alpha, and Cohen's weighted kappa of two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.inputs.argument_checks import check_one_of
from interp.metrics.numbers import real_numbers

__all__ = ["krippendorff_alpha", "weighted_kappa"]

LEVELS = ("nominal", "ordinal", "interval", "ratio")
WEIGHTS = ("linear", "quadratic")


def krippendorff_alpha(ratings: ArrayLike, *, level: str = "ordinal") -> float:
    """Krippendorff's alpha: 1 − observed disagreement / disagreement expected by chance, over pairs of ratings.

    1 is perfect agreement, 0 what chance gives, below 0 systematic disagreement. Any number of raters; each may have
    left out units, and a unit with fewer than two ratings does not count.

    Args:
        ratings: (rater, unit) numbers; NaN where a rater did not rate the unit.
        level: "nominal", "ordinal", "interval" or "ratio": how far apart two values are.

    Returns:
        Alpha; NaN where no unit has two ratings, or all paired ratings are one value, which leaves nothing to agree on.

    Raises:
        StudyError: No table of numbers, an unknown level, infinite values, or the library is missing.

    Source: Krippendorff, Computing Krippendorff's alpha-reliability (2011); computed by the library `krippendorff`.

    Example:
        >>> krippendorff_alpha([[1, 2, 3, 3], [1, 2, 3, 3]])
        1.0
    """
    check_one_of("level", level, LEVELS, StudyError)
    table = _table("ratings are a table (rater, unit) of numbers", ratings)
    if table.ndim != 2:
        raise StudyError(
            f"ratings are a table (rater, unit); got shape {table.shape}. Pass one row for each rater."
        )
    paired = table[:, (~np.isnan(table)).sum(axis=0) >= 2]
    values = np.unique(paired[~np.isnan(paired)])
    if len(values) < 2:
        return float("nan")
    return float(_library().alpha(reliability_data=paired, level_of_measurement=level))


def weighted_kappa(
    a: ArrayLike, b: ArrayLike, values: Sequence[float], *, weights: str = "quadratic"
) -> float:
    """Cohen's kappa of two raters on an ordered scale: 1 − weighted disagreement / that expected from their margins.

    1 is perfect agreement, 0 what two raters with these margins reach by chance. Units that either left out (NaN) do
    not count.

    Args:
        a: (unit,) the first rater's values.
        b: (unit,) the second's, of the same units.
        values: Every value of the scale, in order, used or not.
        weights: "quadratic" or "linear" in the distance of two values on the scale.

    Returns:
        Kappa; NaN without common units, or where both gave one and the same value throughout.

    Raises:
        StudyError: Lengths that differ, a value that is not on the scale, or unknown weights.

    Source: Cohen, Weighted kappa, Psychol. Bull. 70 (1968) 213–220; computed by scikit-learn.

    Example:
        >>> weighted_kappa([1, 2, 3, 3], [1, 2, 3, 2], values=[1, 2, 3])
        0.8
    """
    check_one_of("weights", weights, WEIGHTS, StudyError)
    first, second = (_table("ratings are one number for each unit", given) for given in (a, b))
    scale = _table("values are the numbers of the scale", values)
    if first.ndim != 1 or first.shape != second.shape or scale.ndim != 1:
        raise StudyError(
            f"kappa compares two raters on the same units; got shapes {first.shape} and {second.shape}, and a scale of "
            f"shape {scale.shape}. Give each unit one place in both, NaN where it was not rated."
        )
    kept = ~np.isnan(first) & ~np.isnan(second)
    codes = [_places(rows[kept], scale) for rows in (first, second)]
    if not kept.any() or len(np.unique(np.concatenate(codes))) < 2:
        return float("nan")
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(*codes, labels=np.arange(len(scale)), weights=weights))


def _places(rows: Float[np.ndarray, " unit"], scale: Float[np.ndarray, " value"]) -> np.ndarray:
    """The place on the scale of each value."""
    order = {float(value): place for place, value in enumerate(scale)}
    strange = sorted({float(value) for value in rows} - set(order))
    if strange or len(order) < len(scale):
        raise StudyError(
            f"the scale is {[float(value) for value in scale]}, each value once; got the ratings {strange[:5]} beside "
            "it. Pass every value of the scale in values=, in order."
        )
    return np.array([order[float(value)] for value in rows], dtype=np.int64)


def _table(what: str, given: Any) -> Float[np.ndarray, ...]:
    table = real_numbers(given, what, StudyError, missing=True)
    if np.isinf(table).any():
        raise StudyError(
            f"{what}, NaN where there is none; got infinite values. Mark what is missing as NaN."
        )
    return table


def _library() -> Any:
    try:
        import krippendorff
    except ImportError as error:
        raise StudyError(
            "Krippendorff's alpha needs the library krippendorff; install it with: pip install 'interp[curation]'"
        ) from error
    return krippendorff
