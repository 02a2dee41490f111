"""The page of head rankings: heat maps, the top heads, and how far data sets agree on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.metrics import METRICS
from interp.report.html import (
    capital,
    card,
    cards,
    figure_card,
    number,
    rows_table,
    safe,
    size_of,
    table,
    tag,
    write_sheet,
)
from interp.study.dataframes import records
from interp.study.head_ranking.agreement import Agreement, Estimate, head_agreement
from interp.study.head_ranking.figures import head_figures, result_names
from interp.study.layer_sweep import page as prose
from interp.study.model_spec import is_organism, model_label

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadResult

__all__ = ["write_head_report"]

LEAD = """Every head of <b>{model}</b> on {samples}: how well its map over the image tokens falls inside the
annotated boxes, by {metric}, {better} is better. Heads are ranked by their mean over samples."""

HEAT = """Each cell is a head: its mean score, light = good, on one scale for all data sets; circles mark the top
{k}. The scale is cut at the worst 2 % of heads. Where boxes differ in size the scales of KL and JS are not
comparable between data sets; the order of heads within one is."""

EVEN = """Half or more of the top {k} heads of {names} score no better than a map that is the same everywhere.
What this ranking finds, and two data sets agree on, may be evenness rather than grounding: compare with a ranking by
AR or AUROC before reading more into it."""

SCATTER = """Each point is a head, coloured by its layer. In the shaded square: the heads that both data sets
count among their top {k}. On the dotted line: heads of the same rank in both."""

TERMS = {
    "Rank correlation": """Spearman's, over all heads: 1 = the same order, 0 = unrelated orders.""",
    "Overlap": """The share of the top k that both data sets have in common; k / H by chance. Heads tied at the cut
    share the places left.""",
    "Intervals": """95 %, over resampled groups: of one head's mean, percentiles; of an agreement, the estimate ± 1.96
    standard deviations of the rankings made anew from resampled groups (on Fisher's z for the correlation), because
    such rankings are noisier and agree less than the measured ones. With fewer than 20 groups none is shown.""",
    "Ceiling": """Rankings of few samples differ by noise alone. A data set's reliability is the rank correlation
    between random halves of its groups, brought to full size by 2r / (1 + r); the ceiling is the root of the product
    of both. “Corrected” is the correlation over the ceiling, at most 1.""",
    "Gain": """How much better the mean is than the score of a map that is the same everywhere, on the same
    samples; positive is better. Where it is negative, looking at nothing in particular would have scored better.""",
}


def write_head_report(results: Sequence[HeadResult], path: Path, k: int = 20) -> Path:
    """Writes the page and returns its path.

    Args:
        results: Results by one metric; the first is compared with each of the others.
        path: The HTML file; its folder is made.
        k: How many heads are the top.
    """
    agreements = [head_agreement(results[0], other, k, seed=results[0].study.seed) for other in results[1:]]
    figures = head_figures(results, k)
    body = [
        _warning(results, k),
        _agreements(agreements),
        tag("h2", "Layers × heads"),
        tag("p", HEAT.format(k=k), kind="soft wide"),
        figure_card("heads"),
        _scatters(figures, k),
        _tops(results, k),
        _failures(results),
        _words(results[0]),
        _provenance(results),
    ]
    study = results[0].study
    return write_sheet(
        path, title=study.title, question=_question(results), lead=_lead(results), body=body, figures=figures
    )


def _question(results: Sequence[HeadResult]) -> str:
    question = results[0].study.question
    return (
        question
        if len(results) == 1
        else f"{question} Are they the same on {' and on '.join(result_names(results))}?"
    )


def _lead(results: Sequence[HeadResult]) -> str:
    metric = METRICS[results[0].study.metric]
    names = result_names(results)
    samples = ", ".join(
        f"{len(result.samples)} {safe(result.study.split)} samples of {safe(name)}"
        for name, result in zip(names, results, strict=True)
    )
    models = ", ".join(dict.fromkeys(model_label(result.study.model) for result in results))
    words = LEAD.format(model=safe(models), samples=samples, metric=safe(metric.label), better=metric.better)
    organism = any(is_organism(result.study.model) for result in results)
    return tag("p", words, kind="lead") + (tag("p", prose.ORGANISM, kind="note wide") if organism else "")


