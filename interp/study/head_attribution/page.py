"""The page of a head attribution: direct effects beside total effects and beside where the heads look."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata

from interp.report.html import figure_card, number, safe, stacked, table, tag, write_sheet
from interp.stats import MIN_GROUPS, population_note
from interp.study.dataframes import records, where
from interp.study.head_attribution.figures import COLUMNS, head_maps, head_scatter, part_bars
from interp.study.head_ranking.result import HeadMeans, draws
from interp.study.layer_sweep import page as prose
from interp.study.model_spec import is_organism

if TYPE_CHECKING:
    from interp.study.head_ranking.result import HeadResult
    from interp.study.result import GridResult

__all__ = ["agreements", "head_table", "said", "write_attribution"]

N_DRAWS, N_SHOWN = 1000, 8
LEAD = """What each part of <b>{model}</b> writes into the last prompt token's stream, projected on the answer's
first token: {n} samples ({data}). Logits above the vocabulary's mean logit, so that what every token shares does not
count. The parts add up to the model's own logit; the largest error of a sample was {error:.1g}."""
HOW = """Direct: from the head straight to the unembedding, the final norm's scale frozen. Total: how far the logit
falls when the head gives nothing at the last token, so that later layers miss it too. Below zero: the logit rises.
Attention ratio: the head's attention from the last token, relative to the generic prompt's, inside the boxes over
everywhere; an even map has 1."""
TABLE = """The heads whose total effect is furthest from their direct effect, described on these samples. A total above
the direct effect: later layers pass the head's message on. Below: they make up for its loss, or it had been in their
way."""
CORRELATION = """Spearman's rank correlation over all heads of the mean effects, with a 95 % bootstrap interval that
draws groups and ranks heads anew. Heads are not a sample of anything: the interval is about the samples."""


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

    Groups are drawn together for all that is compared; those that only one has are left out.
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
    """Per draw, over the heads that have both in every draw; NaN where all heads are alike."""
    both = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    x, y = (rankdata(each[:, both], axis=1) for each in (a, b))
    x, y = (each - each.mean(axis=1, keepdims=True) for each in (x, y))
    size = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.divide((x * y).sum(axis=1), size, out=np.full(len(size), np.nan), where=size > 0)


def _placed(weights: np.ndarray, groups: list[str], own: tuple[str, ...]) -> Float[np.ndarray, "draw group"]:
    """The groups' weights in the order of a table that may have more of them."""
    found = np.zeros((len(weights), len(own)))
    found[:, [own.index(group) for group in groups]] = weights
    return found


def write_attribution(result: GridResult, rankings: Mapping[str, HeadResult], path: Path) -> Path:
    """Writes the page.

    Args:
        result: Of a `HeadAttribution`, or of a grid over one with the axis "data".
        rankings: Label of the data → a head ranking by "ar" of the same samples; may lack some.
        path: The HTML file.
    """
    heads, summary = head_table(result, rankings), result.summary()
    parts = where(summary, summary.part != "head")
    body = [
        stacked([figure_card("heads")]),
        tag("p", HOW, kind="soft wide"),
        tag("h2", "By layer"),
        stacked([figure_card("parts")]),
        tag("h2", "Do they agree?"),
        tag("p", CORRELATION, kind="soft wide"),
        _agreements(agreements(result, rankings)),
        stacked([figure_card("scatter")]),
        tag("h2", "Where direct and total differ"),
        tag("p", TABLE, kind="soft wide"),
        _heads(heads, summary),
        tag("h2", "Failures"),
        tag("p", safe(_failures(result)), kind="wide"),
    ]
    study = result.cells[0].study
    figures = {"heads": head_maps(heads), "parts": part_bars(parts), "scatter": head_scatter(heads)}
    return write_sheet(
        path, title=study.title, question=study.question, lead=_lead(result), body=body, figures=figures
    )


def _lead(result: GridResult) -> str:
    cells = result.cells
    said = LEAD.format(
        model=safe(", ".join(dict.fromkeys(cell.labels["model"] for cell in cells))),
        n=len(result.samples),
        data=safe(", ".join(cell.labels["data"] for cell in cells)),
        error=float(result.samples.completeness_error.max()),
    )
    organism = any(is_organism(cell.study.model) for cell in cells)
    return tag("p", said, kind="lead") + (tag("p", prose.ORGANISM, kind="note wide") if organism else "")


def _agreements(found: pd.DataFrame) -> str:
    rows = [
        (row["data"], f"{COLUMNS[row['first']]} – {COLUMNS[row['second']]}", said(row), str(row["n_groups"]))
        for row in records(found)
    ]
    return table(("data", "between", "Spearman's ρ [95 %]", "groups"), rows)


def said(row: Mapping[str, Any]) -> str:
    """A correlation with its interval, or the reason why there is none."""
    ends = "(too few groups)" if row["note"] else f"[{number(row['low'])}, {number(row['high'])}]"
    return f"{number(row['rho'])} {ends}"


def _heads(heads: pd.DataFrame, summary: pd.DataFrame) -> str:
    few = {data for data, own in summary.groupby("data") if own.n_groups.max() < MIN_GROUPS}

    def cell(row: Mapping[str, Any], name: str) -> str:
        if name not in row or np.isnan(row[name]):
            return "–"
        ends = "" if row["data"] in few else f" [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"
        return number(row[name]) + ends

    rows = []
    for data, own in heads.groupby("data", sort=False):
        order = (own.total - own.direct).abs().sort_values(ascending=False).index[:N_SHOWN]
        rows += [
            (str(data), f"{row['layer']}, {row['head']}", *(cell(row, name) for name in COLUMNS))
            for row in records(own.loc[order])
        ]
    return table(("data", "layer, head", *COLUMNS.values()), rows)


def _failures(result: GridResult) -> str:
    found = result.failures
    if found.empty:
        return "None: every sample was measured."
    counts = ", ".join(f"{reason} ×{n}" for reason, n in found.reason.value_counts().head(5).items())
    return f"{len(found)} left out: {counts}"


def write_page(
    result: GridResult, path: str | Path, *, rankings: Mapping[str, HeadResult] | None = None
) -> Path:
    """Write the page and return its path."""
    return write_attribution(result, rankings or {}, Path(path))


def figures(result: GridResult, *, rankings: Mapping[str, HeadResult] | None = None) -> dict[str, Any]:
    """The page's figures by name."""
    heads, summary = head_table(result, rankings or {}), result.summary()
    parts = part_bars(where(summary, summary.part != "head"))
    return {"heads": head_maps(heads), "parts": parts, "scatter": head_scatter(heads)}
