"""Sweeps of one of a method's two parameters with the other fixed, beside published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import pandas as pd
from markupsafe import Markup

from interp.errors import StudyError
from interp.report.html import card, grid, paragraph, save_page, section, table
from interp.report.tables import number
from interp.study.dataframes import records, rows_of, where
from interp.study.page_parts import lead
from interp.study.refinement.result import numeric_pair
from interp.study.refinement.tables import panel_name, percentage_points, places

if TYPE_CHECKING:
    from interp.study.refinement.result import RefinementResult

__all__ = ["fixed_values", "sweep", "write_sweeps"]

SHORT = {"k": "k", "percentile": "p"}
LEAD = Markup("""Accuracy of <b>{models}</b> under the method; each table varies one of its two parameters. All rows of
a table use the same samples.""")
OURS = """The share of right answers in %. In brackets: the difference from the plain model in percentage points, with
its 95 % interval over groups where there are enough groups."""
THEIRS = (
    "The paper's own numbers, on its model and benchmarks. Numbers of other models or samples can differ."
)


@runtime_checkable
class Published(Protocol):
    """A published table."""

    @property
    def frame(self) -> pd.DataFrame:
        """The table's rows."""
        ...

    @property
    def cells(self) -> list[list[str]]:
        """The table's rows as they were printed, as text."""
        ...

    @property
    def note(self) -> str:
        """What does not add up in the table; empty where everything does."""
        ...


def fixed_values(wanted: Mapping[str, float], found: Mapping[str, set[float]]) -> dict[str, float]:
    """The value at which each parameter is held: the wanted one, else the nearest that was run, of two the larger.

    >>> fixed_values({"k": 20, "percentile": 50}, {"k": {1, 6}, "percentile": {30, 50}})
    {'k': 6, 'percentile': 50}
    """
    return {
        name: min(found[name], key=lambda one, value=value: (abs(one - value), -one))
        for name, value in wanted.items()
    }


def sweep(result: RefinementResult, along: str, fixed: Mapping[str, float]) -> pd.DataFrame:
    """The accuracies along one parameter, with the other at its fixed value; columns as in `result.summary()`.

    Args:
        result: A grid over the two numbers `along` and one of `fixed`.
        along: The parameter that varies: "k" or "percentile".
        fixed: Parameter → the value at which it is held.

    Raises:
        StudyError: The result is no grid over these two parameters, or its samples have no answers.
    """
    pair = numeric_pair(result.parameters, result.axes)
    if pair is None or set(pair) != set(fixed) or along not in fixed:
        raise StudyError(
            f"a sweep goes through a grid over {' and '.join(fixed)}; the methods here differ in "
            f"{', '.join(pair or ()) or 'other things'}."
        )
    summary = result.summary()
    own = where(summary, summary.measure == "correct")
    if own.empty:
        raise StudyError("a sweep shows accuracies, and the samples have no answers to judge.")
    (other,) = set(fixed) - {along}
    merged = own.merge(result.parameters, on=list(result.axes))
    return where(merged, merged[other] == fixed[other]).sort_values([along])


def write_sweeps(
    result: RefinementResult,
    path: str | Path,
    *,
    fixed: Mapping[str, float],
    published: Mapping[str, Published],
) -> Path:
    """Write the page: for each parameter our table, and the published one below it.

    Args:
        result: A grid over two parameters of one method.
        path: The HTML file.
        fixed: Parameter → the value at which it is held while the other varies.
        published: Parameter → the published table of its sweep, such as an `interp.study.PaperTable`.

    Raises:
        StudyError: The result is no grid over the two parameters, or its samples have no answers.
    """
    body = []
    for along in fixed:
        (other,) = set(fixed) - {along}
        title = f"{SHORT.get(along, along)}, at {SHORT.get(other, other)} = {fixed[other]:g}"
        theirs = published[along]
        note = [paragraph(f"Of these numbers: {theirs.note}.", kind="note")] if theirs.note else []
        cards = [
            card(_ours(result, along, fixed), title="Here"),
            card(
                table([str(column) for column in theirs.frame.columns], theirs.cells),
                paragraph(THEIRS, kind="soft"),
                *note,
                title="The paper",
            ),
        ]
        body.append(section(title, grid(cards, "stacked"), intro=OURS))
    question = "How much does each parameter matter while the other is fixed?"
    return save_page(path, title="Parameter sweeps", question=question, lead=lead(result, LEAD), body=body)


def _ours(result: RefinementResult, along: str, fixed: Mapping[str, float]) -> Markup:
    found, shown = sweep(result, along, fixed), places(result)
    values = sorted(set(found[along]))
    lines = []
    for value in values:
        at = where(found, found[along] == value)
        line = [f"{value:g}"]
        for place in shown:
            rows = records(rows_of(at, place))
            line.append(
                f"{number(100 * rows[0]['after'], 1)} ({percentage_points(rows[0])})" if rows else "–"
            )
        lines.append(line)
    plain = [records(rows_of(found, place))[:1] for place in shown]
    lines.insert(0, ["plain model", *(number(100 * rows[0]["before"], 1) if rows else "–" for rows in plain)])
    return table([SHORT.get(along, along), *(panel_name(result, place) for place in shown)], lines)
