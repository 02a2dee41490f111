"""What the pages of several studies share: the first paragraph, what was left out, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.report.html import paragraph
from interp.report.provenance import failure_list, opening, provenance
from interp.report.tables import count, listed, times
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.result import GridResult

__all__ = ["failure_line", "failures_by_sample", "lead", "origins"]


def lead(result: GridResult, words: Markup, *, note: str = "", **values: Any) -> Markup:
    """The page's first paragraph, with a warning where a run used a bundled organism.

    Args:
        result: The page's result.
        words: The paragraph. {models} and {data} stand for the names of both, {samples} for “80 samples”.
        note: A sentence to add to the warning.
        **values: What other fields of the paragraph stand for.
    """
    models, data = (listed(cell.labels[axis] for cell in result.cells) for axis in ("model", "data"))
    samples = count(result.n_samples, "sample")
    filled = words.format(**{"models": models, "data": data, "samples": samples, **values})
    return opening(filled, organism=any(is_organism(cell.study.model) for cell in result.cells), note=note)


def failure_line(result: GridResult) -> str:
    """How many samples were left out, with the five most frequent reasons, in a sentence."""
    found = result.failures
    if found.empty:
        return "None: every sample was measured."
    return f"{len(found)} left out: {times(found.reason.value_counts().head(5))}"


def failures_by_sample(result: GridResult) -> Markup:
    """The samples that were left out, each with its model, its data set and the reason."""
    if result.failures.empty:
        return paragraph("None: every sample was measured.", kind="wide")
    return failure_list(result.failures, ["model", "data", "sample"])


def origins(result: GridResult, origin: Callable[[Any], Markup], *, folded: bool = False) -> Markup:
    """The section that says how each run was made.

    Args:
        result: The page's result.
        origin: Writes the entry of one run, given its cell.
        folded: Whether the entries are folded until a reader opens them.
    """
    runs = ((" · ".join(cell.key), origin(cell)) for cell in result.cells)
    return provenance(runs, folded=folded)
