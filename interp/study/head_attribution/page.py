"""The page of a head attribution: direct effects beside total effects and beside where the heads attend; figures."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from markupsafe import Markup
from scipy.stats import rankdata

from interp.report.figures import (
    DIVERGING,
    GREY,
    SEQUENTIAL,
    SERIES,
    Figures,
    colour_bar,
    heat,
    interval_arms,
    laid_out,
    panels,
    ticks_at,
)
from interp.report.html import card, figure_cards, join, paragraph, save_page, section, table
from interp.report.provenance import as_json, origin
from interp.report.tables import estimate, interval, number, rows
from interp.stats import population_note
from interp.study.dataframes import where
from interp.study.head_ranking.result import HeadMeans, draws
from interp.study.page_parts import failure_line, lead, origins

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadResult
    from interp.study.result import GridResult
    from interp.study.runs import GridCell

__all__ = [
    "COLUMNS",
    "agreements",
    "figures",
    "head_maps",
    "head_scatter",
    "head_table",
    "part_bars",
    "said",
    "write_page",
]


N_DRAWS, N_SHOWN = 1000, 8
LEAD = Markup("""What each part of <b>{models}</b> adds to the residual stream at the last prompt token, projected on
the first token of the answer: {samples} ({data}). Logits are measured from the vocabulary's mean logit, so that what
all tokens share does not count. The parts add up to the model's own logit; the largest error of a sample was
{error:.1g}.""")
HOW = """Direct: from the head straight to the unembedding, with the scale of the final norm frozen. Total: how far the
logit falls when the head writes nothing at the last token, so that later layers lose its output too. Below zero the
logit rises. Attention ratio: the head's attention from the last token is divided by that under the generic prompt; the
ratio is its mean inside the boxes over its mean everywhere. A uniform map scores 1."""
PARTS = """Bars are means over samples, with 95 % bootstrap intervals over groups (none where there are fewer than 20
groups)."""
TABLE = """The heads whose total effect is furthest from their direct effect: a description of these samples. A total
effect above the direct effect: later layers pass on what the head writes. Below: later layers make up for its loss,
or the head had worked against them."""
CORRELATION = """Spearman's rank correlation of the mean effects over all heads, with a 95 % bootstrap interval that
draws groups and ranks the heads anew. The heads are all heads of the model and no random sample, so the interval is
about the samples."""


def head_table(result: GridResult, rankings: Mapping[str, HeadResult]) -> pd.DataFrame:
    """One row per (data, layer, head): means of `COLUMNS` with `_low` and `_high`, 95 % over groups.

    "ar" is NaN, or left out altogether, where there is no ranking.
    """
    summary = where(result.summary(), result.summary().part == "head")
    frames = []
    for data, own in summary.groupby("data", sort=False):
        pieces = [_named(where(own, own.measure == name), name) for name in ("direct", "total")]
        if data in rankings:
            pieces.append(_named(rankings[str(data)].summary(), "ar"))
        joined = pd.concat(pieces, axis=1).reset_index()
        frames.append(joined.assign(data=data))
    return pd.concat(frames, ignore_index=True)


def _named(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    names = {"mean": name, "low": f"{name}_low", "high": f"{name}_high"}
    return frame.set_index(["layer", "head"]).reindex(columns=list(names)).rename(columns=names)


def agreements(result: GridResult, rankings: Mapping[str, HeadResult]) -> pd.DataFrame:
    """Rank correlations over heads: columns data, first, second, rho, low, high, n_groups, note.

    All compared measures share their draws of groups; groups that one of them lacks are left out.
    """
    rows = []
    scores = where(result.scores, result.scores.part == "head")
    for data, own in scores.groupby("data", sort=False):
        tables = {name: HeadMeans.of(where(own, own.measure == name)) for name in ("direct", "total")}
        if data in rankings:
            tables["ar"] = HeadMeans.of(rankings[str(data)].scores)
        groups = sorted(set.intersection(*(set(one.groups) for one in tables.values())))
        weights = np.vstack(
            [np.ones(len(groups)), draws(len(groups), N_DRAWS, np.random.default_rng(result.seed))]
        )
        means = {name: one.mean(_placed(weights, groups, one.groups)) for name, one in tables.items()}
        for first, second in combinations(means, 2):
            rho = _spearman(means[first], means[second])
            low, high = np.nanquantile(rho[1:], [0.025, 0.975]) if len(groups) > 1 else (np.nan, np.nan)
            place = {"data": data, "first": first, "second": second, "rho": rho[0], "low": low, "high": high}
            rows.append({**place, "n_groups": len(groups), "note": population_note(len(groups))})
    return pd.DataFrame(rows)


def _spearman(
    a: Float[np.ndarray, "draw pair"], b: Float[np.ndarray, "draw pair"]
) -> Float[np.ndarray, " draw"]:
    """Spearman's correlation of each draw, over heads defined in every draw; NaN where all heads tie."""
    both = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    x, y = (rankdata(each[:, both], axis=1) for each in (a, b))
    x, y = (each - each.mean(axis=1, keepdims=True) for each in (x, y))
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), size, out=np.full(len(size), np.nan), where=size > 0)


