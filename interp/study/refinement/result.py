"""Results of studies that answer every sample before and after a change, such as that of a `Refinement`."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from interp.errors import StudyError
from interp.report.tables import count, p_value
from interp.run import cost_of
from interp.stats import MIN_GROUPS, per_group
from interp.study.dataframes import records, rows_of, where
from interp.study.head_ranking.head_set import HeadSet
from interp.study.refinement.method_comparison import (
    MARKS,
    MEASURES,
    change,
    compare_methods,
    measures_of,
    with_holm,
)
from interp.study.refinement.task import PLAIN, SPENT, TIMES, references
from interp.study.result import GridResult, counted, printed, stored_tokens
from interp.study.runs import GridCell
from interp.study.study import is_level

if TYPE_CHECKING:
    from interp.inputs.tokens import TokenMap

__all__ = [
    "MANY",
    "PairedResult",
    "RefinementCell",
    "RefinementResult",
    "costs",
    "methods_table",
    "numeric_pair",
    "pairs_table",
    "varied",
]


WIDTH = 170
MANY = 20
"""The maximum number of cells for which each group is shown; more is too much to read."""


def methods_table(
    summary: pd.DataFrame,
    per_group: pd.DataFrame | None,
    axes: Sequence[str],
    varied: Sequence[str],
    *,
    measure: str = "correct",
    name: str = "accuracy",
) -> str:
    """One line per cell: mean before and after, difference with interval, flips, tests and cost.

    Args:
        summary: `PairedResult.summary()`.
        per_group: `PairedResult.per_group()`, which is shown below the table; None to leave it out.
        axes: The axes of both tables.
        varied: The axes in which the cells differ; their labels name the lines.
        measure: The measure whose mean is shown. Where "logprob" was measured too, its difference is shown beside it.
        name: The name of the mean.
    """
    table = Table(title=Text(f"{name[:1].upper()}{name[1:]}, plain model → method"), title_justify="left")
    table.add_column(" · ".join(varied) or "method", no_wrap=True)
    for head in (
        "before",
        "after",
        "difference [95 %]",
        "flips + −",
        "McNemar",
        "Holm",
        "Δ log p",
        "s",
        "passes",
        "tokens",
    ):
        table.add_column(head, justify="right")
    more = where(summary, summary.measure == "logprob").set_index(list(axes))
    for row in records(where(summary, summary.measure == measure)):
        key = tuple(row[axis] for axis in axes)
        logprob = _range(more.loc[key].to_dict()) if key in more.index else "–"
        line = " · ".join(row[axis] for axis in varied or ["method"])
        numbers = _numbers(row, logprob)
        table.add_row(*map(Text, (line, *numbers)))
    notes = dict.fromkeys(
        row["note"] for row in records(summary) if row["note"] and row["measure"] == measure
    )
    return "\n".join([printed(table, WIDTH), *notes, *_groups(per_group, varied, name)])


def _numbers(row: Mapping[Any, Any], logprob: str) -> tuple[str, ...]:
    """The cells of a line of `methods_table`, without the line's name."""
    marked = pd.notna(row["p_flips"]) or pd.notna(row["wrong_to_right"])
    return (
        f"{row['before']:.3f}",
        f"{row['after']:.3f}",
        _range(row),
        f"+{row['wrong_to_right']:.0f} −{row['right_to_wrong']:.0f}" if marked else "–",
        p_value(row["p_flips"]),
        p_value(row["p_holm"]),
        logprob,
        f"×{row['seconds']:.2f}",
        f"×{row['forwards']:.2f}",
        f"×{row['tokens']:.2f}",
    )


def pairs_table(found: pd.DataFrame, name: str = "accuracy") -> str:
    """One line per row of `compare_methods`: the difference of means, how often only one was right, and p."""
    table = Table(title=Text(f"{name[:1].upper()}{name[1:]}, first − second"), title_justify="left")
    table.add_column("pair", no_wrap=True)
    for head in ("means", "difference [95 %]", "only one right", "p", "Holm"):
        table.add_column(head, justify="right")
    for row in records(found):
        pair = f"{row['a']} − {row['b']}" + (f" · {row['where']}" if row["where"] else "")
        numbers = (
            f"{row['mean_a']:.3f}, {row['mean_b']:.3f}",
            _range(row),
            "–" if pd.isna(row["only_a_right"]) else f"{row['only_a_right']}, {row['only_b_right']}",
            p_value(row["p"]),
            p_value(row["p_holm"]),
        )
        table.add_row(*map(Text, (pair, *numbers)))
    return printed(table, WIDTH)


