"""The report of a curation: what was kept, the scores beside the paper's, and how far the raters agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from interp.curation.scales import SCALES, SCORES
from interp.report.html import card, code, details, grid, headline, paragraph, save_page, section, table
from interp.report.tables import number, rows

if TYPE_CHECKING:
    from interp.curation.rule import Curation

__all__ = ["write_page"]

LABELS = {scale.name: scale.label for scale in SCALES}
RULES = {
    "any": "A sample is dropped if any score of any rater is below {lowest}",
    "median": "A sample is dropped if the median of its raters' scores on some scale is below {lowest}",
}
MEANINGS = {
    "kept": "every score is high enough",
    "dropped": "a score is too low",
    "undecided": "raters edited the question differently",
    "unrated": "too few raters gave all three scores",
}
SCORED = """Per cent of the scores of kept samples, as the paper's table N.6. The columns on the right are the paper's, for
VGMED and its clinicians; they are shown for comparison and say nothing about these samples."""
AGREE = """Same: share of pairs of scores that are equal. α: Krippendorff's, for ordered values. κ: mean quadratic weighted
kappa of pairs of raters. α and κ compare with chance: 1 is perfect, 0 is chance. Where nearly all scores are one value they
are low or undefined although raters agree."""
SHOWN = 200


def write_page(curation: Curation, path: Path) -> Path:
    """Writes the page and returns its path."""
    ratings, decisions = curation.ratings, curation.decisions
    raters = ", ".join(ratings.raters)
    rule = RULES[curation.several].format(lowest=curation.lowest)
    needed = f"A sample needs all three scores of at least {curation.n_raters} rater(s)."
    words = f"{len(ratings.samples)} samples ({ratings.samples.name}), rated by {raters}. {rule}. {needed}"
    body = [
        _counts(curation),
        section("Scores of the kept samples", card(_scores(curation)), intro=SCORED),
        _agreement(curation),
        section("Raters", card(_raters(curation))),
        _reasons(decisions),
        _edits(curation),
    ]
    return save_page(
        path, title="Curation", question="Which samples do the raters keep?",
        lead=paragraph(words, kind="lead"), body=body,
    )  # fmt: skip


def _counts(curation: Curation) -> Markup:
    counts = curation.decisions.decision.value_counts()
    return grid(card(headline(str(int(counts.get(name, 0))), f"{name}: {words}")) for name, words in MEANINGS.items())


def _scores(curation: Curation) -> Markup:
    columns: dict[str, Any] = {
        "kind": "kind",
        "scale": lambda row: LABELS[row["scale"]],
        "scores": "n",
        **{f"{s}, %": lambda row, s=s: number(row[f"rating_{s}"]) for s in SCORES},
        **{f"paper {s}, %": lambda row, s=s: number(row[f"paper_{s}"]) for s in (3, 4, 5)},
    }
    return table(list(columns), rows(curation.table(), columns))


def _agreement(curation: Curation) -> Markup:
    if len(curation.ratings.answers) < 2:
        return section("Agreement", paragraph("One rater: there is nothing to compare.", kind="soft"))
    columns: dict[str, Any] = {
        "scale": lambda row: LABELS[row["scale"]],
        "samples with two scores": "n",
        "same, %": lambda row: number(100 * row["same"], 1),
        "α": lambda row: number(row["alpha"]),
        "κ": lambda row: number(row["kappa"]),
        "pairs of raters in κ": "n_pairs",
    }
    return section("Agreement", card(table(list(columns), rows(curation.ratings.agreement(), columns))), intro=AGREE)


def _raters(curation: Curation) -> Markup:
    frame, lines = curation.ratings.frame, []
    for one in curation.ratings.answers:
        own = frame[frame.rater == one.by]
        means = [number(own.score[own.scale == scale.name].mean()) for scale in SCALES]
        low = int((own.score < curation.lowest).groupby(own["index"]).any().sum())
        lines.append([one.by, own["index"].nunique(), *means, low, len(one.texts)])
    heads = ["rater", "samples", *(f"mean {scale.label.lower()}" for scale in SCALES)]
    return table([*heads, f"samples with a score below {curation.lowest}", "edited questions"], lines)


def _reasons(decisions: Any) -> Markup:
    others = decisions[decisions.decision != "kept"]
    columns: dict[str, Any] = {
        "sample": lambda row: code(row["sample"]),
        "decision": "decision",
        "reason": "reason",
        "question": "question",
    }
    left = len(others) - SHOWN
    more = paragraph(f"And {left} more.", kind="soft") if left > 0 else ""
    shown = table(list(columns), rows(others.head(SHOWN), columns), kind="text") if len(others) else ""
    return section("Not kept", details(f"{len(others)} sample(s)", shown, more))


def _edits(curation: Curation) -> Markup:
    edits = curation.ratings.edits
    columns: dict[str, Any] = {
        "sample": lambda row: code(row["sample"]),
        "rater": "rater",
        "question": "question",
        "edited": "edited",
    }
    shown = table(list(columns), rows(edits.head(SHOWN), columns), kind="text") if len(edits) else ""
    return section("Edited questions", details(f"{len(edits)} edit(s)", shown))
