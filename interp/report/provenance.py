"""Where the numbers of a report come from, and what could not be measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from interp.metrics import METRICS
from interp.report.html import (
    capital,
    card,
    code,
    definitions,
    details,
    grid,
    join,
    paragraph,
    section,
    table,
    written_by,
)
from interp.report.tables import count, size_of
from interp.run import RunFolder, cost_of, manifest_of

__all__ = [
    "INTERVALS",
    "as_json",
    "failure_list",
    "meanings",
    "metric_terms",
    "opening",
    "origin",
    "provenance"
]  # fmt: skip

ORGANISM = """The model is a model organism: a small network trained for this toolkit so that the cause of its answers
is known. It shows that the instruments work. These are not the paper's numbers, and they say nothing about a clinical
model."""
INTERVALS = """95 %, percentile bootstrap over groups (2,000 resamplings), because questions about one patient, volume
or image are not independent. Fewer than 20 groups support no claim about a population."""
SYMBOLS = """R: the map over the N image tokens that see some of the image. B: the tokens that the boxes cover, by the
rule “{rule}”. G: uniform inside B, zero outside. Â = R / Σ R. KL = Σ G ln(G / Â)."""

OUTLINES = """R: the map over the N image tokens that see some of the image. B: the pixels inside the samples' masks; a
token counts by the fraction c of it that lies inside, so Σ_B R is Σ c·R and |B| is Σ c. G = c / Σ c, uniform over the
pixels inside. Â = R / Σ R. KL = Σ G ln(G / Â)."""

TITLE = "where a multimodal LLM looks, and what happens when it is made to look elsewhere"
CITE = """Name the run's folder above, whose hash stands for everything the numbers depend on, the model with its
fingerprint, the data with theirs, and this software: """
SHOWN_FAILURES = 20
SHOWN_RUNS = 12


def opening(words: Markup, *, organism: bool, note: str = "") -> Markup:
    """The page's first paragraph, and the note that must follow when a model is an organism.

    Args:
        words: The paragraph.
        organism: Whether one of the models is.
        note: What to add to the note.
    """
    return join(
        paragraph(words, kind="lead"),
        paragraph(f"{ORGANISM} {note}".strip(), kind="note wide") if organism else "",
    )


def metric_terms(metrics: Iterable[str], rule: str) -> dict[Any, Any]:
    """Each metric's formula, direction and value for a uniform map, as terms of `html.definitions`."""
    symbols = OUTLINES if rule == "masks" else SYMBOLS.format(rule=rule)
    terms: dict[Any, Any] = {"R, N, B, G": symbols}
    for metric in (METRICS[name] for name in metrics):
        meaning = f"{capital(metric.better)} is better; a uniform map scores {metric.chance}."
        name = join(capital(metric.label), " ", code(metric.name))
        terms[name] = join(code(metric.formula), Markup("<br>"), meaning)
    return terms


def meanings(*lists: Mapping[Any, Any]) -> Markup:
    """The section that explains the words of a page, a card per list of terms."""
    return section("What the words mean", grid((card(definitions(terms)) for terms in lists), "top"))


def provenance(runs: Iterable[tuple[str, Markup]], *, folded: bool = False) -> Markup:
    """The section of where each run's numbers come from and what it cost.

    Args:
        runs: Title of each run and its table, from `origin`.
        folded: Whether the tables are folded, as they should be where they are many.
    """
    cards = [card(shown, title=title) for title, shown in runs]
    left = len(cards) - SHOWN_RUNS
    more = f"And {count(left, 'more run')}." if left > 0 else ""
    shown = grid(cards[:SHOWN_RUNS], "top")
    told = (
        details(count(len(cards), "run"), shown, more)
        if folded
        else join(shown, paragraph(more) if more else "")
    )
    return join(
        section("Provenance and cost", told),
        section("How to cite", paragraph(CITE, code(_entry()), kind="wide")),
    )


def _entry() -> str:
    """The BibTeX entry of this version of the software."""
    return f"@software{{interp, title = {{{{interp}}: {TITLE}}}, version = {{{written_by()}}}}}"


def origin(folder: RunFolder, more: Iterable[tuple[str, Any]] = ()) -> Markup:
    """The table of one run: model, data, settings, machine, versions, cost.

    Args:
        folder: The run's folder.
        more: Names and values of this kind of study's own settings.
    """
    manifest = manifest_of(folder)
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cost_of(folder)
    seconds, forwards = total.get("wall_seconds", 0), total.get("forwards", 0)
    lines = [
        ("run", folder.path.name),
        ("model", f"{model.get('id') or model.get('family')}, {_fingerprint(model)}"),
        ("data", f"{data.get('name')}, {count(int(data.get('n', 0)), 'sample')}, {_fingerprint(data)}"),
        *([("footprints", model["footprints"])] if model.get("footprints") else []),
        *more,
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {count(len(manifest.get('sessions', [])), 'session')}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())),
        ("commit", session.get("commit")),
        ("command", code(session["command"]) if session.get("command") else None),
        ("time", f"{seconds:.1f} s, {forwards:.0f} forward passes"),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]
    return table((), lines, kind="text")


def as_json(value: Any) -> str:
    """A setting as text: JSON of the value, or of what its `to_dict` gives."""
    return json.dumps(value.to_dict() if hasattr(value, "to_dict") else value, ensure_ascii=False)


def failure_list(
    found: pd.DataFrame,
    names: Sequence[str],
    *,
    distinct: Sequence[str] | None = None,
    shown: int = SHOWN_FAILURES,
) -> Markup:
    """The first failures as a table: what failed, and why.

    Args:
        found: Rows with `error` and `reason`.
        names: Columns that say what failed; those without a value are left out.
        distinct: One failure is listed for each of these columns, error and reason; all of `names` when left out.
        shown: The largest number of failures listed.
    """
    first = found.drop_duplicates([*(names if distinct is None else distinct), "error", "reason"]).head(shown)
    lines = [
        (
            " · ".join(str(row[name]) for name in names if pd.notna(row[name]) and row[name] != "")
            or row.get("sample"),
            f"{row['error']}: {row['reason']}",
        )
        for row in first.to_dict("records")
    ]
    return table((), lines, kind="text")


def _fingerprint(described: dict[str, Any]) -> str:
    return f"fingerprint {str(described.get('fingerprint'))[:16]}"