def _groups(found: pd.DataFrame | None, varied: Sequence[str], name: str) -> list[str]:
    """The table of single groups, where groups are too few for an interval."""
    if found is None or found.empty:
        return []
    table = Table(title=Text(f"Group by group: {name} before → after (samples)"), title_justify="left")
    groups = list(dict.fromkeys(found.group))
    for head in (" · ".join(varied) or "method", *groups):
        table.add_column(Text(str(head)), no_wrap=True)
    lines: dict[str, dict[str, str]] = {}
    for row in records(found):
        line = " · ".join(row[axis] for axis in varied or ["method"])
        lines.setdefault(line, {})[row["group"]] = f"{row['before']:.2f} → {row['after']:.2f} ({row['n']})"
    for line, own in lines.items():
        table.add_row(*map(Text, (line, *(own.get(group, "–") for group in groups))))
    return [printed(table, WIDTH)]


def _range(row: Mapping[Any, Any]) -> str:
    """“+0.02 [−0.01, 0.05]”; the number of groups in place of the interval where groups are too few."""
    few = row["n_groups"] < MIN_GROUPS or math.isnan(row["low"])
    ends = (
        f"({count(row['n_groups'], 'group')})" if few else f"[{_signed(row['low'])}, {_signed(row['high'])}]"
    )
    return f"{_signed(row['difference'])} {ends}"


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"  # no negative zero


def costs(cells: Sequence[GridCell]) -> pd.DataFrame:
    """One row per cell: `plain_…`, `method_…` and `…_ratio` of seconds, forwards, backwards and tokens.

    Each is counted as if it ran alone: image prefixes that cells of a grid share count for each cell that uses them. A
    ratio is method / plain; it is NaN where the plain model spent nothing, such as backward passes.
    """
    rows = []
    for cell in cells:
        total = cost_of(cell.folder)
        row: dict[str, object] = dict(cell.labels)
        for name in SPENT:
            plain, own = (float(total.get(f"{side}_{name}", float("nan"))) for side in ("plain", "method"))
            row |= {f"plain_{name}": plain, f"method_{name}": own}
            row[f"{name}_ratio"] = own / plain if plain else float("nan")
        rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True, repr=False)
