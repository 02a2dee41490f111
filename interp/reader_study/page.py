"""The report of a reader study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.reader_study.key import QUESTION, Key
from interp.report.figures import GREY, SERIES, laid_out, plain
from interp.report.html import card, figure_card, grid, headline, join, paragraph, save_page, section, table
from interp.report.tables import count, number, rows
from interp.study.dataframes import records, where

__all__ = ["readers_figure", "write_page"]

PREFERRED = """Share of answers at the first showing of a case; a tie counts half for each. 95 % intervals. Over readers
and cases: clustered by both (Cameron, Gelbach and Miller 2011) on log odds, so it speaks of other readers as well. For
these readers: bootstrap over groups of cases."""
READERS = """Share for “{first}” of each reader, with a 95 % interval over groups of cases. Same: share of duplicates,
whose sides were exchanged, that were answered as at first. A: share of side A among answers that are no tie; far from
50 % means a liking for a side."""
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
        preference: As `ReaderResult.preference()`.
        readers: As `ReaderResult.per_reader()`.
        agreement: As `ReaderResult.agreement()`; None for a single reader.
        note: What to put first; "" for nothing.
    """
    n_cases = sum(one.duplicate_of is None for one in key.items)
    compared = " and ".join(f"“{one}”" for one in key.conditions)
    words = (
        f"{count(len(readers), 'reader')} compared {compared} on {n_cases} cases, {len(key.items) - n_cases} of them "
        f"shown twice. They were asked: {QUESTION} {'Ties were allowed.' if key.ties else 'They had to choose.'}"
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
    parts = [(number(agreement["alpha"]), f"α, on {agreement['n']:.0f} cases"), (same, "same")]
    return grid(card(headline(value, words)) for value, words in parts)
