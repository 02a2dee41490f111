"""What other text tokens than the last attend to: curves by layer, differences from the last token, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.report.gallery import RAMP, portrait
from interp.report.html import (
    capital,
    card,
    cards,
    figure_card,
    mean_and_interval,
    number,
    opening,
    safe,
    stacked,
    table,
    tag,
    write_sheet,
)
from interp.stats import MIN_GROUPS, Interval, holm, paired, paired_test, per_group, population_note
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.figures import FONT, GREY, PALETTE
from interp.study.result import summarise

if TYPE_CHECKING:
    from interp.stats import Interval
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["against_last", "failures_said", "own_layer_scores", "token_curves", "write_text_tokens"]

Values: TypeAlias = dict[Any, pd.DataFrame]


def own_layer_scores(result: Result, choices: Mapping[str, LayerChoice], metric: str = "ar") -> pd.DataFrame:
    """The samples' scores on their own and on other samples' boxes, each indicator at its own chosen layer.

    Args:
        result: Over the axis "indicator".
        choices: Indicator's label → the layer chosen for it.
        metric: Which score.
    """
    scores = where(result.scores, result.scores.metric == metric)
    layers = [choices[kind].layers[model] for kind, model in zip(scores.indicator, scores.model, strict=True)]
    return where(scores, scores.layer == pd.Series(layers, index=scores.index))


def against_last(scores: pd.DataFrame, last: str, *, seed: int = 0) -> pd.DataFrame:
    """One row per (model, data, indicator): mean, minus shuffled boxes, minus the last token, Holm-adjusted p.

    Args:
        scores: From `own_layer_scores`.
        last: The label of the indicator that the others are compared with.
        seed: Of the bootstrap and the permutations.

    Returns:
        Columns model, data, indicator, layer, mean, low, high, n, n_groups, n_undefined, note; `shuffled`, the
        paired difference (`Interval`) from other samples' boxes; `last`, that from the last token (None for
        itself), and `p`, NaN for itself.
    """
    own = where(scores, scores.control == "boxes")
    rows = records(summarise(own, seed=seed))
    places = list(dict.fromkeys(zip(own.model, own.data, strict=True)))
    rows.sort(key=lambda row: places.index((row["model"], row["data"])))
    keys = ["model", "data", "indicator", "control"]
    values: Values = {key: part.set_index("sample") for key, part in scores.groupby(keys)}
    for row in rows:
        here = (row["model"], row["data"])
        mine = values[*here, row["indicator"], "boxes"]
        null = values.get((*here, row["indicator"], "shuffled_boxes"))
        row["shuffled"] = None if null is None else _gap(mine, null, seed)
        other = None if row["indicator"] == last else values.get((*here, last, "boxes"))
        row["last"] = None if other is None else _gap(mine, other, seed)
        row["p"] = np.nan if other is None else _test(mine, other, seed)
    frame = pd.DataFrame(rows).drop(columns=["metric", "control"])
    return frame.assign(p=holm(frame.p.to_numpy()))


def _gap(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> Interval:
    return paired(*_both(a, b), seed=seed)


def _test(a: pd.DataFrame, b: pd.DataFrame, seed: int) -> float:
    return paired_test(*_both(a, b), seed=seed).p


def _both(a: pd.DataFrame, b: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and groups of the samples measured both ways, in one order."""
    common = [sample for sample in a.index if sample in b.index]
    return a.value[common].to_numpy(), b.value[common].to_numpy(), a.group[common].to_numpy()


N_SHOWN = 2
LEAD = """On <b>{models}</b>, with {n} samples ({data}): attention to the image from the last prompt token, from the
words of the question, from the word of the object asked about, and from the first answer token while the model
reads it back."""
HOW = """AR is a map's mean inside the boxes over its mean everywhere; even attention scores 1. Lines are means over
samples, bands 95 % bootstrap intervals over groups (none below 20 groups), dashes the same maps on other samples'
boxes."""
DIVISOR = """Relative maps of all kinds of token are divided by one thing: the last row of the generic prompt, since
a generic prompt has no question and no object's word. They differ by their own rows alone, but only for the last
token do both rows have the same role in the sentence. A difference between kinds of token should therefore be seen
in the plain maps too."""
CHOICE = """Each kind of token at a layer of its own, the best of the validation split, measured on test samples of
other groups. Differences are over the same samples; p by permutation of whole groups, Holm's correction over all
rows of this table."""


