"""The report of a reader study."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from markupsafe import Markup

from interp.reader_study.key import QUESTION
from interp.report.html import card, figure_cards, grid, headline, paragraph, save_page, section, table
from interp.report.tables import number, rows
from interp.report.theme import GREY, SERIES, laid_out, plain

if TYPE_CHECKING:
    from interp.reader_study.result import ReaderResult

__all__ = ["figures", "write_page"]

PREFERRED = """Share of answers at the first showing of a case; a tie counts half for each. 95 % intervals. Over readers
and cases: clustered by both (Cameron, Gelbach and Miller 2011) on log odds, so it speaks of other readers as well. For
these readers: bootstrap over groups of cases."""
READERS = """Share for “{first}” of each reader, with a 95 % interval over groups of cases. Same: share of duplicates, whose
sides were exchanged, that were answered as at first. A: share of side A among answers that are no tie; far from 50 % means a
liking for a side."""
AGREE = """Same: share of pairs of answers about one case that are equal. α: Krippendorff's; 1 is perfect agreement, 0 is
chance. A low α with a clear preference means that readers agree on the method more than on single cases."""


def write_page(result: ReaderResult, path: Path, note: str) -> Path:
    """Writes the page and returns its path; `note` is put first."""
    n_cases = sum(one.duplicate_of is None for one in result.key.items)
    words = (
        f"{len(result.answers)} reader(s) compared {' and '.join(f'“{one}”' for one in result.key.conditions)} on {n_cases} "
        f"cases, {len(result.key.items) - n_cases} of them shown twice. They were asked: {QUESTION} "
        f"{'Ties were allowed.' if result.key.ties else 'They had to choose.'}"
    )
    drawn = figures(result)
    body = [
        section("Preference", _headlines(result), card(_preference(result)), intro=PREFERRED),
        section(
            "Readers", figure_cards(drawn), card(_readers(result)), intro=READERS.format(first=result.key.conditions[0])
        ),
        section("Agreement", _agreement(result), intro=AGREE),
    ]
    lead = paragraph(words, kind="lead")
    if note:
        lead = lead + paragraph(note, kind="note wide")
    return save_page(path, title="Reader study", question=QUESTION, lead=lead, body=body, figures=drawn)


def figures(result: ReaderResult) -> dict[str, go.Figure]:
    """The share of each reader and of all, with intervals, for the first condition of the key."""
    found, overall = result.per_reader(), result.preference().iloc[0]
    names = [*found.reader, "all readers"]
    shares = [*found.share, overall["share"]]
    lows, highs = [*found.low, overall["low"]], [*found.high, overall["high"]]
    colours = [SERIES[0]] * len(found) + [SERIES[1]]
    figure = go.Figure(
        go.Scatter(
            x=[100 * share for share in shares],
            y=[plain(name) for name in names],
            mode="markers",
            marker={"size": 11, "color": colours},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [_arm(high, share) for high, share in zip(highs, shares, strict=True)],
                "arrayminus": [_arm(share, low) for low, share in zip(lows, shares, strict=True)],
            },
        )
    )
    figure.add_vline(50, line={"color": GREY, "dash": "dot"})
    title = plain(f"answers for “{result.key.conditions[0]}”, %")
    height = 120 + 34 * len(names)
    laid_out(figure, height, xaxis={"range": [-2, 102], "title": {"text": title}}, yaxis={"autorange": "reversed"})
    return {"readers": figure}


def _arm(end: float, start: float) -> float:
    """100 (end − start), and 0 where there is no interval."""
    return 0.0 if math.isnan(end - start) else 100 * (end - start)


def _headlines(result: ReaderResult) -> Markup:
    found = result.preference()
    both = found[found.over == found.over.iloc[0]]
    return grid(
        card(headline(f"{100 * row['share']:.0f} %", f"for “{row['condition']}” {_interval(row)}"))
        for row in both.to_dict("records")
    )


def _interval(row: Any) -> str:
    return "" if math.isnan(row["low"]) else f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}]"


def _preference(result: ReaderResult) -> Markup:
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
    return table(list(columns), rows(result.preference(), columns), kind="text")


def _readers(result: ReaderResult) -> Markup:
    columns: dict[str, Any] = {
        "reader": "reader",
        "cases": "n",
        **{name: name for name in result.key.conditions},
        "ties": "ties",
        "share, %": lambda row: number(100 * row["share"], 1),
        "interval ": _interval,
        "A, %": lambda row: number(100 * row["side_a"], 0),
        "duplicates": "n_duplicates",
        "same, %": lambda row: number(100 * row["same"], 0),
    }
    return table([name.strip() for name in columns], rows(result.per_reader(), columns))


def _agreement(result: ReaderResult) -> Markup:
    if len(result.answers) < 2:
        return paragraph("One reader: there is nothing to compare.", kind="soft")
    found = result.agreement()
    return grid(
        [
            card(headline(number(found["alpha"]), f"α, on {found['n']:.0f} cases")),
            card(headline(f"{number(100 * found['same'], 0)} %", "same")),
        ]
    )