def _warning(results: Sequence[HeadResult], k: int) -> str:
    """Said before any number, where the best heads do no better than looking at nothing in particular."""
    dull = [
        safe(name)
        for name, result in zip(result_names(results), results, strict=True)
        if result.n_beating_even(k) <= min(k, result.n_heads) / 2
    ]
    return tag("p", EVEN.format(names=" and of ".join(dull), k=k), kind="note wide") if dull else ""


def _agreements(agreements: Sequence[Agreement]) -> str:
    if not agreements:
        return ""
    return tag("h2", "Agreement") + "".join(_agreement(found) for found in agreements)


def _agreement(found: Agreement) -> str:
    a, b = (safe(label) for label in found.labels)
    correlation = card(
        tag("h3", f"{a} and {b}: rank correlation over {found.n_heads} heads"),
        tag("div", tag("b", number(found.spearman.value)), _range(found, found.spearman), kind="number"),
        tag(
            "p",
            f"Noise alone allows {number(found.ceiling)}; corrected for it {_said(found, found.corrected)}.",
        ),
        rows_table(
            (f"reliability of {label}", _halves(own.full, own.n_groups)) for label, own in _own(found)
        ),
    )
    overlap = card(
        tag("h3", f"{a} and {b}: overlap of the top {found.k}"),
        tag("div", tag("b", number(found.overlap.value)), _range(found, found.overlap), kind="number"),
        tag("p", f"By chance {number(found.chance)}: {found.k} of {found.n_heads} heads."),
        rows_table(
            (f"two halves of {label}", _halves(own.overlap, own.n_groups)) for label, own in _own(found)
        ),
    )
    return cards((correlation, overlap), "top") + _few(found)


def _own(found: Agreement) -> list[tuple[str, Any]]:
    return list(zip(found.labels, found.reliability, strict=True))


def _halves(value: float, n_groups: int) -> str:
    return f"{number(value)} ({n_groups} {'group' if n_groups == 1 else 'groups'})"


def _range(found: Agreement, estimate: Estimate) -> str:
    shown = "" if found.note else f"[{number(estimate.low)}, {number(estimate.high)}]"
    return tag("span", shown or "no interval: too few groups", kind="soft")


def _said(found: Agreement, estimate: Estimate) -> str:
    return number(estimate.value) + (
        "" if found.note else f" [{number(estimate.low)}, {number(estimate.high)}]"
    )


def _few(found: Agreement) -> str:
    """Each group of a small data set on its own, instead of a claim about all."""
    if not found.note:
        return ""
    rows = [
        (row["data"], row["group"], str(row["n"]), number(row["spearman"]), number(row["overlap"]))
        for row in records(found.per_group)
    ]
    heads = ("data", "group", "samples", "rank correlation", f"overlap of the top {found.k}")
    said = tag("p", safe(found.note) + " Each group alone against all of the other data set:", kind="note")
    return f'<div style="margin-top:18px">{said}{card(table(heads, rows))}</div>'


def _scatters(figures: dict[str, Any], k: int) -> str:
    shown = [figure_card(name) for name in figures if name != "heads"]
    if not shown:
        return ""
    return tag("h2", "Rank against rank") + tag("p", SCATTER.format(k=k), kind="soft wide") + cards(shown)


def _tops(results: Sequence[HeadResult], k: int) -> str:
    shared = set.intersection(*({*_best(result, k)} for result in results)) if len(results) > 1 else set()
    shown = (
        card(tag("h3", safe(name)), tag("p", safe(result.verdict(k)), kind="soft"), _top(result, k, shared))
        for name, result in zip(result_names(results), results, strict=True)
    )
    star = " * among the top of every data set." if shared else ""
    return tag("h2", f"The top {k}") + tag("p", f"Best first.{star}", kind="soft wide") + cards(shown, "top")


def _best(result: HeadResult, k: int) -> list[tuple[int, int]]:
    return [(row["layer"], row["head"]) for row in records(result.best(k))]


