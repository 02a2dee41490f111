"""Tables of a benchmark: by a field of the samples, averages, rows as papers print them, yes-or-no questions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.inputs.answers import plain
from interp.report.tables import count, number
from interp.stats import bootstrap, stratified_mean, yes_no_change, yes_no_marks
from interp.study.dataframes import below, rows_of, where
from interp.study.refinement.method_comparison import change, with_holm
from interp.study.refinement.result import PairedResult
from interp.study.result import printed

if TYPE_CHECKING:
    from interp.study.refinement.result import PairedResult
    from interp.study.runs import GridCell

__all__ = [
    "ALL",
    "AS_IT_IS",
    "MODEL",
    "NOT_GIVEN",
    "SIZES",
    "answer_rows",
    "asks_yes_or_no",
    "averages",
    "by",
    "cell_text",
    "left_out",
    "mean_of_strata",
    "mean_rows",
    "pooled",
    "rows_text",
    "strata",
    "stratum_of",
    "yes_no_table",
]


NOT_GIVEN = "not given"
FIELDS = ("benchmark", "modality", "subject", "question_type", "kind", "negatives")
"""The fields of `meta` that divide samples, where samples have them."""
MOST = 40
"""A field with more values than this identifies samples and does not divide them."""


def strata(result: PairedResult) -> tuple[str, ...]:
    """The fields of `FIELDS` that have 2 to 40 values in at least one cell."""
    found = []
    for key in FIELDS:
        counts = [len(set(_values(cell, key).values()) - {NOT_GIVEN}) for cell in result.cells]
        if any(1 < count <= MOST for count in counts):
            found.append(key)
    return tuple(found)


def by(result: PairedResult, key: str, measure: str, level: float) -> pd.DataFrame:
    """Before and after for each value of a field; see `BenchmarkResult.by`."""
    rows = []
    for cell in _divided(result, key):
        own = _measured(result, cell, measure)
        own = own.assign(stratum=stratum_of(own, cell, key))
        for value, part in own.groupby("stratum", sort=False):
            found = change(part, measure, level=level, seed=result.seed, marks=result.marks)
            if result.is_plain(cell):
                found["p"] = math.nan
            rows.append({**cell.labels, key: value, "measure": measure, **found})
    return with_holm(rows, (*result.axes, key, "measure", "p"))


def _divided(result: PairedResult, key: str) -> list[GridCell]:
    """The measured cells that have the field in at least one sample; all measured cells for "data"."""
    if not isinstance(key, str):
        raise StudyError(f'a field of meta is a name, such as "modality"; got {key!r:.200}.')
    measured = [cell for cell in result.cells if cell.measured]
    found = [cell for cell in measured if key == "data" or set(_values(cell, key).values()) != {NOT_GIVEN}]
    if measured and not found:
        raise StudyError(
            f"no sample has a field {key!r} in its meta, so there is nothing to divide by. Fields that benchmarks' "
            f"readers give are {', '.join(FIELDS)}."
        )
    return found


def pooled(result: PairedResult, over: str, measure: str) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The marked samples of each table line: its labels, and each sample's before, after, group and stratum.

    The data sets of one model and method form one line; no group belongs to two data sets.
    """
    lines: dict[tuple[str, ...], list[pd.DataFrame]] = {}
    axes = [axis for axis in result.axes if axis != "data"]
    for cell in _divided(result, over):
        own = _measured(result, cell, measure)
        data = cell.labels["data"]
        stratum = data if over == "data" else stratum_of(own, cell, over)
        own = own.assign(stratum=stratum, group=data + ": " + own.group.astype(str))
        own = where(own, own.before.notna() & own.after.notna())
        lines.setdefault(tuple(cell.labels[axis] for axis in axes), []).append(own)
    return [(dict(zip(axes, key, strict=True)), below(parts)) for key, parts in lines.items()]


def averages(
    result: PairedResult, over: str, measure: str, weights: Mapping[str, float] | None, level: float
) -> pd.DataFrame:
    """Averages over data sets or a field; see `BenchmarkResult.averages`."""
    rows = []
    for labels, own in pooled(result, over, measure):
        if own.empty:
            continue
        names = list(dict.fromkeys(own.stratum))
        sizes = {name: int((own.stratum == name).sum()) for name in names}
        kinds: dict[str, Mapping[str, float] | None] = {"micro": sizes, "macro": None}
        kinds |= {} if weights is None else {"weighted": weights}
        told = ", ".join(f"{name} {n}" for name, n in sizes.items())
        for kind, shares in kinds.items():
            found = _average(own, shares, level, result.seed)
            rows.append({**labels, "average": kind, "n_strata": len(names), **found, "strata": told})
    return pd.DataFrame(rows)


def _average(
    own: pd.DataFrame, weights: Mapping[str, float] | None, level: float, seed: int
) -> dict[str, Any]:
    """Averages before and after, and their difference; weights None gives each stratum the same weight."""
    strata, groups = own.stratum.tolist(), own.group.to_numpy(object)
    before, after = own.before.to_numpy(float), own.after.to_numpy(float)
    gaps = after - before
    sizes = isinstance(weights, Mapping) and dict(weights) == own.stratum.value_counts().to_dict()
    if sizes:
        interval = bootstrap(gaps, groups, level=level, seed=seed)
    else:
        interval = stratified_mean(gaps, strata, groups, weights=weights, level=level, seed=seed)
    return {
        "before": mean_of_strata(before, strata, weights),
        "after": mean_of_strata(after, strata, weights),
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "n_groups": interval.n_groups,
    }


