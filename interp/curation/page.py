"""The report of a curation: what was kept, the scores beside the paper's, and how far the raters agree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from interp.curation.rating_page import SCALES, SCORES
from interp.report.html import card, code, details, grid, headline, paragraph, save_page, section, table
from interp.report.tables import count, number, rows
from interp.study.dataframes import where

__all__ = ["write_page"]

LABELS = {scale.name: scale.label for scale in SCALES}
MEANINGS = {
    "kept": "every score is high enough",
    "dropped": "a score is too low",
    "undecided": "raters edited the question differently",
    "unrated": "too few raters gave all three scores",
}
SCORED = """Per cent of the scores of kept samples, as the paper's table N.6. The columns on the right are the paper's,
for VGMED and its clinicians; they are shown for comparison and say nothing about these samples."""
AGREE = """Same: share of pairs of scores that are equal. α: Krippendorff's, for ordered values. κ: mean quadratic
weighted kappa of pairs of raters. α and κ compare with chance: 1 is perfect, 0 is chance. Where nearly all scores are
one value they are low or undefined although raters agree."""
SHOWN = 200


def write_page(
    path: Path,
    *,
    words: str,
    decisions: pd.DataFrame,
    scores: pd.DataFrame,
    raters: pd.DataFrame,
    agreement: pd.DataFrame | None,
    edits: pd.DataFrame,
) -> Path:
    """Writes the page and returns its path.

    Args:
        path: The HTML file.
        words: What was rated by whom, and the rule.
        decisions: As `Curation.decisions`.
        scores: As `Curation.table()`.
        raters: As `Curation.per_rater()`.
        agreement: As `Ratings.agreement()`; None for a single rater.
        edits: As `Ratings.edits`.
    """
    counts = decisions.decision.value_counts()
    parts = (
        card(headline(str(int(counts.get(name, 0))), f"{name}: {said}")) for name, said in MEANINGS.items()
    )
    others = where(decisions, decisions.decision != "kept")
    reasons = {"sample": _sample, "decision": "decision", "reason": "reason", "question": "question"}
    changes = {"sample": _sample, "rater": "rater", "question": "question", "edited": "edited"}
    alone = paragraph("One rater: there is nothing to compare.", kind="soft")
    body = [
        grid(parts),
        section("Scores of the kept samples", card(_scores(scores)), intro=SCORED),
        section("Agreement", alone if agreement is None else card(_agreement(agreement)), intro=AGREE),
        section("Raters", card(_raters(raters))),
        section("Not kept", _folded(count(len(others), "sample"), others, reasons)),
        section("Edited questions", _folded(count(len(edits), "edit"), edits, changes)),
    ]
    question = "Which samples do the raters keep?"
    return save_page(path, title="Curation", question=question, lead=paragraph(words, kind="lead"), body=body)


def _sample(row: Mapping[str, Any]) -> Markup:
    return code(row["sample"])


def _scores(scores: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {"kind": "kind", "scale": lambda row: LABELS[row["scale"]], "scores": "n"}
    columns |= {f"{score}, %": _number(f"rating_{score}") for score in SCORES}
    columns |= {f"paper {score}, %": _number(f"paper_{score}") for score in (3, 4, 5)}
    return table(list(columns), rows(scores, columns))


def _agreement(agreement: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {
        "scale": lambda row: LABELS[row["scale"]],
        "samples with two scores": "n",
        "same, %": lambda row: number(100 * row["same"], 1),
        "α": _number("alpha"),
        "κ": _number("kappa"),
        "pairs of raters in κ": "n_pairs",
    }
    return table(list(columns), rows(agreement, columns))


def _raters(raters: pd.DataFrame) -> Markup:
    columns: dict[str, Any] = {"rater": "rater", "samples": "n"}
    columns |= {f"mean {scale.label.lower()}": _number(scale.name) for scale in SCALES}
    columns |= {"samples with too low a score": "n_low", "edited questions": "n_edited"}
    return table(list(columns), rows(raters, columns))


def _number(name: str) -> Any:
    return lambda row: number(row[name])


def _folded(summary: str, found: pd.DataFrame, columns: Mapping[str, Any]) -> Markup:
    """The first rows as a table under a summary; empty without rows."""
    if found.empty:
        return Markup()
    left = len(found) - SHOWN
    more = paragraph(f"And {left} more.", kind="soft") if left > 0 else ""
    return details(summary, table(list(columns), rows(found.head(SHOWN), columns), kind="text"), more)
