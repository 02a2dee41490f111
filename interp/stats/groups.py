"""Rows and the groups they belong to: checks, sums, and values per group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from interp.errors import StudyError
from interp.inputs.argument_checks import check_whole
from interp.metrics.numbers import plain_array, real_numbers

__all__ = ["MIN_GROUPS", "Groups", "check_rows", "group_sums", "per_group", "population_note"]

MIN_GROUPS = 20  # with 6 volumes a 95 % interval over images covers only 58 %: make no claim below 20 groups

VALUES = "values are one number for each row"
"""What statistics take, as the subject of their errors."""

Groups = Sequence | np.ndarray | pd.Series | None


def per_group(values: ArrayLike, groups: Sequence | np.ndarray | pd.Series) -> pd.DataFrame:
    """One row per group: `group`, `mean`, `n` (rows kept) and `n_nan`, in order of first appearance.

    A group whose every value is NaN has a NaN mean and n = 0; a missing label gets a row of its own.

    Raises:
        StudyError: Values and groups of different lengths, or infinite values.
    """
    if groups is None:
        raise StudyError("per_group needs the group of each row; got None. Pass one label for each value.")
    rows, codes = check_rows(values, groups)
    labels = np.asarray(pd.Series(labels_of(groups), dtype=object), dtype=object)
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    kept = ~np.isnan(rows)
    counts = np.bincount(codes[kept], minlength=n_groups)
    sums = np.bincount(codes[kept], weights=rows[kept], minlength=n_groups)
    first = np.unique(codes, return_index=True)[1]
    frame = {
        "group": labels[first],
        "mean": np.where(counts > 0, sums / np.maximum(counts, 1), np.nan),
        "n": counts,
        "n_nan": np.bincount(codes[~kept], minlength=n_groups),
    }
    return pd.DataFrame(frame).iloc[np.argsort(first)].reset_index(drop=True)


def population_note(n_groups: int) -> str:
    """The sentence to print beside a mean over fewer than 20 groups; empty from 20 on.

    Example:
        >>> population_note(25)
        ''
    """
    check_whole("n_groups", n_groups, 0, StudyError)
    if n_groups >= MIN_GROUPS:
        return ""
    noun = "group" if n_groups == 1 else "groups"
    return (
        f"Only {n_groups} {noun}: fewer than {MIN_GROUPS}, so the interval says nothing reliable about other "
        "groups. Read the values per group; no claim about a population is made."
    )


def check_rows(
    values: ArrayLike, groups: Groups
) -> tuple[Float[np.ndarray, " row"], Int[np.ndarray, " row"]]:
    """The values as float64, and the groups as integers from 0; a missing label is a group of its own.

    Raises:
        StudyError: Values that are no numbers, groups that are no list of labels, lengths that differ, or infinite
            values.
    """
    rows = real_numbers(values, VALUES, StudyError, missing=True)
    groups = None if groups is None else labels_of(groups)
    if rows.ndim != 1 or (groups is not None and len(groups) != len(rows)):
        came = f"values {rows.shape}" + ("" if groups is None else f" and {len(groups)} groups")
        raise StudyError(f"one value and one group per row are expected; got {came}. Pass two equal columns.")
    if np.isinf(rows).any():
        raise StudyError(
            f"values must be finite or NaN; got {int(np.isinf(rows).sum())} infinite of {len(rows)}. "
            "Mark undefined values as NaN: they are dropped and counted."
        )
    if groups is None:
        return rows, np.arange(len(rows))
    try:
        codes = pd.factorize(pd.Series(groups, dtype=object))[0].astype(np.int64)
    except (TypeError, ValueError) as error:  # labels that cannot be compared or hashed, such as lists
        raise StudyError(
            f"groups are one label for each row, such as the names of patients; got labels that are none ({error}). "
            "Pass strings or numbers."
        ) from error
    missing = codes < 0
    codes[missing] = codes.max(initial=-1) + 1 + np.arange(missing.sum())
    return rows, codes


def labels_of(groups: Any) -> Any:
    """The labels of groups as a list or an array; a tensor's are its numbers.

    Raises:
        StudyError: A text, a mapping, a set, or anything else that is no list of labels.
    """
    what = "groups are a list of one label for each row"
    if isinstance(groups, str | bytes | type | Mapping | Set) or not hasattr(groups, "__len__"):
        raise StudyError(f"{what}; got {groups!r}. Pass a list, an array or a column.")
    if isinstance(groups, list | tuple):
        return [one.item() if hasattr(one, "detach") and one.ndim == 0 else one for one in groups]
    return groups if isinstance(groups, pd.Series) else plain_array(groups, what, StudyError)


def group_sums(
    rows: Float[np.ndarray, " row"], codes: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " group"], Int[np.ndarray, " group"]]:
    """Sum and count of each group, sorted by value, so that the result does not depend on the order of rows."""
    _, compact, counts = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, compact))
    sums = np.bincount(compact[order], weights=rows[order], minlength=len(counts)).astype(np.float64)
    by_value = np.lexsort((sums, counts))
    return sums[by_value], counts[by_value]