def _placed(weights: np.ndarray, groups: list[str], own: tuple[str, ...]) -> Float[np.ndarray, "draw group"]:
    """The weights in the order of `own`, which may have more groups; those get weight 0."""
    found = np.zeros((len(weights), len(own)))
    found[:, [own.index(group) for group in groups]] = weights
    return found


def figures(result: GridResult, rankings: Mapping[str, HeadResult] | None = None) -> Figures:
    """ "heads": effects and attention ratio by head; "parts": effects by layer; "scatter": one against another.

    Args:
        result: Of a `HeadAttribution`, or of a grid over one with the axis "data".
        rankings: Label of a data set → a head ranking by "ar" of the same samples; data sets may be missing.
    """
    heads, summary = head_table(result, rankings or {}), result.summary()
    parts = where(summary, summary.part != "head")
    return {"heads": head_maps(heads), "parts": part_bars(parts), "scatter": head_scatter(heads)}


def write_page(
    result: GridResult, path: str | Path, *, rankings: Mapping[str, HeadResult] | None = None
) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `HeadAttribution`, or of a grid over one with the axis "data".
        path: The HTML file.
        rankings: Label of a data set → a head ranking by "ar" of the same samples; data sets may be missing.
    """
    ranked = rankings or {}
    found = agreements(result, ranked)
    correlations: dict[str, Any] = {
        "data": "data",
        "between": lambda row: " and ".join(
            COLUMNS[row[one]].partition(",")[0] for one in ("first", "second")
        ),
        "Spearman's ρ [95 %]": said,
        "groups": "n_groups",
    }
    agreement = card(table(list(correlations), rows(found, correlations)))
    body = [
        join(figure_cards(["heads"]), paragraph(HOW, kind="soft wide")),
        section("By layer", figure_cards(["parts"]), intro=PARTS),
        section("Do they agree?", agreement, figure_cards(["scatter"]), intro=CORRELATION),
        section("Where direct and total differ", _heads(result, head_table(result, ranked)), intro=TABLE),
        section("Failures", paragraph(failure_line(result), kind="wide")),
        origins(result, _origin),
    ]
    study = result.cells[0].study
    return save_page(
        path,
        title=study.title,
        question=study.question,
        lead=lead(result, LEAD, error=float(result.samples.completeness_error.max())),
        body=body,
        figures=figures(result, ranked),
    )


def said(row: Mapping[str, Any]) -> str:
    """A correlation with its interval, or a note that there are too few groups for one."""
    ends = "(too few groups)" if row["note"] else interval(row["low"], row["high"])
    return f"{number(row['rho'])} {ends}"


def _heads(result: GridResult, heads: pd.DataFrame) -> Markup:
    """The heads of each data set whose effects differ most."""
    n_groups = result.summary().groupby("data").n_groups.max()

    def effect(name: str) -> Any:
        of = (name, f"{name}_low", f"{name}_high")
        return lambda row: None if np.isnan(row.get(name, np.nan)) else estimate(row, of=of)

    columns: dict[str, Any] = {"data": "data", "layer, head": lambda row: f"{row['layer']}, {row['head']}"}
    columns |= {caption: effect(name) for name, caption in COLUMNS.items()}
    lines = []
    for _, own in heads.assign(n_groups=heads.data.map(n_groups)).groupby("data", sort=False):
        order = (own.total - own.direct).abs().sort_values(ascending=False).index[:N_SHOWN]
        lines += rows(own.loc[order], columns)
    return card(table(list(columns), lines))


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    settings = f"{study.target}, {study.seed}, {study.batch}"
    return origin(cell.folder, [("prompt", as_json(study.prompt)), ("target, seed, batch", settings)])


COLUMNS = {"direct": "direct effect, logits", "total": "total effect, logits", "ar": "attention ratio"}
"""Column of the table of heads → its caption with the unit."""
DIRECTIONS = {
    "direct": "higher: for the answer →",
    "total": "higher: for the answer ↑",
    "ar": "higher: inside the boxes ↑",
}
"""Column → which way its axis points."""
PART_COLOURS = {"attention": SERIES[0], "mlp": SERIES[1], "embedding": SERIES[2]}


def head_maps(heads: pd.DataFrame) -> go.Figure:
    """Panels per data set: direct and total effect on one scale symmetric around 0, and the attention ratio.

    Args:
        heads: Columns data, layer, head, and for each of `COLUMNS` the mean and the interval's ends `_low` and `_high`.
    """
    sets, columns = list(dict.fromkeys(heads.data)), _measured(heads)
    titles = [f"{data}: {COLUMNS[name]}" for data in sets for name in columns]
    spacing = {"horizontal_spacing": 0.05, "vertical_spacing": 0.5 / (len(sets) + 1)}
    figure = panels(titles, rows=len(sets), columns=len(columns), **spacing)
    hover = ": %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
    for row, data in enumerate(sets, start=1):
        own = where(heads, heads.data == data)
        for column, name in enumerate(columns, start=1):
            axis, more = "coloraxis2" if name == "ar" else "coloraxis", (f"{name}_low", f"{name}_high")
            cells = heat(own, name, more=more, hover=hover, axis=axis)
            figure.add_trace(cells, row=row, col=column)
    most = float(heads[["direct", "total"]].abs().to_numpy().max())
    effects = colour_bar("effect, logits,<br>above 0: for the answer", x=1.02, y=0.75, len=0.5)
    ratio = colour_bar("attention ratio (AR),<br>higher is better", x=1.02, y=0.25, len=0.5)
    figure.update_xaxes(title_text="layer", **ticks_at(heads.layer, 8))
    figure.update_yaxes(showgrid=False, **ticks_at(heads["head"], 8))
    figure.update_yaxes(title_text="head", col=1)
    return laid_out(
        figure,
        130 + 280 * len(sets),
        columns=len(columns),
        coloraxis={"colorscale": DIVERGING, "cmin": -most, "cmax": most, "colorbar": effects},
        coloraxis2={"colorscale": SEQUENTIAL, "colorbar": ratio},
        margin={"r": 120},
    )


def _measured(heads: pd.DataFrame) -> list[str]:
    """The columns that hold anything."""
    return [name for name in COLUMNS if name in heads and not np.isnan(heads[name].to_numpy(float)).all()]


def head_scatter(heads: pd.DataFrame) -> go.Figure:
    """Each head's total effect, and its attention ratio, against its direct effect; coloured by layer."""
    sets = list(dict.fromkeys(heads.data))
    rows = [name for name in _measured(heads) if name != "direct"]
    figure = panels(sets, rows=len(rows), columns=len(sets), shared_xaxes=True, vertical_spacing=0.06)
    for column, data in enumerate(sets, start=1):
        own = where(heads, heads.data == data)
        for row, name in enumerate(rows, start=1):
            figure.add_trace(_dots(own, name), row=row, col=column)
        ends = [float(own.direct.min()), float(own.direct.max())]
        line = {"color": GREY, "dash": "dot", "width": 1}
        figure.add_trace(
            go.Scatter(x=ends, y=ends, mode="lines", line=line, showlegend=False), row=1, col=column
        )
        figure.update_xaxes(
            title_text=f"{COLUMNS['direct']},<br>{DIRECTIONS['direct']}", row=len(rows), col=column
        )
    for row, name in enumerate(rows, start=1):
        figure.update_yaxes(
            title_text=f"{COLUMNS[name]},<br>{DIRECTIONS[name]}", title_font_size=12, row=row, col=1
        )
    scale = {"colorscale": SEQUENTIAL, "colorbar": colour_bar("layer", **ticks_at(heads.layer, 8))}
    return laid_out(figure, 90 + 270 * len(rows), columns=len(sets), coloraxis=scale)


