"""Tables as papers print them: a row per model and method, a column per benchmark, modality or subject, in percent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text

from interp.report.tables import count, number
from interp.study.benchmark.averages import mean_of_strata, pooled
from interp.study.refinement.paired_result import PairedResult
from interp.study.result import printed

__all__ = ["AS_IT_IS", "MODEL", "SIZES", "answer_rows", "cell_text", "left_out", "mean_rows", "rows_text"]

MODEL = "model"
AVERAGES = ("micro", "macro")
AS_IT_IS = "as it is"
SIZES = "N"
WIDTH = 170


def answer_rows(result: PairedResult, over: str, measure: str) -> pd.DataFrame:
    """See `BenchmarkResult.rows`."""
    lines: dict[str, dict[str, Any]] = {}
    sizes: dict[str, int] = {}
    plain = {tuple(cell.labels[axis] for axis in result.axes if axis != "data") for cell in result.cells
             if result.is_plain(cell)}  # fmt: skip
    for labels, own in pooled(result, over, measure):
        if own.empty:
            continue
        counts = own.stratum.value_counts()
        sizes |= {name: max(int(counts[name]), sizes.get(name, 0)) for name in dict.fromkeys(own.stratum)}
        for when, name in _names(labels, tuple(labels.values()) in plain).items():
            parts = own.groupby("stratum", sort=False)
            line = {str(stratum): 100 * np.mean(part[when].to_numpy(float)) for stratum, part in parts}
            values = 100 * own[when].to_numpy(float)
            macro = mean_of_strata(values, own.stratum.tolist(), None)
            lines.setdefault(name, {**line, "micro": float(values.mean()), "macro": macro})
    total = sum(sizes.values())
    first = {**sizes, **dict.fromkeys(AVERAGES, total)}
    frame = pd.DataFrame([{MODEL: SIZES, **first}, *({MODEL: name, **line} for name, line in lines.items())])
    return frame.reindex(columns=[MODEL, *sizes, *AVERAGES])


def _names(labels: dict[str, str], plain: bool) -> dict[str, str]:
    """When → the line's name; the plain model of several methods has one line."""
    rest = [value for axis, value in labels.items() if axis not in ("model", "method")]
    own = " · ".join([labels["model"], *rest])
    names = {"before": f"{own}, {AS_IT_IS}"}
    return names if plain else {**names, "after": f"{own}, {labels['method']}"}


def rows_text(rows: pd.DataFrame, title: str) -> str:
    """The table as text."""
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(rows.columns):
        table.add_column(Text(str(name)), justify="right" if place else "left", no_wrap=not place)
    for row in rows.itertuples(index=False):
        table.add_row(*(Text(cell_text(cell, str(row[0]) == SIZES)) for cell in row))
    return printed(table, WIDTH)


def cell_text(cell: Any, whole: bool = False) -> str:
    """A number of one digit behind the point, a whole one, a text; a dash where there is none."""
    if isinstance(cell, str):
        return cell
    if pd.isna(cell):
        return "–"
    return f"{int(cell):,}" if whole else number(float(cell), 1)


def mean_rows(result: PairedResult, over: str = "data") -> pd.DataFrame:
    """The table of the mean of all scorers, in percent: each answer counts by the mean of its scores.

    As every scorer scores the same answers, it is the mean of their tables.
    """
    tables = [answer_rows(result, over, measure).set_index(MODEL) for measure in result.measure_names]
    mean = sum(tables[1:], tables[0]) / len(tables)
    mean.loc[SIZES] = tables[0].loc[SIZES]
    return mean.reset_index()


def left_out(failures: pd.DataFrame) -> str:
    """How many questions could not be answered, each once whatever the number of runs; empty where all were."""
    if failures.empty:
        return ""
    questions = failures.drop_duplicates(["data", "sample"])
    runs = f" in {count(len(failures), 'run')}" if len(failures) > len(questions) else ""
    are = "is" if len(questions) == 1 else "are"
    return f"{count(len(questions), 'question')} could not be answered{runs} and {are} left out."