def token_curves(result: Result, title: str, metric: str = "ar") -> go.Figure:
    """Mean per layer of each indicator, a panel per model and data set, with shuffled boxes dashed."""
    summary = where(result.summary(), result.summary().metric == metric)
    panels = list(dict.fromkeys((cell.labels["model"], cell.labels["data"]) for cell in result.cells))
    kinds = list(dict.fromkeys(cell.labels["indicator"] for cell in result.cells))
    many = len({model for model, _ in panels}) > 1
    titles = [safe(f"{model} · {data}" if many else data) for model, data in panels]
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, horizontal_spacing=0.07)
    for cell in result.cells:
        kind, column = cell.labels["indicator"], panels.index((cell.labels["model"], cell.labels["data"])) + 1
        part = rows_of(summary, cell.labels)
        traces = _curves(part, kind, PALETTE[kinds.index(kind)], legend=column == 1)
        figure.add_traces(traces, rows=1, cols=column)
    figure.add_hline(y=1, line={"color": GREY, "width": 1})
    figure.update_xaxes(
        title={"text": "layer", "standoff": 6}, showgrid=False, zeroline=False, ticks="outside"
    )
    figure.update_yaxes(zeroline=False, rangemode="tozero")
    figure.update_yaxes(title_text="attention ratio", col=1)
    figure.update_layout(
        template="plotly_white",
        height=400,
        title={"text": safe(title), "x": 0, "xanchor": "left", "font": {"size": 16}},
        margin={"l": 60, "r": 16, "t": 84, "b": 96},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13},
        legend={"orientation": "h", "y": -0.25, "x": 0},
    )
    return figure


def _curves(part: pd.DataFrame, kind: str, colour: str, *, legend: bool) -> list[go.Scatter]:
    own, null = (where(part, part.control == control) for control in ("boxes", "shuffled_boxes"))
    shared: dict[str, Any] = {"name": safe(kind), "legendgroup": kind, "hovertemplate": "%{y:.2f}"}
    traces = [
        go.Scatter(x=null.layer, y=null["mean"], mode="lines", showlegend=False, opacity=0.55,
                   line={"color": colour, "width": 1.2, "dash": "dash"}, **shared),
        go.Scatter(x=own.layer, y=own["mean"], mode="lines+markers", showlegend=legend,
                   line={"color": colour, "width": 2.5}, marker={"size": 6}, **shared),
    ]  # fmt: skip
    if len(own) and own.n_groups.min() >= MIN_GROUPS:
        x, y = pd.concat([own.layer, own.layer[::-1]]), pd.concat([own.high, own.low[::-1]])
        band: dict[str, Any] = {"fill": "toself", "fillcolor": colour, "opacity": 0.15, "line": {"width": 0}}
        traces.insert(0, go.Scatter(x=x, y=y, mode="lines", hoverinfo="skip", showlegend=False,
                                    legendgroup=kind, **band))  # fmt: skip
    return traces


