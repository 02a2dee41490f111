"""Marks of a benchmark's yes-or-no questions, after POPE: precision, recall, F1 and the share of yes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.errors import StudyError
from interp.inputs.answers import plain
from interp.stats import yes_no_change, yes_no_marks
from interp.study.benchmark.averages import stratum_of
from interp.study.dataframes import where

if TYPE_CHECKING:
    from interp.study.refinement.paired_result import PairedResult
    from interp.study.runs import GridCell

__all__ = ["ALL", "asks_yes_or_no", "yes_no_table"]

ALL = "all"
"""The stratum of all questions together, where no value of the field is called so."""


def asks_yes_or_no(result: PairedResult) -> bool:
    """Whether every question of every cell that has an answer has the answer yes or no, of which both occur."""
    found = [{plain(one) for one in _answered(cell).answer} for cell in result.cells if cell.measured]
    return bool(found) and all(answers == {"yes", "no"} for answers in found)


def yes_no_table(result: PairedResult, key: str | None, level: float) -> pd.DataFrame:
    """See `BenchmarkResult.yes_no`."""
    name = _name_of_all(result, key)
    rows = [
        found.assign(**cell.labels, **({} if key is None else {key: stratum}))
        for cell in result.cells
        if cell.measured
        for stratum, own in _parts(cell, key, name)
        for found in [_marks(own, result.seed, level)]
    ]
    if not rows:
        raise StudyError(
            "no question here has the answer yes or no, of which precision and recall are. Ask some, as "
            "interp.data.presence_questions makes them."
        )
    first = [*result.axes, *([] if key is None else [key])]
    whole = pd.concat(rows, ignore_index=True)
    return whole.reindex(columns=[*first, *(name for name in whole.columns if name not in first)])


def _answered(cell: GridCell) -> pd.DataFrame:
    own = cell.frame("samples")
    return where(own, own.answer.notna())


def _name_of_all(result: PairedResult, key: str | None) -> str:
    """What all questions together are called: "all", or longer where the field has such a value."""
    cells = [] if key is None else [cell for cell in result.cells if cell.measured]
    known = {value for cell in cells for value in stratum_of(cell.frame("samples"), cell, str(key))}
    name = ALL
    while name in known:
        name = f"{name} questions"
    return name


def _parts(cell: GridCell, key: str | None, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The yes-or-no questions of a cell: all of them, and those of each value of the field, where it has several."""
    own = _answered(cell)
    own = where(own, own.answer.map(lambda one: plain(one) in ("yes", "no")))
    if not len(own):
        return
    yield name, own
    if key is not None:
        strata = pd.Series(stratum_of(own, cell, key), index=own.index)
        values = list(dict.fromkeys(strata))
        for value in values if len(values) > 1 else ():
            yield value, where(own, strata == value)


def _marks(own: pd.DataFrame, seed: int, level: float) -> pd.DataFrame:
    before, after = (_texts(own[name]) for name in ("text_before", "text_after"))
    truth, groups = own.answer.tolist(), own.group.tolist()
    options: dict[str, Any] = {"seed": seed, "level": level}
    marks = yes_no_marks(after, truth, groups, **options)
    changes = yes_no_change(before, after, truth, groups, **options)
    return pd.DataFrame(
        {
            "measure": marks.measure,
            "value": marks["mean"],
            "low": marks.low,
            "high": marks.high,
            "before": changes.before,
            "difference": changes.difference,
            "difference_low": changes.low,
            "difference_high": changes.high,
            "n": marks.n,
            "n_groups": marks.n_groups,
            "note": marks.note,
        }
    )


def _texts(column: Iterable[Any]) -> list[str | None]:
    return [one if isinstance(one, str) else None for one in column]
