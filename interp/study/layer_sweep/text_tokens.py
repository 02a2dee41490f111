"""What text tokens other than the last attend to: their gaps, and their page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.report.figures import (
    GREY,
    Figures,
    curves,
    every,
    laid_out,
    level_line,
    metric_axis,
    panels,
    plain,
    series_colour,
)
from interp.report.gallery import ramp
from interp.report.html import (
    capital,
    card,
    figure_cards,
    grid,
    heading,
    join,
    paragraph,
    save_page,
    section,
    table,
)
from interp.report.tables import estimate, group_values, in_groups, p_value, rows, times
from interp.stats import Interval, holm, paired, paired_test, population_note
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.page import map_card, sweep_opening
from interp.study.result import summarise

if TYPE_CHECKING:
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["against_last", "failures_said", "figures", "own_layer_scores", "write_page"]

N_SHOWN = 2
LEAD = Markup("""Attention to the image on <b>{models}</b>, with {samples} ({data}): from the last prompt token,
from the words of the question, from the word of the object in question, from the first answer token when the model
reads it back, and from every row after the image.""")
HOW = """AR is the mean of a map inside the boxes over its mean everywhere; a uniform map scores 1. Lines are means
over samples, bands their 95 % bootstrap intervals over groups; where there are fewer than 20 groups, each thin line
is one group. Dashed: the same maps on other samples' boxes."""
DIVISOR = """Relative maps are divided by the last row of the generic prompt, because a generic prompt has no question
and no word for the object. There is one exception: maps of “every row after the image” are divided by the mean of the
same rows of the generic prompt, as in the paper's official code. Only for this kind and for the last token do the rows
have the same role in both prompts. A difference between kinds of token should therefore also appear in the plain
maps."""
CHOICE = """Each kind of token is shown at its own layer, the best on {chosen_on}. {caution}“Minus” columns are
differences of AR over the same samples: minus AR on shuffled boxes (those of other samples), and minus AR of the last
token. p: permutation of whole groups, with Holm's correction over all rows of this table."""


def own_layer_scores(result: Result, choices: Mapping[str, LayerChoice], metric: str = "ar") -> pd.DataFrame:
    """The samples' scores on their own and on other samples' boxes, each indicator at its own chosen layer.

    Args:
        result: A result over the axis "indicator".
        choices: Indicator's label → the layer chosen for it.
        metric: The metric of the score.
    """
    scores = where(result.values, result.values.metric == metric)
    layers = [choices[kind].layers[model] for kind, model in zip(scores.indicator, scores.model, strict=True)]
    return where(scores, scores.layer == pd.Series(layers, index=scores.index))