def mean_of_strata(
    values: Float[np.ndarray, " row"], strata: Sequence[str], weights: Mapping[str, float] | None
) -> float:
    """The weighted mean of the strata's means; weights None gives each stratum the same weight."""
    names = list(dict.fromkeys(strata))
    codes = pd.factorize(np.asarray(strata, object))[0]
    means = np.bincount(codes, weights=values) / np.bincount(codes)
    shares = np.array([1.0 if weights is None else float(weights[name]) for name in names])
    return float((shares * means).sum() / shares.sum())


def _measured(result: PairedResult, cell: GridCell, measure: str) -> pd.DataFrame:
    own = rows_of(result.pairs, cell.labels)
    return where(own, own.measure == measure)


def _values(cell: GridCell, key: str) -> dict[int, str]:
    """Sample index → the sample's value of a field of `meta`, as text."""
    found = (sample.meta.get(key) for sample in cell.study.data)
    return {index: NOT_GIVEN if value is None else str(value) for index, value in enumerate(found)}


def stratum_of(own: pd.DataFrame, cell: GridCell, key: str) -> list[str]:
    """The value of a field of `meta` for each row, as text."""
    values = _values(cell, key)
    return [values[index] for index in own["index"].tolist()]


MODEL = "model"
AVERAGES = ("micro", "macro")
AS_IT_IS = "as it is"
SIZES = "N"
WIDTH = 170


def answer_rows(result: PairedResult, over: str, measure: str) -> pd.DataFrame:
    """The table as papers print it; see `BenchmarkResult.rows`."""
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
    """ "before" and "after" → the line's name; the plain models of several methods share one line."""
    rest = [value for axis, value in labels.items() if axis not in ("model", "method")]
    own = " · ".join([labels["model"], *rest])
    names = {"before": f"{own}, {AS_IT_IS}"}
    return names if plain else {**names, "after": f"{own}, {labels['method']}"}


def rows_text(rows: pd.DataFrame, title: str) -> str:
    """The rows as a text table."""
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(rows.columns):
        table.add_column(Text(str(name)), justify="right" if place else "left", no_wrap=not place)
    for row in rows.itertuples(index=False):
        table.add_row(*(Text(cell_text(cell, str(row[0]) == SIZES)) for cell in row))
    return printed(table, WIDTH)


def cell_text(cell: Any, whole: bool = False) -> str:
    """A cell as text: a number with one decimal or a whole one, a text as it is, a dash for a missing value."""
    if isinstance(cell, str):
        return cell
    if pd.isna(cell):
        return "–"
    return f"{int(cell):,}" if whole else number(float(cell), 1)


def mean_rows(result: PairedResult, over: str = "data") -> pd.DataFrame:
    """The table of the mean over all scorers, in percent: each answer counts by the mean of its scores.

    As every scorer scores the same answers, it is the mean of their tables.
    """
    tables = [answer_rows(result, over, measure).set_index(MODEL) for measure in result.measure_names]
    mean = sum(tables[1:], tables[0]) / len(tables)
    mean.loc[SIZES] = tables[0].loc[SIZES]
    return mean.reset_index()


def left_out(failures: pd.DataFrame) -> str:
    """A sentence on how many questions could not be answered, each counted once; empty where all were answered."""
    if failures.empty:
        return ""
    questions = failures.drop_duplicates(["data", "sample"])
    runs = f" in {count(len(failures), 'run')}" if len(failures) > len(questions) else ""
    are = "is" if len(questions) == 1 else "are"
    return f"{count(len(questions), 'question')} could not be answered{runs} and {are} left out."


ALL = "all"
"""The name of the stratum of all questions, unless a value of the field has that name."""


def asks_yes_or_no(result: PairedResult) -> bool:
    """Whether every answer in every cell is yes or no, and both occur in each cell."""
    found = [{plain(one) for one in _answered(cell).answer} for cell in result.cells if cell.measured]
    return bool(found) and all(answers == {"yes", "no"} for answers in found)


def yes_no_table(result: PairedResult, key: str | None, level: float) -> pd.DataFrame:
    """POPE's marks; see `BenchmarkResult.yes_no`."""
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
            "precision and recall need questions with the answer yes or no; there are none here. Make some with "
            "interp.data.presence_questions."
        )
    first = [*result.axes, *([] if key is None else [key])]
    whole = pd.concat(rows, ignore_index=True)
    return whole.reindex(columns=[*first, *(name for name in whole.columns if name not in first)])


def _answered(cell: GridCell) -> pd.DataFrame:
    own = cell.frame("samples")
    return where(own, own.answer.notna())


def _name_of_all(result: PairedResult, key: str | None) -> str:
    """The name of the stratum of all questions: "all", or longer where the field has that value."""
    cells = [] if key is None else [cell for cell in result.cells if cell.measured]
    known = {value for cell in cells for value in stratum_of(cell.frame("samples"), cell, str(key))}
    name = ALL
    while name in known:
        name = f"{name} questions"
    return name


def _parts(cell: GridCell, key: str | None, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The yes-or-no questions of a cell: all of them, and those of each of several values of the field."""
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
