"""Which rows of a prompt an indicator averages: the last token, the question, its object's word, the answer."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from interp.errors import SiteError
from interp.sample import Sample
from interp.tokens import Word, word
from interp.tracing import SampleTrace

__all__ = ["NAMES", "Queries", "averaged", "checked", "generated", "site_queries", "written"]

NAMES = ("last", "question", "label", "answer")
Queries: TypeAlias = str | Word


def checked(queries: Any) -> None:
    """Raise `SiteError` for anything but one of `NAMES` or a word."""
    if not isinstance(queries, Word) and queries not in NAMES:
        names = ", ".join(map(repr, NAMES))
        raise SiteError(f"queries is one of {names}, or interp.word(…); got {queries!r}.")


def written(queries: Queries) -> Any:
    """The queries as JSON."""
    return {"word": queries.text} if isinstance(queries, Word) else queries


def site_queries(queries: Queries) -> Queries:
    """The rows to read: a label's words are found among the question's, those of an answer while generating."""
    return (
        {"label": "question", "answer": "last"}.get(queries, queries) if isinstance(queries, str) else queries
    )


def generated(queries: Queries) -> int:
    """How many tokens to generate: the first has its row once the second is asked for."""
    return 2 if queries == "answer" else 0


def averaged(trace: SampleTrace, sample: Sample, queries: Queries) -> xr.DataArray:
    """The mean of the sample's rows over its queries: ([layer, [head,]] token).

    Raises:
        SiteError: No label or none in the question, an empty answer, or rows without attention to the image.
    """
    rows = trace.rows
    if queries == "answer":
        if rows.sizes["step"] < 2:
            raise SiteError(
                f"the model's answer to sample {sample.id} is empty: its first token ends it and attends to "
                "nothing. queries='answer' needs an answer."
            )
        rows = rows.isel(step=1, drop=True)
    if queries == "label":
        found = trace.tokens.positions(word(_label(sample)))
        rows = rows.isel(query=np.flatnonzero(np.isin(rows["query"].values, found)))
    if queries != "last" and not rows.any():
        raise SiteError(
            f"the rows of queries={queries!r} give the image of sample {sample.id} no attention at any layer. "
            "Text before the image does not see it: use a Prompt with image_first=True, or queries='last'."
        )
    return rows.isel(query=0, drop=True) if rows.sizes["query"] == 1 else _mean(rows)


def _mean(rows: xr.DataArray) -> xr.DataArray:
    return rows.mean("query", dtype=np.float64, keep_attrs=True).astype(np.float32)


def _label(sample: Sample) -> str:
    found = sample.meta.get("label")
    if not isinstance(found, str) or not found.strip():
        raise SiteError(
            f"queries='label' averages over the words of sample.meta['label'] in the question; sample {sample.id} "
            f"has the label {found!r}. Give it one, or use queries='question'."
        )
    return found
