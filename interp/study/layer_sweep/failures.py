"""The page of samples where the look and the answer disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.errors import StudyError
from interp.report.gallery import RAMP, portrait
from interp.report.html import (
    capital,
    card,
    cards,
    figure_card,
    number,
    opening,
    safe,
    stacked,
    table,
    tag,
    write_sheet,
)
from interp.stats import MIN_GROUPS, bootstrap, bootstrap_statistic, population_note
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.figures import FONT, GREY

if TYPE_CHECKING:
    from interp.stats import Interval
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["OUTCOMES", "counts", "outcome_figure", "relations", "thresholds", "verdicts", "write_failures"]

OUTCOMES = {
    (True, True): "looked, right",
    (True, False): "looked, wrong",
    (False, True): "looked elsewhere, right",
    (False, False): "looked elsewhere, wrong",
}
"""(looked, correct) → name."""

Key = tuple[str, str]
KEY: tuple[str, ...] = ("model", "data")


def thresholds(validation: Result, choice: LayerChoice, share: float = 0.95) -> dict[Key, float]:
    """(model, data) → the AR above which a sample counts as “looked”.

    It is the `share` quantile of the AR that the same maps have on *other samples'* boxes, at the chosen layer:
    what looking somewhere gives by luck, for these images and boxes of this size. No answer takes part in it.

    Args:
        validation: Samples to choose on, which are not reported.
        choice: The layer.
        share: Of luck that the threshold leaves below it.

    Raises:
        StudyError: A data set without a pair of samples to swap boxes.
    """
    scores = _at(validation, choice)
    scores = where(scores, scores.control == "shuffled_boxes")
    found = {}
    for cell in validation.cells:
        key = (cell.labels["model"], cell.labels["data"])
        values = rows_of(scores, dict(zip(KEY, key, strict=True))).value.dropna()
        if values.empty:
            raise StudyError(
                f"no threshold for {' · '.join(key)}: expected validation samples that can borrow each other's "
                "boxes, got none. Give it more validation samples."
            )
        found[key] = float(np.quantile(values, share))
    return found


def verdicts(result: Result, choice: LayerChoice, limits: Mapping[Key, float]) -> pd.DataFrame:
    """One row per sample: model, data, index, sample, group, predicted, answer, ar, looked, correct, outcome.

    Left out are samples whose AR is undefined or whose answer is not known: `len(result.samples)` less these
    rows. `looked`: AR above the limit of its (model, data).
    """
    scores = _at(result, choice)
    own = where(scores, scores.control == "boxes").assign(ar=lambda rows: rows.value)
    columns = ["model", "data", "index", "sample", "group", "answer", "predicted", "correct"]
    frame = result.samples[columns].merge(own[[*KEY, "sample", "ar"]], on=[*KEY, "sample"])
    frame = frame.dropna(subset=["ar", "correct"]).reset_index(drop=True)
    limit = pd.Series([limits[key] for key in zip(frame.model, frame.data, strict=True)], dtype=float)
    frame = frame.assign(looked=frame.ar > limit, correct=frame.correct.astype(bool))
    names = [OUTCOMES[bool(a), bool(b)] for a, b in zip(frame.looked, frame.correct, strict=True)]
    return frame.assign(outcome=names)


def counts(found: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per (model, data, outcome): n, share with its interval over groups, and the share to expect.

    Returns:
        Columns model, data, outcome, n, share, low, high, n_groups, note; where no or every sample has the
        outcome, the ends are Clopper and Pearson's 95 % for none or all of the groups, since a bootstrap then sees
        no variation. `expected`, the share if looking and
        being right had nothing to do with each other: the product of the two margins.
    """
    rows = []
    for labels, part in _parts(found):
        for (looked, correct), name in OUTCOMES.items():
            here = (part.outcome == name).astype(float)
            interval = _bounded(bootstrap(here.to_numpy(), part.group, seed=seed))
            expected = float((part.looked == looked).mean() * (part.correct == correct).mean())
            rows.append(
                {
                    **labels,
                    "outcome": name,
                    "n": int(here.sum()),
                    "share": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "expected": expected,
                    "n_groups": interval.n_groups,
                    "note": population_note(interval.n_groups),
                }
            )
    return pd.DataFrame(rows)


def _bounded(interval: Interval) -> Interval:
    """The interval; one without width at 0 or 1 gets an end from the number of groups."""
    if interval.mean not in (0.0, 1.0) or not interval.n_groups:
        return interval
    room = 1 - 0.025 ** (1 / interval.n_groups)
    return replace(interval, low=max(0.0, interval.mean - room), high=min(1.0, interval.mean + room))


