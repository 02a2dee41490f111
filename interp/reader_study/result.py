"""What readers preferred: with readers and cases crossed, by reader, on duplicates, and how far they agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from interp.errors import DataError
from interp.inputs.files import as_path
from interp.reader_study.key import FORMAT, Key, choice_scale, read_key
from interp.reader_study.page import write_page
from interp.report.form import FormAnswers, read_answers
from interp.stats import MIN_GROUPS, Interval, bootstrap, krippendorff_alpha, population_note, two_way_share
from interp.study.dataframes import records, where
from interp.study.study import is_level

__all__ = ["ReaderResult", "read_study"]

BOTH, CASES = "readers and cases", "cases, for these readers"


@dataclass(frozen=True)
class ReaderResult:
    """The result of a reader study, as `read_study` returns it.

    A first showing of a case counts for preference and agreement; a duplicate counts for consistency alone. A tie
    counts half for each condition.

    Attributes:
        key: What each item showed.
        answers: What each reader answered.
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
        `over` says to what the interval speaks: "readers and cases" to other readers and other cases, by
        `interp.stats.two_way_share` (answers of one reader are alike, and so are answers about one case); "cases, for
        these readers" to other cases judged by the same readers, by `interp.stats.bootstrap` over groups of cases.

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
        """What each reader preferred, one row per reader.

        Columns `reader`; `n`, cases answered; one column per condition, answers for it; `ties`; `share`, `low`, `high`:
        the share for the first condition of the key with its interval over groups of cases; `side_a`, the share of A
        among all answers that are no tie (0.5 without a liking for a side); `n_duplicates` and `same`, the share of
        duplicates answered as at first.

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
        """One row per duplicate that was answered twice: reader, sample, `first`, `again`; `same`: whether alike."""
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
    """What limits a claim about other readers and other cases."""
    if n_readers == 1:
        return "One reader: nothing can be said about other readers."
    few = (
        f"Only {n_readers} readers, fewer than {MIN_GROUPS}: read the values per reader; no claim about a population "
        "of readers is made."
    )
    return " ".join(
        part for part in (few if n_readers < MIN_GROUPS else "", population_note(n_groups)) if part
    )
