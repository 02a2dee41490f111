"""What a benchmark found: marks before and after, flips, by modality or subject, averages over benchmarks."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from interp.errors import StudyError
from interp.study.benchmark.paper_tables import PaperTable, paper_table
from interp.study.benchmark.tables import (
    answer_rows,
    asks_yes_or_no,
    averages,
    by,
    left_out,
    rows_text,
    strata,
    yes_no_table,
)
from interp.study.benchmark.task import gives_marks, label
from interp.study.dataframes import rows_of, where
from interp.study.refinement.result import MANY, PairedResult, methods_table, varied
from interp.study.result import counted
from interp.study.runs import GridCell
from interp.study.study import is_level

__all__ = ["BenchmarkResult"]


@dataclass(frozen=True, repr=False)
class BenchmarkResult(PairedResult):
    """The result of a `Benchmark`, or of a grid over one.

    `scores` has one row per (axes…, sample, group, measure, when): `measure` is the name of a scorer; `when` is
    "before" (the model as it is) or "after" (under the method or the edits; the same where there are none). `samples`
    has one row per sample with both texts. `summary()` compares before with after, `compare()` cells with one another.
    """

    @property
    def marks(self) -> Collection[str]:
        """The scorers that gave every answer 1 (right) or 0 (wrong); their flips are counted and tested."""
        return self._marks

    @cached_property
    def _marks(self) -> frozenset[str]:
        scores = self._frames("scores")
        shares = set(where(scores, ~(scores.value.isna() | scores.value.isin((0.0, 1.0)))).measure)
        own = (scorer for cell in self.cells for scorer in cell.study.scorer if gives_marks(scorer))
        return frozenset(scorer.name for scorer in own) - shares

    @property
    def measure_names(self) -> Mapping[str, str]:
        """Each scorer's name → the name of its mean in tables, in the order of the scorers."""
        return {scorer.name: label(scorer) for cell in self.cells for scorer in cell.study.scorer}

    def is_plain(self, cell: GridCell) -> bool:
        """Whether the cell is the model as it is, without a method or edits."""
        return not cell.study.changes

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """One row per cell: the parameters of its method that differ between cells; heads by their number, `k`."""
        return varied([(cell.labels, cell.folder.study()["method"]) for cell in self.cells])

    def strata(self) -> tuple[str, ...]:
        """The fields of the samples' `meta` that divide them, such as "modality" or "subject"."""
        return strata(self)

    def by(self, key: str, measure: str | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """One row per (axes…, value of `meta[key]`): the means before and after, and the paired difference.

        Columns as in `summary`; `p_holm` is adjusted over the rows of this table. Samples without the field form the
        stratum "not given".

        Raises:
            StudyError: No sample has the field, or the measure is unknown.
        """
        is_level("level", level)
        return by(self, key, self._known(measure), level)

    def averages(
        self,
        over: str = "data",
        measure: str | None = None,
        *,
        weights: Mapping[str, float] | None = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Averages over benchmarks, or over the values of a field of `meta`, one row per (axes but data…, average).

        "micro" is the mean over all questions, so larger strata weigh more; "macro" is the mean of the strata's means;
        "weighted" uses `weights`. They can differ by several points where strata differ in size, so say which one a
        table shows.

        Args:
            over: "data", or a field of `meta`, such as "modality".
            measure: A scorer's name; by default the first.
            weights: Stratum → its weight, for example its size in the whole benchmark where only a part was run.
            level: Coverage of the intervals.

        Returns:
            The axes except `data`, whose questions are taken together; `average`, `n_strata`, `before` and `after` (in
            [0, 1]), `difference` (after − before), `low`, `high` (whole groups resampled), `n`, `n_groups`, and
            `strata`, a text with the N of each stratum.

        Raises:
            StudyError: No sample has the field, the weights do not fit the strata, or the measure is unknown.
        """
        is_level("level", level)
        return averages(self, over, self._known(measure), weights, level)

    def yes_no(self, by: str | None = None, *, level: float = 0.95) -> pd.DataFrame:
        """POPE's marks of the yes-or-no questions, one row per (axes…[, field], measure).

        Measures are those of `interp.stats.yes_no_marks`: accuracy, precision, recall, f1, yes_ratio and neither, with
        "yes" as the positive class; an answer counts as yes or no only if that is the whole text. Columns: `value`
        under the method or edits (of the model as it is where there are none) with `low` and `high`; `before`, of the
        model as it is; `difference` (value − before) with the paired `difference_low` and `difference_high`; `n`
        questions, `n_groups` and `note`. Intervals resample whole groups.

        Args:
            by: A field of `meta`, such as "negatives": adds rows for each of its values to those of "all" ("all
                questions" where a value is called "all").
            level: Coverage of the intervals.

        Raises:
            StudyError: No question has the answer yes or no, or `by` is no text.

        Source: Li et al. 2023 (POPE, arXiv 2305.10355).
        """
        is_level("level", level)
        if by is not None and not isinstance(by, str):
            raise StudyError(f'by is a field of meta, such as "negatives"; got {by!r:.200}.')
        return yes_no_table(self, by, level)

    def flips(self, measure: str | None = None) -> pd.DataFrame:
        """One row per sample whose mark changed: the axes, sample, group, question, answer, both texts and `flip`.

        `flip` is "gained" (wrong → right) or "lost" (right → wrong).

        Raises:
            StudyError: The measure gives no marks.
        """
        known = self._known(measure)
        if known not in self.marks:
            raise StudyError(
                f"flips are of scorers that say right or wrong; {known} gives a share. Name one of "
                f"{', '.join(sorted(self.marks)) or 'such scorers in scorer=, such as Strict()'}."
            )
        pairs = where(self.pairs, self.pairs.measure == known)
        changed = where(pairs, (pairs.before != pairs.after) & pairs.before.notna() & pairs.after.notna())
        flip = [
            "gained" if after > before else "lost"
            for before, after in zip(changed.before, changed.after, strict=True)
        ]
        keys = [*self.axes, "index"]
        found = changed[keys].assign(flip=flip).merge(self.samples, on=keys)
        names = ("index", "sample", "group", "question", "answer", "text_before", "text_after", "flip")
        return found.reindex(columns=[*self.axes, *names])

    def lengths(self) -> pd.DataFrame:
        """One row per cell and time: the length of answers, which matters to scorers of whole texts.

        Columns `when`, `n`, `n_missing` (no answer came), `n_empty`, `mean_words`, `max_words` and `limit`, the maximum
        number of tokens.
        """
        rows = []
        for cell in self.cells:
            own = rows_of(self.samples, cell.labels)
            for when in ("before", "after"):
                texts = [text for text in own[f"text_{when}"] if isinstance(text, str)]
                words = [len(text.split()) for text in texts]
                row = {
                    "n": len(own),
                    "n_missing": len(own) - len(texts),
                    "n_empty": sum(count == 0 for count in words),
                    "mean_words": sum(words) / len(words) if words else float("nan"),
                    "max_words": max(words, default=0),
                    "limit": cell.study.max_new_tokens,
                }
                rows.append({**cell.labels, "when": when, **row})
        return pd.DataFrame(rows)

    def rows(self, over: str = "data", measure: str | None = None) -> pd.DataFrame:
        """The table as papers print it, in percent: a row per model and method, a column per stratum.

        The first row is N, the number of marked questions of each stratum; the last columns are the averages "micro"
        and "macro". Over a field of `meta`, the questions of all data sets with that field are taken together.

        Args:
            over: "data", or a field of `meta`, such as "modality".
            measure: A scorer's name; by default the first.
        """
        return answer_rows(self, over, self._known(measure))

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables that `export` writes: "summary", "rows", "averages", "flips", "lengths", "by-…" and "groups".

        "yes-no" is added where every answer is yes or no.
        """
        found = {"rows": self.rows(), "averages": self.averages(), "lengths": self.lengths()}
        if self.main in self.marks:
            found["flips"] = self.flips().drop(columns="index")
        if asks_yes_or_no(self):
            found["yes-no"] = self.yes_no("negatives" if "negatives" in self.strata() else None)
        return super().tables() | found | {f"by-{key}": self.by(key) for key in self.strata()}

    def table(self) -> str:
        """The result as text: the table as papers print it, one line per cell with tests, flips and cost, counts."""
        few = self.per_group() if len(self.cells) <= MANY and self.main in self.measures else None
        name = self.measure_names[self.main]
        parts = [rows_text(self.rows(), f"{name}, %")]
        if any(cell.study.changes for cell in self.cells):
            summary = self.summary()
            parts.append(methods_table(summary, few, self.axes, self.varied, measure=self.main, name=name))
        said = [f"{words} See .failures."] if (words := left_out(self.failures)) else []
        return "\n".join([*parts, *(counted(self) if len(self.cells) <= MANY else []), *said])

    def report(
        self, path: str | os.PathLike[str] | None = None, *, beside: Sequence[str | PaperTable] = ()
    ) -> Path:
        """Write the report, one HTML file that loads nothing from elsewhere, and return its path.

        Args:
            path: Where to write it; `report.html` in the study's folder when left out.
            beside: Published tables to print below ours: names of `interp.study.paper_table`, such as "1", or tables.

        Raises:
            StudyError: A table is unknown, or `beside` is no list.
        """
        if isinstance(beside, str) or not isinstance(beside, Sequence):
            raise StudyError(f'beside is a list of published tables, such as ["1"]; got {beside!r:.200}.')
        tables = [one if isinstance(one, PaperTable) else paper_table(one) for one in beside]
        return self._write(path, beside=tables)

    def _known(self, measure: str | None) -> str:
        known = self.main if measure is None else measure
        if not isinstance(known, str) or known not in self.measure_names:
            raise StudyError(f"measure is one of {', '.join(self.measure_names)}; got {measure!r}.")
        return known