def write_text_tokens(
    results: Mapping[str, Result], choices: Mapping[str, Mapping[str, LayerChoice]], last: str, path: Path
) -> Path:
    """Writes the page of the kinds of token.

    Args:
        results: How the maps are scaled ("relative …", "plain …") → a result over the axes "indicator" and "data".
        choices: The same, to each indicator's own chosen layer.
        last: The label of the indicator that the others are compared with.
        path: The HTML file.
    """
    first = next(iter(results.values()))
    names = ", ".join(dict.fromkeys(cell.labels["data"] for cell in first.cells))
    models = ", ".join(dict.fromkeys(cell.labels["model"] for cell in first.cells))
    n = first.samples[["data", "sample"]].drop_duplicates().shape[0]
    lead = opening(LEAD.format(models=safe(models), n=n, data=safe(names)), first)
    body = [tag("h2", "Layer by layer"), tag("p", HOW, kind="soft wide"), tag("p", DIVISOR, kind="soft wide")]
    body.append(stacked(figure_card(f"tokens-{i}") for i in range(len(results))))
    figures = {f"tokens-{i}": token_curves(r, f"AR, {name}") for i, (name, r) in enumerate(results.items())}
    body += [tag("h2", "At each kind's own layer"), tag("p", CHOICE, kind="soft wide")]
    tables = []
    for name, result in results.items():
        scores = own_layer_scores(result, choices[name])
        found = against_last(scores, last, seed=result.seed)
        tables.append(card(tag("h3", safe(capital(name))), _table(found), _few(scores)))
    body.append(stacked(tables))
    body += [
        tag("h2", "Some samples"),
        tag("p", f"Low {RAMP} high, each map by itself; relative maps.", kind="soft"),
    ]
    body += _examples(first, choices[next(iter(results))])
    body += [tag("h2", "Failures"), tag("p", safe(failures_said(list(results.values()))), kind="wide")]
    return write_sheet(
        path,
        title="Text tokens",
        question="Do the question, the object's word and the answer look at the object?",
        lead=lead,
        body=body,
        figures=figures,
    )


def failures_said(results: Sequence[Result]) -> str:
    """How many samples could not be measured, and why, in a sentence."""
    found = pd.concat([result.failures for result in results])
    if found.empty:
        return "None: every sample was measured."
    each = found.drop_duplicates(["indicator", "sample", "reason"])
    counts = (each.indicator + ": " + each.error).value_counts()
    said = ", ".join(f"{what} ×{count}" for what, count in counts.items())
    first = records(found)[0]
    return f"Left out: {said}. The first, {first['sample']}: {first['reason']}"


def _table(found: pd.DataFrame) -> str:
    heads = (
        "data",
        "rows of",
        "layer",
        "AR",
        "minus shuffled boxes",
        "minus last token",
        "p (Holm)",
        "samples",
    )
    many = found.model.nunique() > 1
    rows = []
    for row in records(found):
        few = row["n_groups"] < MIN_GROUPS
        rows.append((
            f"{row['model']} · {row['data']}" if many else row["data"], row["indicator"], str(row["layer"]),
            mean_and_interval(row), _said(row["shuffled"], few), _said(row["last"], few),
            "–" if np.isnan(row["p"]) else f"{row['p']:.2g}" + (" (few groups)" if few else ""),
            f"{row['n']} in {row['n_groups']} groups",
        ))  # fmt: skip
    return table(heads, rows)


def _said(gap: Interval | None, few: bool) -> str:
    if gap is None:
        return "–"
    sign = "+" if gap.mean > 0 else ""
    ends = "" if few else f" [{number(gap.low)}, {number(gap.high)}]"
    return f"{sign}{number(gap.mean)}{ends}"


def _few(scores: pd.DataFrame) -> str:
    """The values of each group, for data sets with too few of them."""
    own, parts = where(scores, scores.control == "boxes"), []
    for data, part in own.groupby("data", sort=False):
        note = population_note(part.group.nunique())
        if not note:
            continue
        said = []
        for kind, rows in part.groupby("indicator", sort=False):
            means = per_group(rows.value.to_numpy(), rows.group)
            listed = ", ".join(f"{g} {number(m)}" for g, m in zip(means["group"], means["mean"], strict=True))
            said.append(f"{kind}: {listed}")
        parts.append(tag("p", safe(f"{capital(str(data))}. {note} {'; '.join(said)}."), kind="note"))
    return "".join(parts)


def _examples(result: Result, choices: Mapping[str, LayerChoice]) -> list[str]:
    parts = []
    cells: dict[tuple[str, str], list[Cell]] = {}
    for cell in result.cells:
        cells.setdefault((cell.labels["model"], cell.labels["data"]), []).append(cell)
    for (model, data), own in cells.items():
        common = set.intersection(*(set(cell.frame("samples")["index"]) for cell in own))
        views = []
        for cell in own:
            layer = choices[cell.labels["indicator"]].layers[model]
            views.append((f"{cell.labels['indicator']}, layer {layer}", cell, layer))
        shown = (portrait(views, index) for index in sorted(common)[:N_SHOWN])
        parts += [tag("h4", safe(data)), cards(shown)]
    return parts
