"""The plain parts of a report: figures, failures, definitions, provenance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from interp.metrics import METRICS, Metric
from interp.report.html import capital, card, cards, rows_table, safe, size_of, tag
from interp.study.dataframes import records
from interp.study.layer_sweep import page as prose
from interp.study.layer_sweep.figures import cell_name, key

if TYPE_CHECKING:
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["definitions", "failures", "figures", "provenance"]

SHOWN_FAILURES = 20


def figures(by_metric: dict[str, go.Figure]) -> str:
    """A card per figure, drawn by the page's last script when every card has its width; the first is wide."""
    shown = [card(f'<div class="figure" id="figure-{safe(metric)}"></div>') for metric in by_metric]
    drawn = {f"figure-{metric}": json.loads(figure.to_json() or "{}") for metric, figure in by_metric.items()}
    data = json.dumps(drawn).replace("<", "\\u003c")  # nothing in it can end the script element
    script = f'<script type="application/json" id="figures">{data}</script>'
    return (
        tag("h2", "Layer by layer")
        + tag("p", prose.FIGURES, kind="soft wide")
        + cards(shown, "first")
        + script
    )


def failures(result: Result) -> str:
    """What could not be measured, and why."""
    found = result.failures
    if found.empty:
        return tag("h2", "Failures") + tag(
            "p", "None: every sample was measured at every layer.", kind="soft"
        )
    whole = found[found.layer.isna()]
    counts = found.error.value_counts()
    said = ", ".join(f"{name} ×{count}" for name, count in counts.items())
    words = (
        f"Samples left out: {len(whole)}. Single values undefined: {len(found) - len(whole)}. By reason: "
        f"{safe(said)}. They are rows of <code>failures.parquet</code>; means are over the rest."
    )
    rows = found.drop_duplicates(["sample", "error", "reason"]).head(SHOWN_FAILURES)
    listed = rows_table((row["sample"], f"{row['error']}: {row['reason']}") for row in records(rows))
    table = tag("details", tag("summary", f"The first {len(rows)}"), card(listed))
    return tag("h2", "Failures") + tag("p", words, kind="wide") + table


def definitions(result: Result) -> str:
    """Each metric, each null and the indicator, in words."""
    sweep = result.cells[0].sweep
    symbols = _term("R, N, B, G", prose.SYMBOLS.format(rule=sweep.rule))
    metrics = tag("dl", symbols, *(_definition(METRICS[name]) for name in result.metrics))
    terms = {
        "Indicator": repr(sweep.indicator),
        "Shuffled boxes": prose.SHUFFLED,
        "Centre prior": prose.CENTRE_PRIOR,
        "Intervals": prose.INTERVALS,
        "Featured layer": prose.FEATURED,
        "Comparing data sets": prose.COMPARING,
    }
    words = tag("dl", *(_term(term, text) for term, text in terms.items()))
    return tag("h2", "What the words mean") + cards((card(metrics), card(words)), kind="top")


def _term(term: str, text: str) -> str:
    return tag("dt", safe(term)) + tag("dd", safe(text))


def _definition(metric: Metric) -> str:
    formula = tag("code", safe(metric.formula))
    direction = f"{capital(metric.better)} is better; an even map scores {metric.chance}."
    name = f"{safe(capital(metric.label))} {tag('code', safe(metric.name))}"
    return tag("dt", name) + tag("dd", formula, "<br>", safe(direction))


def provenance(result: Result) -> str:
    """Where each cell's numbers come from and what they cost."""
    shown = (
        card(tag("h3", key(result, cell), safe(cell_name(result, cell))), rows_table(_origin(cell)))
        for cell in result.cells
    )
    return tag("h2", "Provenance and cost") + cards(shown)


def _origin(cell: Cell) -> list[tuple[str, Any]]:
    manifest = cell.folder.read_json("manifest.json", {})
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    total = cell.folder.read_json("cost.json", {}).get("total", {})
    versions = ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())
    sweep = cell.sweep
    return [
        ("run", cell.folder.path.name),
        (
            "model",
            f"{model.get('id') or model.get('family')}, fingerprint {str(model.get('fingerprint'))[:16]}",
        ),
        (
            "data",
            f"{data.get('name')}, {data.get('n')} samples, fingerprint {str(data.get('fingerprint'))[:16]}",
        ),
        ("prompt", json.dumps(sweep.prompt.to_dict(), ensure_ascii=False)),
        ("indicator", json.dumps(sweep.indicator.to_dict(), ensure_ascii=False)),
        ("rule, seed, batch", f"{sweep.rule}, {sweep.seed}, {sweep.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", versions),
        ("commit", session.get("commit")),
        ("time", f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]