def _dots(heads: pd.DataFrame, name: str) -> go.Scatter:
    edge = {"width": 0.5, "color": GREY}
    return go.Scatter(
        x=heads.direct,
        y=heads[name],
        customdata=heads[["layer", "head"]],
        mode="markers",
        marker={"size": 9, "color": heads.layer, "coloraxis": "coloraxis", "line": edge},
        showlegend=False,
        hovertemplate="layer %{customdata[0]}, head %{customdata[1]}<br>%{x:.3f}, %{y:.3f}<extra></extra>",
    )


def part_bars(parts: pd.DataFrame) -> go.Figure:
    """What the heads and the MLP of each layer and the embedding (layer −1) add to the logit, with intervals.

    Args:
        parts: Columns data, part, layer, mean, low, high, n_groups; with too few groups no interval is drawn.
    """
    sets = list(dict.fromkeys(parts.data))
    figure = panels(sets, shared_yaxes=True)
    for column, data in enumerate(sets, start=1):
        for part, colour in PART_COLOURS.items():
            own = where(parts, (parts.data == data) & (parts.part == part))
            bars: dict[str, Any] = {"error_y": {**interval_arms(own), "thickness": 1}, "marker_color": colour}
            named: dict[str, Any] = {
                "name": "MLP" if part == "mlp" else part,
                "legendgroup": part,
                "showlegend": column == 1,
            }
            figure.add_trace(go.Bar(x=own.layer, y=own["mean"], **bars, **named), row=1, col=column)
    figure.update_xaxes(title_text="layer (−1: input)", **ticks_at(parts.layer, 10))
    figure.update_yaxes(title_text="part of the answer, logits,<br>above 0: for the answer ↑", col=1)
    return laid_out(figure, 360, columns=len(sets), barmode="group", margin={"b": 90})