def _top(result: HeadResult, k: int, shared: set[tuple[int, int]]) -> str:
    rows = []
    for row in records(result.best(k)):
        star = " *" if (row["layer"], row["head"]) in shared else ""
        few = "–" if row["note"] else f"[{number(row['low'])}, {number(row['high'])}]"
        gain = ("+" if row["gain"] > 0 else "") + number(row["gain"])
        place = (f"{row['rank']}{star}", str(row["layer"]), str(row["head"]))
        rows.append((*place, number(row["mean"]), few, gain, str(row["n"])))
    return table(("rank", "layer", "head", "mean", "95 %", "gain", "samples"), rows)


def _failures(results: Sequence[HeadResult]) -> str:
    lines = []
    for name, result in zip(result_names(results), results, strict=True):
        lost, unranked = result.failures, result.n_unranked
        if not len(lost) and not unranked:
            lines.append(
                tag("p", safe(name) + ": none, every head was measured on every sample.", kind="soft")
            )
            continue
        whole = int(lost.layer.isna().sum())
        text = (
            f"{whole} of {len(result.study.data)} samples left out. {len(lost) - whole} times the metric was "
        )
        text += f"undefined at heads of a layer. {unranked} of {result.n_heads} heads without a score."
        lines.append(tag("h3", safe(name)) + tag("p", text))
        first = lost.drop_duplicates(["sample", "error", "reason"]).head(10)
        if len(first):
            lines.append(
                rows_table((row["sample"], f"{row['error']}: {row['reason']}") for row in records(first))
            )
    return tag("h2", "Failures") + card(*lines)


def _words(result: HeadResult) -> str:
    metric = METRICS[result.study.metric]
    own = (
        tag("code", safe(metric.formula))
        + f"<br>{capital(metric.better)} is better; an even map scores {metric.chance}."
    )
    terms = {
        safe(capital(metric.label)): own,
        "R, N, B, G": prose.SYMBOLS.format(rule=safe(result.study.rule)),
        "Indicator": safe(repr(result.study.indicator)),
        **TERMS,
    }
    listed = tag("dl", *(tag("dt", name) + tag("dd", words) for name, words in terms.items()))
    return tag("h2", "What the words mean") + card(listed)


def _provenance(results: Sequence[HeadResult]) -> str:
    shown = (
        card(tag("h3", safe(name)), rows_table(_origin(result)))
        for name, result in zip(result_names(results), results, strict=True)
    )
    return tag("h2", "Provenance and cost") + cards(shown, "top")


def _origin(result: HeadResult) -> list[tuple[str, Any]]:
    run, study = result.cells[0].folder, result.study
    manifest, total = run.read_json("manifest.json", {}), run.read_json("cost.json", {}).get("total", {})
    session = (manifest.get("sessions") or [{}])[-1]
    model, data = manifest.get("model", {}), manifest.get("data", {})
    return [
        ("run", run.path.name),
        (
            "model",
            f"{model.get('id') or model.get('family')}, fingerprint {str(model.get('fingerprint'))[:16]}",
        ),
        (
            "data",
            f"{data.get('name')}, {data.get('n')} samples, fingerprint {str(data.get('fingerprint'))[:16]}",
        ),
        ("prompt", json.dumps(study.prompt.to_dict(), ensure_ascii=False)),
        ("indicator", json.dumps(study.indicator.to_dict(), ensure_ascii=False)),
        ("split, rule, seed, batch", f"{study.split}, {study.rule}, {study.seed}, {study.batch}"),
        ("device", f"{manifest.get('device')}; {session.get('machine')}"),
        ("computed", f"{session.get('started')}, {len(manifest.get('sessions', []))} session(s)"),
        ("versions", ", ".join(f"{name} {version}" for name, version in session.get("versions", {}).items())),
        ("commit", session.get("commit")),
        ("time", f"{total.get('wall_seconds', 0):.1f} s, {total.get('forwards', 0):.0f} forward passes"),
        ("peak memory", size_of(total["peak_bytes"]) if total.get("peak_bytes") else None),
    ]


def write_page(
    result: HeadResult, path: str | Path, *, k: int = 20, against: Sequence[HeadResult] = ()
) -> Path:
    """Write the page and return its path."""
    return write_head_report((result, *against), Path(path), k)


def figures(result: HeadResult, *, k: int = 20, against: Sequence[HeadResult] = ()) -> dict[str, Any]:
    """The page's figures by name."""
    return head_figures((result, *against), k)
