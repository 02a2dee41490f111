"""The result of a reader study and its report: preference, agreement, and consistency on duplicates."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from markupsafe import Markup

from interp.errors import DataError
from interp.inputs.files import as_path
from interp.reader_study.key import FORMAT, QUESTION, Key, choice_scale, read_key
from interp.report.answer_form import FormAnswers, read_answers
from interp.report.figures import GREY, SERIES, laid_out, plain
from interp.report.html import card, figure_card, grid, headline, join, paragraph, save_page, section, table
from interp.report.tables import count, number, rows
from interp.stats import MIN_GROUPS, Interval, bootstrap, krippendorff_alpha, population_note, two_way_share
from interp.study.dataframes import records, where
from interp.study.study import is_level

__all__ = ["ReaderResult", "read_study", "readers_figure", "write_page"]


BOTH, CASES = "readers and cases", "cases, for these readers"


@dataclass(frozen=True)
class ReaderResult:
    """The result of a reader study, as `read_study` returns it.

    A first showing of a case counts for preference and agreement; a duplicate counts for consistency alone. A tie
    counts half for each condition.

    Attributes:
        key: The key, which says what each item showed.
        answers: The answers of each reader.
    """

    key: Key
    answers: tuple[FormAnswers, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per reader and item that was answered.

        Columns `reader`, `item`, `sample`, `group`, `duplicate_of` (None for a first showing), `side` ("A", "B" or
        "tie"), `choice` (a condition, or "tie"), and `value`: 1 for the first condition of the key, 0 for the second,
        0.5 for a tie.
        """
        worth = dict(zip((*self.key.conditions, "tie"), (1.0, 0.0, 0.5), strict=True))
        rows = []
        for reader in self.answers:
            for one in self.key.items:
                side = reader.values.get(one.item, {}).get("choice")
                if side is None:
                    continue
                choice = {"A": one.a, "B": one.b}.get(str(side), "tie")
                value = 0.5 if side == "tie" else worth[choice]
                rows.append(
                    (reader.by, one.item, one.sample, one.group, one.duplicate_of, side, choice, value)
                )
        names = ["reader", "item", "sample", "group", "duplicate_of", "side", "choice", "value"]
        return pd.DataFrame(rows, columns=names)

    @cached_property
    def first(self) -> pd.DataFrame:
        """The rows of `frame` of first showings."""
        return where(self.frame, self.frame.duplicate_of.isna()).reset_index(drop=True)

    def preference(self, *, level: float = 0.95) -> pd.DataFrame:
        """The share of answers for each condition, with its intervals, two rows per condition.

        Columns `condition`, `over`, `share`, `low`, `high`, `n` (answers), `n_readers`, `n_groups` (of cases), `note`.
        `over` says what the interval generalises to. "readers and cases": other readers and other cases, by
        `interp.stats.two_way_share`, since answers of one reader are alike, and so are answers about one case. "cases,
        for these readers": other cases judged by the same readers, by `interp.stats.bootstrap` over groups of cases.

        Args:
            level: The nominal coverage of the intervals, in (0, 1).

        Raises:
            StudyError: A level outside (0, 1).
        """
        is_level("level", level)
        n_readers, n_groups = self.first.reader.nunique(), self.first.group.nunique()
        rows = []
        for place, condition in enumerate(self.key.conditions):
            values = self.first.value if place == 0 else 1 - self.first.value
            both = two_way_share(values.to_numpy(), self.first.reader, self.first.group, level=level)
            cases = bootstrap(values.to_numpy(), self.first.group, level=level, seed=0)
            notes = (_crossed_note(n_readers, n_groups), population_note(n_groups))
            for over, interval, note in zip((BOTH, CASES), (both, cases), notes, strict=True):
                rows.append(
                    {
                        "condition": condition, "over": over, "share": interval.mean, "low": interval.low,
                        "high": interval.high, "n": interval.n, "n_readers": n_readers, "n_groups": n_groups,
                        "note": note,
                    }
                )  # fmt: skip
        return pd.DataFrame(rows)

    def per_reader(self, *, level: float = 0.95) -> pd.DataFrame:
        """The preference of each reader, one row per reader.

        Columns: `reader`; `n`, cases answered; one column per condition with the answers for it; `ties`; `share`,
        `low` and `high`, the share for the first condition of the key with its interval over groups of cases; `side_a`,
        the share of A among answers that are no tie (0.5 without a preference for a side); `n_duplicates`; and `same`,
        the share of duplicates answered as at first.

        Args:
            level: The nominal coverage of the intervals, in (0, 1).

        Raises:
            StudyError: A level outside (0, 1).
        """
        is_level("level", level)
        rows = []
        for reader in (one.by for one in self.answers):
            own, every = (where(frame, frame.reader == reader) for frame in (self.first, self.frame))
            held: Interval = bootstrap(own.value.to_numpy(), own.group.to_numpy(), level=level, seed=0)
            sided = every.side[every.side != "tie"]
            again = where(self.duplicates, self.duplicates.reader == reader)
            counts = {name: int((own.choice == name).sum()) for name in self.key.conditions}
            rows.append(
                {
                    "reader": reader, "n": len(own), **counts, "ties": int((own.side == "tie").sum()),
                    "share": held.mean, "low": held.low, "high": held.high, "side_a": _mean(sided == "A"),
                    "n_duplicates": len(again), "same": _mean(again.same),
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    @cached_property
    def duplicates(self) -> pd.DataFrame:
        """One row per case answered twice: reader, sample, `first`, `again`, and `same`, whether both answers agree."""
        first = self.first.set_index(["reader", "item"]).choice
        rows = []
        for row in records(where(self.frame, self.frame.duplicate_of.notna())):
            before = first.get((row["reader"], row["duplicate_of"]))
            if before is not None:
                rows.append((row["reader"], row["sample"], before, row["choice"], before == row["choice"]))
        return pd.DataFrame(rows, columns=["reader", "sample", "first", "again", "same"])

    def agreement(self) -> dict[str, float]:
        """How far the readers agree on first showings.

        `same`: the share of pairs of readers' answers about one case that are equal; `alpha`: Krippendorff's, ordinal
        (second condition, tie, first), 0 for chance and 1 for perfect, NaN where all answers are the same; `n`: cases
        that at least two readers answered.

        Raises:
            StudyError: The library of Krippendorff's alpha is not installed.
        """
        table = self._table()
        pairs = [(a == b)[~np.isnan(a) & ~np.isnan(b)] for a, b in combinations(table, 2)]
        equal = np.concatenate(pairs) if pairs else np.array([])
        return {
            "same": float(equal.mean()) if len(equal) else float("nan"),
            "alpha": krippendorff_alpha(table, level="ordinal"),
            "n": float(((~np.isnan(table)).sum(axis=0) >= 2).sum()),
        }

    def _table(self) -> Float[np.ndarray, "reader case"]:
        """The values of first showings; NaN where a reader gave no answer."""
        cases = [one.item for one in self.key.items if one.duplicate_of is None]
        wide = self.first.pivot(index="reader", columns="item", values="value")
        return wide.reindex(index=[one.by for one in self.answers], columns=cases).to_numpy(float)

    def report(self, path: str | os.PathLike[str], *, note: str = "") -> Path:
        """Writes the report, one HTML file, and returns its path.

        Args:
            path: The file.
            note: A sentence to put first, such as who the readers were.

        Raises:
            DataError: A note that is no text.
            RunError: The file cannot be written.
            StudyError: The library of Krippendorff's alpha is not installed.
        """
        if not isinstance(note, str):
            raise DataError(f"note is a text; got {note!r}.")
        return write_page(
            as_path("path", path),
            key=self.key,
            preference=self.preference(),
            readers=self.per_reader(),
            agreement=self.agreement() if len(self.answers) > 1 else None,
            note=note,
        )


def read_study(
    key: Key | str | os.PathLike[str],
    answers: Sequence[str | os.PathLike[str]],
    *,
    page: str | os.PathLike[str] | None = None,
) -> ReaderResult:
    """Returns the result of a reader study.

    Args:
        key: The key of `write_pack`, or its file.
        answers: The files that readers saved, one for each reader.
        page: The page, to check that the key is its own.

    Raises:
        DataError: A file that is damaged or does not belong to the others; two files by one reader; no answers at all.
    """
    known = key if isinstance(key, Key) else read_key(key, page=page)
    items = [one.item for one in known.items]
    scales = (choice_scale(known.ties),)
    found = read_answers(answers, format=FORMAT, form=known.form, items=items, scales=scales, editable=False)
    result = ReaderResult(known, found)
    if result.first.empty:
        raise DataError("the readers answered no case. Pass files that were saved after choosing maps.")
    return result


def _mean(values: pd.Series) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _crossed_note(n_readers: int, n_groups: int) -> str:
    """The note that limits claims about other readers and other cases."""
    if n_readers == 1:
        return "One reader: nothing can be said about other readers."
    few = (
        f"Only {n_readers} readers, fewer than {MIN_GROUPS}: read the values per reader; no claim about a population "
        "of readers is made."
    )
    return " ".join(
        part for part in (few if n_readers < MIN_GROUPS else "", population_note(n_groups)) if part
    )


PREFERRED = """Share of answers at the first showing of a case; a tie counts half for each. 95 % intervals. Over readers
and cases: clustered by both (Cameron, Gelbach and Miller 2011) on log odds, so that it covers other readers as well.
For these readers: bootstrap over groups of cases."""
READERS = """Share for “{first}” of each reader, with a 95 % interval over groups of cases. Same: share of duplicates,
whose sides were exchanged, that were answered as at first. A: share of side A among answers that are no tie; far from
50 % means a preference for a side."""
AGREE = """Same: share of pairs of answers about one case that are equal. α: Krippendorff's; 1 is perfect agreement, 0
is chance. A low α with a clear preference means that readers agree on the method more than on single cases."""


def write_page(
    path: Path,
    *,
    key: Key,
    preference: pd.DataFrame,
    readers: pd.DataFrame,
    agreement: Mapping[str, float] | None,
    note: str,
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file.
        key: The key of the study.
        preference: The frame of `ReaderResult.preference()`.
        readers: The frame of `ReaderResult.per_reader()`.
        agreement: The values of `ReaderResult.agreement()`; None for a single reader.
        note: A sentence to put first; "" for none.
    """
    n_cases = sum(one.duplicate_of is None for one in key.items)
    compared = " and ".join(f"“{one}”" for one in key.conditions)
    asked = f"They were asked: {QUESTION} {'Ties were allowed.' if key.ties else 'They had to choose.'}"
    words = (
        f"{count(len(readers), 'reader')} compared {compared} on {count(n_cases, 'case')}, {len(key.items) - n_cases} "
        f"of them shown twice. {asked}"
    )
    first = key.conditions[0]
    lead = join(paragraph(words, kind="lead"), paragraph(note, kind="note wide") if note else "")
    shares = grid([figure_card("readers"), card(_readers(readers, key.conditions))], "stacked")
    body = [
        section("Preference", _headlines(preference), card(_preference(preference)), intro=PREFERRED),
        section("Readers", shares, intro=READERS.format(first=first)),
        section("Agreement", _agreement(agreement), intro=AGREE),
    ]
    drawn = {"readers": readers_figure(readers, preference, first)}
    return save_page(path, title="Reader study", question=QUESTION, lead=lead, body=body, figures=drawn)


def readers_figure(readers: pd.DataFrame, preference: pd.DataFrame, condition: str) -> go.Figure:
    """The share for the first condition, of each reader and of all, with intervals."""
    names = [plain(name) for name in (*readers.reader, "all readers")]
    each = [*records(readers), *records(preference.head(1))]
    ends = {
        "array": [_arm(row["high"], row["share"]) for row in each],
        "arrayminus": [_arm(row["share"], row["low"]) for row in each],
    }
    points = go.Scatter(
        x=[100 * row["share"] for row in each],
        y=names,
        mode="markers",
        marker={"size": 11, "color": [SERIES[0]] * len(readers) + [SERIES[1]]},
        error_x={"type": "data", "symmetric": False, "color": GREY, **ends},
    )
    figure = go.Figure(points).add_vline(50, line={"color": GREY, "dash": "dot"})
    title = plain(f"answers for “{condition}”, %")
    axes = {"xaxis": {"range": [-2, 102], "title": {"text": title}}, "yaxis": {"autorange": "reversed"}}
    return laid_out(figure, 120 + 34 * len(names), **axes)


def _arm(end: float, start: float) -> float:
    """100 (end − start), and 0 where there is no interval."""
    return 0.0 if math.isnan(end - start) else 100 * (end - start)


def _headlines(preference: pd.DataFrame) -> Markup:
    both = records(where(preference, preference.over == preference.over.iloc[0]))
    return grid(
        card(headline(f"{100 * row['share']:.0f} %", f"for “{row['condition']}” {_interval(row)}"))
        for row in both
    )


def _interval(row: Mapping[str, Any]) -> str:
    return "" if math.isnan(row["low"]) else f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def _preference(preference: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {
        "condition": "condition",
        "interval over": "over",
        "share, %": lambda row: number(100 * row["share"], 1),
        "interval": _interval,
        "answers": "n",
        "readers": "n_readers",
        "groups of cases": "n_groups",
        "note": "note",
    }
    return table(list(columns), rows(preference, columns), kind="text")


def _readers(readers: pd.DataFrame, conditions: tuple[str, str]) -> Markup:
    lines = [
        [
            row["reader"], row["n"], *(row[name] for name in conditions), row["ties"], number(100 * row["share"], 1),
            _interval(row), number(100 * row["side_a"], 0), row["n_duplicates"], number(100 * row["same"], 0),
        ]
        for row in records(readers)
    ]  # fmt: skip
    heads = ["reader", "cases", *conditions, "ties", "share, %", "interval", "A, %", "duplicates", "same, %"]
    return table(heads, lines)


def _agreement(agreement: Mapping[str, float] | None) -> Markup:
    if agreement is None:
        return paragraph("One reader: there is nothing to compare.", kind="soft")
    same = f"{number(100 * agreement['same'], 0)} %"
    parts = [(number(agreement["alpha"]), f"α, on {count(int(agreement['n']), 'case')}"), (same, "same")]
    return grid(card(headline(value, words)) for value, words in parts)