class PairedResult(GridResult):
    """The result of a study that answers every sample before and after a change, or of a grid over such a study.

    Its runs have a table `scores` of (index, measure, when, value), when "before" or "after"; and `samples` has
    `text_before` and `text_after`.
    """

    @property
    def marks(self) -> Collection[str]:
        """The measures that are 1 for right and 0 for wrong; their flips are counted."""
        return MARKS

    @property
    def measure_names(self) -> Mapping[str, str]:
        """The possible measures: short name → the name of its mean in tables. The first is the main measure."""
        return MEASURES

    @property
    def main(self) -> str:
        """The main measure, which tables show."""
        return next(iter(self.measure_names))

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that are defined on at least one sample, in the order of `measure_names`."""
        return measures_of(self, self.measure_names)

    def is_plain(self, cell: GridCell) -> bool:
        """Whether the cell has no change between before and after, so that nothing is tested."""
        return bool(cell.study.method == PLAIN)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per (axes…, sample, group, when), when "before" or "after": the text and every measure."""
        keys = [*self.axes, "index"]
        parts = []
        for when in TIMES:
            values = self.pairs.pivot(index=keys, columns="measure", values=when).reset_index()
            texts = pd.DataFrame(self.samples[[*keys, "sample", "group"]])
            texts = texts.assign(text=self.samples[f"text_{when}"], when=when, place=range(len(texts)))
            parts.append(texts.merge(values, on=keys, how="left"))
        both = pd.concat(parts).sort_values("place", kind="stable", ignore_index=True)
        measures = [name for name in self.measure_names if name in both]
        return both.reindex(columns=[*self.axes, "sample", "group", "when", "text", *measures])

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """One row per (axes…, index, measure): `before` and `after`, with the sample's name and group."""
        keys, named = [*self.axes, "index"], ["sample", "group"]
        scores = self._frames("scores")
        wide = scores.set_index([*keys, "measure", "when"]).value.unstack("when").reset_index()
        wide = wide.reindex(columns=[*keys, "measure", *TIMES])
        return wide.merge(self.samples[[*keys, *named]], on=keys)

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """One row per (axes…, measure): the means before and after, and their paired difference with its interval.

        Columns `before`, `after`, `difference` (above 0: larger after), `low`, `high` (interval over groups), `n`,
        `n_groups`, `n_undefined`, `n_ruled_out` (samples left out for a log-probability of −∞), `p` (signs of whole
        groups flipped; NaN for the plain model itself), `p_holm` (for each measure, over the cells of this table),
        `smallest_p`; for marks `wrong_to_right`, `right_to_wrong` and `p_flips` (McNemar's exact test, which treats
        samples as independent); `seconds`, `forwards` and `tokens` (the method's cost divided by the plain model's);
        and `note`.
        """
        is_level("level", level)
        if level not in self._summaries:
            self._summaries[level] = self._summary(level)
        return self._summaries[level].copy()

    def _summary(self, level: float) -> pd.DataFrame:
        rows, spent = [], self.costs().set_index(list(self.axes))
        for cell in (cell for cell in self.cells if cell.measured):
            own = rows_of(self.pairs, cell.labels)
            ratios = spent.loc[cell.key]
            for measure in (name for name in self.measures if (own.measure == name).any()):
                one = where(own, own.measure == measure)
                found = change(one, measure, level=level, seed=self.seed, marks=self.marks)
                if not found["n"] and not found["n_ruled_out"]:
                    continue
                cost = {name: float(ratios[f"{name}_ratio"]) for name in ("seconds", "forwards", "tokens")}
                note = found.pop("note")
                if self.is_plain(cell):
                    found["p"] = float("nan")  # nothing is tested
                rows.append({**cell.labels, "measure": measure, **found, **cost, "note": note})
        return with_holm(rows, (*self.axes, "measure", "n_groups", "p", "note"))

    def costs(self) -> pd.DataFrame:
        """One row per cell: seconds, forwards, backwards and tokens of the plain model and the method, and ratios."""
        return costs(self.cells)

    def compare(
        self, measure: str | None = None, *, over: str = "method", level: float = 0.95
    ) -> pd.DataFrame:
        """Compares every pair of cells that differ along one axis alone: after against after, on the same samples.

        `measure` is by default the first of `measure_names`. For the columns see
        `interp.study.refinement.method_comparison.compare_methods`.

        Raises:
            StudyError: The measure was not measured, the axis is unknown, or there is nothing to compare.
        """
        names = self.measure_names
        measure = self.main if measure is None else measure
        return compare_methods(self, measure, over=over, level=level, names=names, marks=self.marks)

    def per_group(self, measure: str | None = None) -> pd.DataFrame:
        """One row per group of each cell with fewer than 20 groups: its means before and after, and its samples.

        Use it where groups are too few for an interval. `measure` is by default the first of `measure_names`.

        Raises:
            StudyError: The measure is unknown.
        """
        measure = self.main if measure is None else measure
        if not isinstance(measure, str) or measure not in {*self.measure_names, *self.pairs.measure}:
            raise StudyError(f"measure is one of {', '.join(self.measure_names)}; got {measure!r:.200}.")
        parts = []
        for cell in self.cells:
            own = rows_of(self.pairs, cell.labels)
            own = where(own, (own.measure == measure) & own.before.notna() & own.after.notna())
            if own.empty or own.group.nunique() >= MIN_GROUPS:
                continue
            before, after = (per_group(own[when].to_numpy(float), own.group) for when in ("before", "after"))
            table = before[["group", "n"]].assign(before=before["mean"], after=after["mean"])
            table["difference"] = table.after - table.before
            for place, (axis, label) in enumerate(cell.labels.items()):
                table.insert(place, axis, label)
            parts.append(table)
        names = [*self.axes, "group", "n", "before", "after", "difference"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `export` writes: "summary", and "groups" where groups are too few for an interval."""
        few = self.per_group()
        return super().tables() | ({"groups": few} if len(few) else {})

    def pairs_table(self, over: str = "method") -> str:
        """Every pair of methods on the same samples as text: difference of means, p and Holm's p."""
        return pairs_table(self.compare(over=over), self.measure_names[self.main])


def varied(cells: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]]) -> pd.DataFrame:
    """One row per cell: its labels, and the parameters of its method that differ between cells.

    Heads that differ are shown as their number, `k`. Values that are no number, text or None are written as JSON. A
    parameter that only some methods have is None for the others.

    Args:
        cells: Each cell's labels and its method as JSON values.
    """
    flat = [_flat(method) for _, method in cells]
    names = dict.fromkeys(name for method in flat for name in method)
    taken = cells[0][0]
    differ = [
        name
        for name in names
        if name not in taken and len({json.dumps(method.get(name)) for method in flat}) > 1
    ]
    rows = [
        {**labels, **{name: method.get(name) for name in differ}}
        for (labels, _), method in zip(cells, flat, strict=True)
    ]
    return pd.DataFrame(rows)