def against_last(scores: pd.DataFrame, last: str, *, seed: int = 0) -> pd.DataFrame:
    """One row per (model, data, indicator): mean, minus shuffled boxes, minus the last token, Holm-adjusted p.

    Args:
        scores: The frame that `own_layer_scores` returns.
        last: The label of the indicator that the others are compared with.
        seed: The seed of the bootstrap and the permutations.

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
    values: dict[Any, pd.DataFrame] = {key: part.set_index("index") for key, part in scores.groupby(keys)}
    for row in rows:
        here = (row["model"], row["data"])
        mine = values[*here, row["indicator"], "boxes"]
        shuffled = values.get((*here, row["indicator"], "shuffled_boxes"))
        row["shuffled"] = None if shuffled is None else _gap(mine, shuffled, seed)
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
    common = a.index.intersection(b.index, sort=False)
    return a.value[common].to_numpy(), b.value[common].to_numpy(), a.group[common].to_numpy()


def figures(results: Mapping[str, Result], metric: str = "ar") -> Figures:
    """ "tokens-0", "tokens-1", …: for each result the mean per layer of each kind of token.

    Args:
        results: How the maps are scaled → a result over the axes "indicator" and "data".
        metric: The metric of the curves.
    """
    named = enumerate(results.items())
    return {f"tokens-{i}": _curves(result, f"AR, {name}", metric) for i, (name, result) in named}


def _curves(result: Result, title: str, metric: str) -> go.Figure:
    """A panel per model and data set, with shuffled boxes dashed."""
    both = [where(frame, frame.metric == metric) for frame in (result.summary(), result.scores)]
    places = list(dict.fromkeys((cell.labels["model"], cell.labels["data"]) for cell in result.cells))
    kinds = list(dict.fromkeys(cell.labels["indicator"] for cell in result.cells))
    many = len({model for model, _ in places}) > 1
    figure = panels(
        [f"{model} · {data}" if many else data for model, data in places], horizontal_spacing=0.07
    )
    for cell in result.cells:
        kind, column = cell.labels["indicator"], places.index((cell.labels["model"], cell.labels["data"])) + 1
        colour = series_colour(kinds.index(kind))
        for control, dash in (("shuffled_boxes", "dash"), ("boxes", "solid")):
            summary, scores = (rows_of(frame, {**cell.labels, "control": control}) for frame in both)
            shown = curves(
                summary, scores, kind, colour, dash=dash, legend=dash == "solid" and column == 1, digits=2
            )
            figure.add_traces(shown if dash == "solid" else shown[-1:], rows=1, cols=column)
    figure.add_scatter(
        x=[None], y=[None], mode="lines", name="other samples' boxes", line={"color": GREY, "dash": "dash"}
    )
    level_line(figure, 1, "uniform map")
    figure.update_xaxes(title_text="layer", dtick=every(result.scores.layer))
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text=metric_axis(metric), col=1)
    above: dict[str, Any] = {"text": plain(title), "x": 0, "xanchor": "left", "font": {"size": 16}}
    return laid_out(figure, 420, columns=len(places), title=above, margin={"t": 84, "b": 96})


def write_page(
    results: Mapping[str, Result],
    path: str | Path,
    *,
    choices: Mapping[str, Mapping[str, LayerChoice]],
    last: str,
) -> Path:
    """Writes the page of the kinds of token.

    Args:
        results: How the maps are scaled ("relative …", "plain …") → a result over the axes "indicator" and "data".
        path: The HTML file.
        choices: How the maps are scaled → each indicator's own chosen layer.
        last: The label of the indicator that the others are compared with.
    """
    first = next(iter(results.values()))
    shown, cards = figures(results), []
    for name, result in results.items():
        scores = own_layer_scores(result, choices[name])
        found = against_last(scores, last, seed=result.seed)
        cards.append(card(_table(found), _few(scores), title=capital(name)))
    examples = join("Colours run ", ramp(), ", each map by itself; relative maps.")
    body = [
        section("Layer by layer", paragraph(DIVISOR, kind="soft wide"), figure_cards(shown), intro=HOW),
        section("At each kind's own layer", grid(cards, "stacked"), intro=_choice(first, choices)),
        section("Some samples", *_examples(first, choices[next(iter(results))]), intro=examples),
        section("Failures", paragraph(failures_said(list(results.values())), kind="wide")),
    ]
    return save_page(
        path,
        title="Text tokens",
        question="Do the question, the object's word and the answer look at the object?",
        lead=sweep_opening(LEAD, first),
        body=body,
        figures=shown,
    )


def _choice(result: Result, choices: Mapping[str, Mapping[str, LayerChoice]]) -> str:
    """What the layers were chosen on."""
    choice = next(iter(next(iter(choices.values())).values()))
    samples = f"{choice.split or 'other'} samples"
    own = f"{samples} of other groups" if choice.held_out(result) else "samples of the same groups"
    return CHOICE.format(chosen_on=own, caution=f"{choice.caution} " if choice.caution else "")


def failures_said(results: Sequence[Result]) -> str:
    """How many samples could not be measured, and why, in a sentence."""
    found = pd.concat([result.failures for result in results])
    if found.empty:
        return "None: every sample was measured."
    each = found.drop_duplicates(["model", "data", "indicator", "index", "reason"])
    first = records(found)[0]
    said = times((each.indicator + ": " + each.error).value_counts())
    return f"Left out: {said}. The first, {first['sample']}: {first['reason']}"


def _table(found: pd.DataFrame) -> Markup:
    many = found.model.nunique() > 1
    columns: dict[str, Any] = {
        "data": lambda row: f"{row['model']} · {row['data']}" if many else row["data"],
        "rows of": "indicator",
        "layer": "layer",
        "AR": estimate,
        "minus shuffled boxes": lambda row: _gap_text(row["shuffled"]),
        "minus last token": lambda row: _gap_text(row["last"]),
        "Holm's p": lambda row: p_value(row["p"]),
        "samples": in_groups,
    }
    return table(list(columns), rows(found, columns))


def _gap_text(gap: Interval | None) -> str | None:
    return None if gap is None else estimate(vars(gap), sign=True)


def _few(scores: pd.DataFrame) -> Markup:
    """The values of each group, for data sets with too few of them."""
    own, parts = where(scores, scores.control == "boxes"), []
    for data, part in own.groupby("data", sort=False):
        note = population_note(part.group.nunique())
        kinds = [
            f"{kind} ({group_values(own.value, own.group)})"
            for kind, own in part.groupby("indicator", sort=False)
        ]
        if note:
            parts.append(paragraph(f"{capital(str(data))}. {note} {'; '.join(kinds)}.", kind="note"))
    return join(*parts)


def _examples(result: Result, choices: Mapping[str, LayerChoice]) -> list[Markup]:
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
        parts += [heading(data, level=3), grid(map_card(views, index) for index in sorted(common)[:N_SHOWN])]
    return parts