def relations(found: pd.DataFrame, *, seed: int = 0) -> dict[Key, dict[str, Interval]]:
    """(model, data) → how looking and being right go together, with intervals over groups.

    "difference": the share of right answers among those that looked less that among those that looked elsewhere.
    "auroc": the chance that AR is higher for a right answer than for a wrong one (ties count half); 0.5 is none.
    Both are NaN where one side is empty or every answer is right, or wrong.
    """
    found_by: dict[Key, dict[str, Interval]] = {}
    for labels, part in _parts(found):
        looked, right = part.looked.to_numpy(float), part.correct.to_numpy(float)
        found_by[labels["model"], labels["data"]] = {
            "difference": bootstrap_statistic(_difference, [looked, right], part.group, seed=seed),
            "auroc": bootstrap_statistic(_auroc, [part.ar.to_numpy(float), right], part.group, seed=seed),
        }
    return found_by


def _parts(found: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Labels and rows of each (model, data)."""
    names = dict.fromkeys(zip(found.model, found.data, strict=True))
    return [
        (labels, rows_of(found, labels)) for labels in (dict(zip(KEY, key, strict=True)) for key in names)
    ]


def _difference(looked: np.ndarray, right: np.ndarray) -> float:
    sides = right[looked == 1], right[looked == 0]
    varies = all(map(len, sides)) and right.min() < right.max()
    return float(sides[0].mean() - sides[1].mean()) if varies else np.nan


def _auroc(ar: np.ndarray, right: np.ndarray) -> float:
    n_right = int(right.sum())
    if n_right in (0, len(right)):
        return np.nan
    ranks = pd.Series(ar).rank().to_numpy()  # mid-ranks, so that ties count half
    return float((ranks[right == 1].sum() - n_right * (n_right + 1) / 2) / (n_right * (len(right) - n_right)))


def _at(result: Result, choice: LayerChoice) -> pd.DataFrame:
    """The AR of every sample at its model's chosen layer."""
    scores = where(result.scores, result.scores.metric == "ar")
    return where(scores, scores.layer == scores.model.map(dict(choice.layers)))


N_SHOWN = 4
COLOURS = dict(zip(OUTCOMES.values(), ("#10b981", "#f97316", "#3b82f6", "#8a909c"), strict=True))
DISAGREE = ("looked, wrong", "looked elsewhere, right")
LEAD = """{n} samples ({data}) that <b>{models}</b> answered: where it looked at the object and was wrong all the
same, and where it was right without looking."""
HOW = """A sample “looked” when the attention ratio (AR) of its map is above a threshold: the 95 % quantile of the AR
that validation samples' maps have on other samples' boxes, which is what a look anywhere gives by luck on these
images, {limits}. No answer takes part in it. {choice} A right answer is a right first token. “Expected” is the
share if looking and being right were independent."""
CARE = """Attention from the last token at one layer is one way to look; a model that “looked elsewhere” here may have
read the object at another layer or through another token. And with two possible answers half of all guesses are
right. So these counts are a list of cases to open, not proof of a cause: for that, hide the box and see whether the
answer changes."""


def outcome_figure(found: pd.DataFrame, limits: Mapping[tuple[str, str], float], seed: int = 0) -> go.Figure:
    """Every sample's AR by whether its answer was right, a panel per model and data set, with the threshold."""
    keys = list(limits)
    many = len({model for model, _ in keys}) > 1
    titles = [safe(" · ".join(key) if many else key[1]) for key in keys]
    figure = make_subplots(
        rows=1, cols=len(keys), subplot_titles=titles, horizontal_spacing=0.06, shared_yaxes=True
    )
    rng = np.random.default_rng(seed)
    for column, (key, limit) in enumerate(limits.items(), start=1):
        part = rows_of(found, {"model": key[0], "data": key[1]})
        for name, colour in COLOURS.items():
            rows = where(part, part.outcome == name)
            nothing = [None] if rows.empty else None  # so that the legend names every outcome
            figure.add_trace(
                go.Scatter(
                    x=nothing or rows.ar,
                    y=nothing or rows.correct.astype(float) + rng.uniform(-0.3, 0.3, len(rows)),
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=column == 1,
                    marker={"size": 7, "color": colour, "opacity": 0.75},
                    customdata=rows["sample"],
                    hovertemplate="%{customdata}<br>AR %{x:.2f}",
                ),
                row=1,
                col=column,
            )
        note = {"text": f"threshold {limit:.2f}", "font": {"size": 11, "color": GREY}}
        place: dict[str, Any] = {"row": 1, "col": column, "annotation_position": "top right"}
        figure.add_vline(x=limit, line={"color": GREY, "width": 1.5, "dash": "dot"}, annotation=note, **place)
    return _laid_out(figure)


def _laid_out(figure: go.Figure) -> go.Figure:
    figure.update_xaxes(title={"text": "attention ratio", "standoff": 6}, rangemode="tozero", zeroline=False)
    figure.update_yaxes(tickvals=[0, 1], ticktext=["wrong", "right"], range=[-0.5, 1.5], zeroline=False)
    figure.update_layout(
        template="plotly_white",
        height=380,
        margin={"l": 60, "r": 16, "t": 56, "b": 96},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13},
        legend={"orientation": "h", "y": -0.25, "x": 0},
    )
    return figure