def numeric_pair(parameters: pd.DataFrame, axes: Sequence[str]) -> tuple[str, str] | None:
    """The names of the two numbers in which the methods differ; None where they differ in anything else."""
    own = [str(name) for name in parameters.columns if name not in axes]
    if len(own) != 2 or not all(pd.api.types.is_numeric_dtype(parameters[name]) for name in own):
        return None
    return (own[0], own[1]) if not parameters[own].isna().to_numpy().any() else None


def _flat(method: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in method.items():
        if name == "heads":
            found["k"] = len(value)
        else:
            found[name] = value if isinstance(value, int | float | str | None) else json.dumps(value)
    return found


@dataclass(frozen=True)
class RefinementCell(GridCell):
    """One method's finished run."""

    @property
    def method(self) -> dict[str, Any]:
        """The method as it ran, with its heads listed, as JSON values."""
        return self.folder.study()["method"]

    def maps(self, indices: Sequence[int]) -> dict[int, dict[str, Float[np.ndarray, " token"]]]:
        """Each sample's maps over its image tokens, by sample index and name.

        The names are "method" and "kept" (1 or 0) where the method gives them, and "before" and "after", the relative
        attention at `read_layer`, where it was read.
        """
        found: dict[int, dict[str, np.ndarray]] = {index: {} for index in indices}
        for row in self.folder.find("maps", index=indices).to_pylist():
            found[row["index"]][row["map"]] = np.array(row["values"], np.float32)
        return found

    def tokens(self, index: int) -> TokenMap:
        """Where the image tokens of one sample lie."""
        return stored_tokens(self, index)


@dataclass(frozen=True, repr=False)
class RefinementResult(PairedResult):
    """The result of a `Refinement`, or of a grid over one.

    `scores` has one row per (axes…, sample, group, measure, when): measure "correct" (1 or 0), "logprob" and
    "probability" of beginning the sample's answer, "ar" where attention was read; when "before" or "after". `samples`
    has one row per sample with both texts and the method's own values, such as its crop.
    """

    cells: tuple[RefinementCell, ...]
    cell_type = RefinementCell

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """One row per cell: the parameters of its method that differ between cells; heads by their number, `k`."""
        return varied([(cell.labels, cell.method) for cell in self.cells])

    def sentences(self) -> list[str]:
        """How heads by reference were chosen, and whether on other groups than these; one sentence per choice."""
        found: dict[str, list[int]] = {}
        for cell in self.cells:
            here: Any = RefinementResult.of(cell.study, [cell], self.folder)
            for heads in references(cell.study.method).values():
                if isinstance(heads, HeadSet):
                    said = heads.sentence(here).replace(f"the top {heads.k} heads", "the top # heads")
                    found.setdefault(f"{cell.labels['data']}: {said}", []).append(len(heads))
        numbers = {said: ", ".join(map(str, sorted(set(counts)))) for said, counts in found.items()}
        return [said.replace("the top # heads", f"the top {numbers[said]} heads") for said in found]

    def table(self) -> str:
        """The result as text, one line per cell: accuracy before and after, difference [low, high], flips, p, cost.

        Single groups follow where groups are too few for an interval.
        """
        few = self.per_group() if "correct" in self.measures and len(self.cells) <= MANY else None
        table = methods_table(self.summary(), few, self.axes, self.varied)
        return "\n".join([table, *(counted(self) if len(self.cells) <= MANY else [])])
