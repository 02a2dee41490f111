"""The page of head rankings: heat maps, the top heads, how far data sets agree on them, and the figures of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.errors import StudyError
from interp.metrics import METRICS
from interp.report.figures import (
    GREY,
    HIGHLIGHT,
    SEQUENTIAL,
    Figures,
    clear,
    colour_bar,
    cut_ticks,
    heat,
    laid_out,
    panels,
    plain,
    ticks_at,
)
from interp.report.html import (
    card,
    figure_card,
    figure_cards,
    grid,
    headline,
    join,
    paragraph,
    save_page,
    section,
    table,
)  # fmt: skip
from interp.report.provenance import (
    as_json,
    failure_list,
    meanings,
    metric_terms,
    opening,
    origin,
    provenance,
)
from interp.report.tables import count, interval, listed, number, rows, signed
from interp.study.dataframes import records, where
from interp.study.head_ranking.rank_agreement import Agreement, Estimate, head_agreement
from interp.study.head_ranking.result import HeadResult
from interp.study.model_spec import is_organism, model_label

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadGrid, HeadResult

__all__ = ["figures", "heat_maps", "rank_scatter", "ranking_figures", "result_names", "write_page"]


LEAD = Markup("""Every head of <b>{models}</b> on {samples}: how well its map over the image tokens agrees with the
annotated boxes, measured by {metric} ({better} is better). Heads are ranked by their mean over samples.""")
HEAT = """Each cell is the mean score of one head; light is good, and all data sets share one scale. Circles mark the
top {k}. The scale is cut at the worst 2 % of heads. Where boxes differ in size, compare the order of heads within a
data set; KL and JS are not comparable between data sets."""
UNIFORM = """At least half of the top {k} heads of {names} score no better than a uniform map. This ranking, and the
agreement of two data sets, may show uniformity rather than grounding. Compare with a ranking by AR or AUROC before you
interpret it."""
SCATTER = """Each point is a head, coloured by its layer. Heads in the shaded square are among the top {k} of both data
sets. Heads on the dotted line have the same rank in both."""
WHY_KL = """KL is the default because the paper ranks heads by it. It requires weight on every part of the boxes, so a
sharp map that leaves part of a box dark scores worse than a uniform map. AR and AUROC measure whether the weight lies
inside the boxes, and other heads may lead by them."""
TERMS = {
    "Rank correlation": "Spearman's correlation over all heads: 1 is the same order, 0 is unrelated orders.",
    "Overlap": """The share of the top k that both data sets have in common; by chance it is k / H, with H heads in all.
    Heads tied at the cut share the remaining places.""",
    "Intervals": """95 %, over resampled groups. For one head's mean: percentiles. For an agreement: the estimate ± 1.96
    standard deviations over rankings of resampled groups (on Fisher's z scale for the correlation), because resampled
    rankings are noisier and agree less than the measured ones. With fewer than 20 groups no interval is shown.""",
    "Ceiling": """Rankings from few samples differ by noise alone. The reliability of a data set is the rank correlation
    between random halves of its groups, corrected to full size by 2r / (1 + r). The ceiling is the square root of the
    product of both reliabilities. “Corrected” is the correlation divided by the ceiling, at most 1.""",
    "Gain": """How much better the mean is than the score of a uniform map on the same samples; positive is better.
    Where it is negative, a uniform map scores better.""",
}


def figures(result: HeadResult | HeadGrid, k: int = 20, *, against: Sequence[HeadResult] = ()) -> Figures:
    """ "heads": one heat map per ranking; "ranks", "ranks-2", …: the first ranking against each of the others.

    Args:
        result: One ranking, or a grid of rankings.
        k: The number of top heads.
        against: Further rankings by the same metric.
    """
    return ranking_figures(_rankings(result, against), k)


def write_page(
    result: HeadResult | HeadGrid, path: str | Path, *, k: int = 20, against: Sequence[HeadResult] = ()
) -> Path:
    """Writes the page and returns its path.

    Args:
        result: One ranking, or a grid of rankings; the first is compared with each of the others.
        path: The HTML file; its folder is made.
        k: The number of top heads.
        against: Further rankings by the same metric.
    """
    results = _rankings(result, against)
    seed, shown = results[0].study.seed, ranking_figures(results, k)
    agreements = [head_agreement(results[0], other, k, seed=seed) for other in results[1:]]
    scatters = figure_cards((name for name in shown if name != "heads"), "half")
    named = list(zip(result_names(results), results, strict=True))
    body = [
        _warning(results, k),
        section("Agreement", *map(_agreement, agreements)),
        section("Layers × heads", figure_card("heads"), intro=HEAT.format(k=k)),
        section("Rank against rank", scatters, intro=SCATTER.format(k=k)),
        _tops(results, k),
        section("Failures", card(*(part for name, one in named for part in _failures(name, one)))),
        _meanings(results[0]),
        provenance((name, _origin(one)) for name, one in named),
    ]
    study = results[0].study
    return save_page(
        path, title=study.title, question=_question(results), lead=_lead(results), body=body, figures=shown
    )


def _rankings(result: HeadResult | HeadGrid, against: Sequence[HeadResult]) -> tuple[HeadResult, ...]:
    own = (result,) if isinstance(result, HeadResult) else result.results
    return (*own, *against)


def _question(results: Sequence[HeadResult]) -> str:
    question = results[0].study.question
    if len(results) == 1:
        return question
    return f"{question} Are they the same on {' and on '.join(result_names(results))}?"


def _lead(results: Sequence[HeadResult]) -> Markup:
    metric = METRICS[results[0].study.metric]
    samples = ", ".join(
        f"{count(len(result.samples), f'{_split(result)}sample')} of {name}"
        for name, result in zip(result_names(results), results, strict=True)
    )
    models = listed(model_label(result.study.model) for result in results)
    words = LEAD.format(models=models, samples=samples, metric=metric.label, better=metric.better)
    return opening(words, organism=any(is_organism(result.study.model) for result in results))


def _split(result: HeadResult) -> str:
    """The split that the samples name, as a word before “sample”; empty where they name none."""
    said = result.study.data.split
    return f"{said} " if said else ""


def _warning(results: Sequence[HeadResult], k: int) -> Markup:
    """A warning before all numbers, where the best heads are no better than a uniform map."""
    names = [
        name
        for name, result in zip(result_names(results), results, strict=True)
        if result.n_beating_even(k) <= len(result.best(k)) / 2
    ]
    none = [line for line in (result.none_beats_even() for result in results) if line]
    notes = [UNIFORM.format(names=" and of ".join(names), k=k)] if names else []
    return join(*(paragraph(note, kind="note wide") for note in (*dict.fromkeys(none), *notes)))


def _agreement(found: Agreement) -> Markup:
    a, b = found.labels
    own = list(zip(found.labels, found.reliability, strict=True))
    halves = [(f"reliability of {name}", _halves(one.full, one.n_groups)) for name, one in own]
    corrected = f"{number(found.corrected.value)} {_interval(found, found.corrected)}".strip()
    correlation = card(
        headline(
            number(found.spearman.value), _interval(found, found.spearman) or "no interval: too few groups"
        ),
        paragraph(f"Noise alone allows {number(found.ceiling)}. Corrected for it: {corrected}."),
        table((), halves, kind="text"),
        title=f"{a} and {b}: rank correlation over {found.n_heads} heads",
    )
    tops = [(f"two halves of {name}", _halves(one.overlap, one.n_groups)) for name, one in own]
    overlap = card(
        headline(
            number(found.overlap.value), _interval(found, found.overlap) or "no interval: too few groups"
        ),
        paragraph(f"By chance {number(found.chance)}: {found.k} of {found.n_heads} heads."),
        table((), tops, kind="text"),
        title=f"{a} and {b}: overlap of the top {found.k}",
    )
    return join(grid((correlation, overlap), "top"), _few(found))


def _halves(value: float, n_groups: int) -> str:
    return f"{number(value)} ({count(n_groups, 'group')})"


def _interval(found: Agreement, estimate: Estimate) -> str:
    return "" if found.note else interval(estimate.low, estimate.high)


def _few(found: Agreement) -> Markup | str:
    """The agreement of each group of a small data set, in place of a claim about a population."""
    if not found.note:
        return ""
    columns: dict[str, Any] = {
        "data": "data",
        "group": "group",
        "samples": "n",
        "rank correlation": lambda row: number(row["spearman"]),
        f"overlap of the top {found.k}": lambda row: number(row["overlap"]),
    }
    note = f"{found.note} Each group alone against all of the other data set:"
    return join(paragraph(note, kind="note"), card(table(list(columns), rows(found.per_group, columns))))


def _tops(results: Sequence[HeadResult], k: int) -> Markup:
    best = [{(row["layer"], row["head"]) for row in records(result.best(k))} for result in results]
    shared = set.intersection(*best) if len(results) > 1 else set()
    cards = (
        card(paragraph(result.verdict(k), kind="soft"), _top(result, k, shared), title=name)
        for name, result in zip(result_names(results), results, strict=True)
    )
    star = " * marks heads among the top of every data set." if shared else ""
    return section(f"The top {k}", grid(cards, "top"), intro=f"Best first.{star}")


def _top(result: HeadResult, k: int, shared: set[tuple[int, int]]) -> Markup:
    columns: dict[str, Any] = {
        "rank": lambda row: f"{row['rank']}{' *' if (row['layer'], row['head']) in shared else ''}",
        "layer": "layer",
        "head": "head",
        "mean": lambda row: number(row["mean"]),
        "95 %": lambda row: None if row["note"] else interval(row["low"], row["high"]),
        "gain": lambda row: signed(row["gain"]),
        "samples": "n",
        "groups": "n_groups",
    }
    return table(list(columns), rows(result.best(k), columns))


def _failures(name: str, result: HeadResult) -> list[Markup]:
    lost, unranked = result.failures, result.n_unranked
    if not len(lost) and not unranked:
        return [paragraph(f"{name}: none, every head was measured on every sample.", kind="soft")]
    whole = int(lost.layer.isna().sum())
    words = (
        f"{name}: {whole} of {count(len(result.study.data), 'sample')} left out. The metric was undefined "
        f"{count(len(lost) - whole, 'time')} at heads of a layer. Heads without a score: {unranked} of "
        f"{result.n_heads}."
    )
    return [paragraph(words), failure_list(lost, ["sample"])] if len(lost) else [paragraph(words)]


def _meanings(result: HeadResult) -> Markup:
    study = result.study
    why = {"Why KL": WHY_KL} if study.metric == "kl" else {}
    return meanings(
        {**metric_terms([study.metric], study.rule), **why, "Indicator": repr(study.indicator)}, TERMS
    )


def _origin(result: HeadResult) -> Markup:
    study = result.study
    more = [
        ("prompt", as_json(study.prompt)),
        ("indicator", as_json(study.indicator)),
        ("split, rule, seed, batch", f"{study.split}, {study.rule}, {study.seed}, {study.batch}"),
    ]
    return origin(result.cells[0].folder, more)


MARK = {"symbol": "circle-open", "size": 9, "color": HIGHLIGHT, "line": {"width": 2}}
BELOW = {"orientation": "h", "y": -0.16, "yanchor": "top", "len": 0.8}
"""A colour bar below the figure, because a square figure is narrower than its place."""
WORST = 0.98
"""The colour scale ends at this quantile on the bad side, because a few heads lie far off."""


def ranking_figures(results: Sequence[HeadResult], k: int = 20) -> Figures:
    """ "heads": one heat map per result; "ranks", "ranks-2", …: the first result's ranks against each of the others.

    Raises:
        StudyError: The results have different metrics.
    """
    found = {"heads": heat_maps(results, k)}
    for place, other in enumerate(results[1:], start=1):
        found["ranks" if place == 1 else f"ranks-{place}"] = rank_scatter(results[0], other, k)
    return found


def result_names(results: Sequence[HeadResult]) -> tuple[str, ...]:
    """Names that distinguish the results: their own names, their data, or model and data where those are the same."""
    names = tuple(result.name or result.study.data.name for result in results)
    return names if len(set(names)) == len(names) else tuple(result.study.label for result in results)


def heat_maps(results: Sequence[HeadResult], k: int = 20) -> go.Figure:
    """The mean score of every head: one panel per result, one colour scale (light is good), the top k circled.

    Layers from left to right, heads from bottom to top; a head without a score is left blank. On the bad side
    the scale ends at the 98th percentile of all heads.

    Raises:
        StudyError: The results have different metrics.
    """
    metrics = {result.study.metric for result in results}
    if len(metrics) > 1:
        raise StudyError(f"one colour scale needs one metric; got {', '.join(sorted(metrics))}.")
    figure = panels(result_names(results), horizontal_spacing=0.07)
    hover = ": %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], rank %{customdata[2]}"
    for column, result in enumerate(results, start=1):
        cells = heat(result.ranked, "mean", more=("low", "high", "rank"), hover=hover)
        figure.add_trace(cells, row=1, col=column)
        figure.add_trace(_marks(result, k, legend=column == 1), row=1, col=column)
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(showgrid=False)
    figure.update_yaxes(title_text="head", col=1)
    for place, axes in enumerate((figure.select_xaxes(), figure.select_yaxes())):
        found = [pair[place] for result in results for pair in result.means.heads]
        ends = [
            min(found) - 0.5,
            max(found) + 0.5,
        ]  # set here, because marks at an edge would widen the range
        for axis in axes:
            axis.update(**ticks_at(found, 10), range=ends)
    return laid_out(figure, 460, columns=len(results), coloraxis=_scale(results, metrics.pop()))


def _marks(result: HeadResult, k: int, *, legend: bool) -> go.Scatter:
    best = result.best(k)
    return go.Scatter(
        x=best.layer,
        y=best["head"],
        mode="markers",
        marker=MARK,
        name=f"top {k}",
        legendgroup="top",
        showlegend=legend,
        hoverinfo="skip",
    )


def _scale(results: Sequence[HeadResult], metric: str) -> dict[str, Any]:
    """The shared colour axis: from the best head's mean to the 98th percentile towards the bad side."""
    means = np.concatenate([result.ranked["mean"].dropna().to_numpy() for result in results])
    described = METRICS[metric]
    lower = described.better == "lower"
    low = float(means.min() if lower else np.quantile(means, 1 - WORST))
    high = float(np.quantile(means, WORST) if lower else means.max())
    title = f"{plain(described.label)}, {described.better} is better"
    bar = colour_bar(title, **cut_ticks(low, high, cut_high=lower))
    return {"colorscale": SEQUENTIAL, "reversescale": lower, "cmin": low, "cmax": high, "colorbar": bar}


def rank_scatter(a: HeadResult, b: HeadResult, k: int = 20) -> go.Figure:
    """Each head's rank in `a` against its rank in `b` (1 is best), coloured by layer; the shared top k is shaded."""
    names = result_names((a, b))
    ranks = [pd.DataFrame(one.ranked[["layer", "head", "rank"]]) for one in (a, b)]
    both = ranks[0].merge(ranks[1], on=["layer", "head"], suffixes=("_a", "_b"))
    both = where(both, (both.rank_a > 0) & (both.rank_b > 0))
    marker = {
        "size": 9 if len(both) < 200 else 6,
        "color": both.layer,
        "colorscale": SEQUENTIAL,
        "line": {"width": 0.5, "color": GREY},
        "colorbar": colour_bar("layer", **ticks_at(both.layer, 8), **BELOW),
    }
    hover = "layer %{customdata[0]}, head %{customdata[1]}<br>rank %{x} and %{y}<extra></extra>"
    figure = go.Figure(
        go.Scatter(
            x=both.rank_a,
            y=both.rank_b,
            customdata=both[["layer", "head"]],
            mode="markers",
            marker=marker,
            showlegend=False,
            hovertemplate=hover,
        )
    )
    end = len(both) + 0.5
    square: dict[str, Any] = {"x0": 0.5, "y0": 0.5, "x1": k + 0.5, "y1": k + 0.5}
    edge: dict[str, Any] = {"width": 1, "color": HIGHLIGHT}
    figure.add_shape(type="rect", **square, line=edge, fillcolor=clear(HIGHLIGHT, 0.16))
    dotted: dict[str, Any] = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_shape(type="line", x0=0.5, y0=0.5, x1=end, y1=end, line=dotted)
    axis: dict[str, Any] = {"showgrid": False, "range": [-0.5, end + 1], "constrain": "domain"}
    figure.update_xaxes(title_text=f"rank in {plain(names[0])} (1 = best)", **axis)
    figure.update_yaxes(title_text=f"rank in {plain(names[1])} (1 = best)", scaleanchor="x", **axis)
    return laid_out(figure, 540, margin={"b": 130})
