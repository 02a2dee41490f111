"""Adjustment of p values for several tests."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.metrics.numbers import real_numbers

__all__ = ["holm"]


def holm(p_values: ArrayLike) -> Float[np.ndarray, " test"]:
    """Holm's step-down adjustment of a family of p-values, in the order given, in [0, 1].

    With the m defined p-values sorted ascending, p̃₍ᵢ₎ = min(1, max_{j ≤ i} (m − j + 1) · p₍ⱼ₎). Rejecting
    where p̃ ≤ α keeps the chance of any false rejection in the family at most α, however the tests depend on
    one another. NaN (a test that was not possible) stays NaN and does not count in m.

    Args:
        p_values: (test,) numbers in [0, 1] or NaN.

    Raises:
        StudyError: More than one axis, or a number outside [0, 1].

    Source: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979) 65–70.

    Example:
        >>> holm([0.01, 0.04, 0.03, 0.005]).round(3).tolist()
        [0.03, 0.06, 0.06, 0.02]
    """
    found = real_numbers(
        p_values, "p-values are one list of numbers in [0, 1] or NaN", StudyError, missing=True
    )
    if found.ndim != 1 or (found < 0).any() or (found > 1).any():
        raise StudyError(f"p-values are one list of numbers in [0, 1] or NaN; got {p_values!r}.")
    adjusted = np.full(found.shape, np.nan)
    defined = np.flatnonzero(~np.isnan(found))
    order = defined[np.argsort(found[defined], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * found[order]), 1.0)
    return adjusted