def write_failures(
    result: Result,
    choice: LayerChoice,
    limits: Mapping[tuple[str, str], float],
    found: pd.DataFrame,
    path: Path,
) -> Path:
    """Writes the page: counts, a figure, and cases drawn with the result's seed.

    Args:
        result: The samples reported.
        choice: The layer, chosen on others.
        limits: From `thresholds`, on others.
        found: From `verdicts`.
        path: The HTML file.
    """
    names = {
        what: ", ".join(dict.fromkeys(c.labels[what] for c in result.cells)) for what in ("data", "model")
    }
    lead = opening(LEAD.format(n=len(found), data=safe(names["data"]), models=safe(names["model"])), result)
    said = "; ".join(f"{number(limit)} for {data}" for (_, data), limit in limits.items())
    how = HOW.format(limits=safe(said), choice=safe(capital(choice.sentence(result))))
    lost = len(result.samples) - len(found)
    left_out = f" {lost} samples are left out: no known answer, or no defined AR." if lost else ""
    body = [
        tag("h2", "How often"),
        tag("p", how + left_out, kind="soft wide"),
        stacked([figure_card("outcomes"), *_tables(found, result.seed)]),
        tag("p", CARE, kind="wide"),
        tag(
            "p",
            f"Maps: low {RAMP} high, each by itself. Cases are drawn with seed {result.seed}.",
            kind="soft",
        ),
    ]
    for outcome in DISAGREE:
        body.append(tag("h2", safe(capital(outcome))))
        for cell in result.cells:
            body += _cases(cell, where(found, found.outcome == outcome), choice, result.seed)
    return write_sheet(
        path,
        title="Looking and answering",
        question="When the model fails, had it looked?",
        lead=lead,
        body=body,
        figures={"outcomes": outcome_figure(found, limits)},
    )


def _tables(found: pd.DataFrame, seed: int) -> list[str]:
    """A card per model and data set."""
    shares, related, parts = counts(found, seed=seed), relations(found, seed=seed), []
    for model, data in dict.fromkeys(zip(shares.model, shares.data, strict=True)):
        part = rows_of(shares, {"model": model, "data": data})
        rows = [
            (row["outcome"], str(row["n"]), _share(row), f"{100 * row['expected']:.0f} %")
            for row in records(part)
        ]
        note = str(part["note"].iloc[0])
        together = _together(related[model, data], few=bool(note))
        parts.append(
            card(
                tag("h3", safe(f"{model} · {data}")),
                table(("outcome", "samples", "share", "expected"), rows),
                tag("p", safe(together), kind="soft"),
                tag("p", safe(f"{note} {_per_group(found, model, data)}"), kind="note") if note else "",
            )
        )
    return parts


def _share(row: Mapping[Any, Any]) -> str:
    ends = "" if row["n_groups"] < MIN_GROUPS else f" [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    return f"{100 * row['share']:.0f}{ends} %"


def _together(related: Mapping[str, Interval], *, few: bool) -> str:
    def said(interval: Interval, scale: float, digits: int) -> str:
        ends = f" [{number(scale * interval.low, digits)}, {number(scale * interval.high, digits)}]"
        return number(scale * interval.mean, digits) + ("" if few or np.isnan(interval.low) else ends)

    if np.isnan(related["difference"].mean) and np.isnan(related["auroc"].mean):
        return "Whether looking goes with being right cannot be said: one of the two never varies here."
    return (
        f"Right among those that looked, less right among the others: {said(related['difference'], 100, 0)} percentage "
        f"points. AUROC of AR for a right answer: {said(related['auroc'], 1, 2)} (0.5 is none)."
    )


def _per_group(found: pd.DataFrame, model: str, data: str) -> str:
    """Counts of each group in the order of `OUTCOMES`."""
    part = rows_of(found, {"model": model, "data": data})
    said = []
    for group, rows in part.groupby("group", sort=False):
        numbers = [str(int((rows.outcome == name).sum())) for name in OUTCOMES.values()]
        said.append(f"{group} {' / '.join(numbers)}")
    return f"Counts per group, in the table's order: {'; '.join(said)}."


def _cases(cell: Cell, found: pd.DataFrame, choice: LayerChoice, seed: int) -> list[str]:
    own = rows_of(found, cell.labels)
    head = tag("h4", safe(" · ".join(cell.key)), f" · {len(own)} samples")
    if own.empty:
        return [head, tag("p", "None.", kind="soft")]
    layer = choice.layers[cell.labels["model"]]
    drawn = own.sample(min(N_SHOWN, len(own)), random_state=seed).sort_values("index")
    views = [(f"map, layer {layer}", cell, layer)]
    shown = (portrait(views, int(row["index"]), f"AR {number(row['ar'])}") for row in records(drawn))
    return [head, cards(shown, "tight")]
