"""Samples where attention and answer disagree: outcomes, counts, and their page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.errors import StudyError
from interp.report.figures import GREY, SERIES, Figures, laid_out, panels, plain, reference_line
from interp.report.gallery import ramp
from interp.report.html import (
    capital,
    card,
    figure_card,
    grid,
    heading,
    join,
    paragraph,
    save_page,
    section,
    table,
)
from interp.report.tables import count, estimate, number, percent, rows
from interp.stats import bootstrap, bootstrap_statistic, population_note
from interp.study.dataframes import records, rows_of, where
from interp.study.layer_sweep.page import map_card, sweep_opening

if TYPE_CHECKING:
    from interp.stats import Interval
    from interp.study.layer_choice import LayerChoice
    from interp.study.layer_sweep.result import Cell, Result

__all__ = ["OUTCOMES", "counts", "figures", "relations", "thresholds", "verdicts", "write_page"]

OUTCOMES = {
    (True, True): "looked, right",
    (True, False): "looked, wrong",
    (False, True): "looked elsewhere, right",
    (False, False): "looked elsewhere, wrong",
}
"""(looked, correct) → name."""

Key = tuple[str, str]
KEY: tuple[str, ...] = ("model", "data")

N_SHOWN = 4
COLOURS = dict(zip(OUTCOMES.values(), (SERIES[2], SERIES[1], SERIES[0], GREY), strict=True))
DISAGREE = ("looked, wrong", "looked elsewhere, right")
LEAD = Markup("""{samples} ({data}), answered by <b>{models}</b>: in which did a model attend to the object and answer
wrong, and in which did it answer right without attending to the object?""")
HOW = """A sample “looked” when the attention ratio (AR) of its map is above a threshold. The threshold is the 95 %
quantile of the AR that the maps of {chosen_on} have on other samples' boxes: what attention reaches by chance
on these images. It is {limits}. It does not depend on the answers. {choice}
An answer is right when its first token is right.
“Expected” is the share if looking and being right were independent. Dots are spread up and down within “right” and
“wrong”, so that none hides another."""
CARE = """Attention from the last token at one layer is one way to look: a model that “looked elsewhere” here may have
read the object at another layer or through another token. With two possible answers, half of all guesses are right.
So these counts are a list of cases to open, not proof of a cause: to test a cause, hide the box and see whether the
answer changes."""


def thresholds(validation: Result, choice: LayerChoice, share: float = 0.95) -> dict[Key, float]:
    """(model, data) → the AR above which a sample counts as “looked”.

    It is the `share` quantile of the AR that the same maps have on *other samples'* boxes at the chosen layer: the AR
    that is reached by chance, for these images and boxes of this size. Answers play no part.

    Args:
        validation: Samples to choose on, which are not reported.
        choice: The layer.
        share: The quantile.

    Raises:
        StudyError: A data set without two samples that can swap boxes.
    """
    scores = _at(validation, choice)
    scores = where(scores, scores.control == "shuffled_boxes")
    found = {}
    for cell in validation.cells:
        key = (cell.labels["model"], cell.labels["data"])
        values = rows_of(scores, dict(zip(KEY, key, strict=True))).value.dropna()
        if values.empty:
            raise StudyError(
                f"no threshold for {' · '.join(key)}: expected validation samples whose maps can be scored against "
                "each other's boxes, got none. Give more validation samples."
            )
        found[key] = float(np.quantile(values, share))
    return found


def verdicts(result: Result, choice: LayerChoice, limits: Mapping[Key, float]) -> pd.DataFrame:
    """One row per sample: model, data, index, sample, group, predicted, answer, ar, looked, correct, outcome.

    Samples whose AR is undefined or whose answer is unknown are left out: `len(result.samples)` minus the number of
    rows. `looked`: AR above the limit of its (model, data).
    """
    scores = _at(result, choice)
    own = where(scores, scores.control == "boxes").assign(ar=lambda rows: rows.value)
    columns = ["model", "data", "index", "sample", "group", "answer", "predicted", "correct"]
    frame = result.samples[columns].merge(own[[*KEY, "index", "ar"]], on=[*KEY, "index"])  # ids may repeat
    frame = frame.dropna(subset=["ar", "correct"]).reset_index(drop=True)
    limit = pd.Series([limits[key] for key in zip(frame.model, frame.data, strict=True)], dtype=float)
    frame = frame.assign(looked=frame.ar > limit, correct=frame.correct.astype(bool))
    names = [OUTCOMES[bool(a), bool(b)] for a, b in zip(frame.looked, frame.correct, strict=True)]
    return frame.assign(outcome=names)


def counts(found: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per (model, data, outcome): n, share with its interval over groups, and the share to expect.

    Returns:
        Columns model, data, outcome, n, share, low, high, n_groups, note. Where no sample or every sample has the
        outcome, the ends are Clopper and Pearson's 95 % for none or all of the groups, since a bootstrap then sees
        no variation. `expected` is the share if looking and being right were independent: the product of the two
        margins.
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
    """The interval; one of zero width at 0 or 1 gets an end from the number of groups."""
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
    scores = where(result.values, result.values.metric == "ar")
    return where(scores, scores.layer == scores.model.map(dict(choice.layers)))


def figures(found: pd.DataFrame, limits: Mapping[Key, float], seed: int = 0) -> Figures:
    """ "outcomes": each sample's AR by whether its answer is right, one panel per model and data set."""
    many = len({model for model, _ in limits}) > 1
    titles = [" · ".join(key) if many else key[1] for key in limits]
    figure = panels(titles, horizontal_spacing=0.06, shared_yaxes=True)
    rng = np.random.default_rng(seed)
    for column, (key, limit) in enumerate(limits.items(), start=1):
        part = rows_of(found, dict(zip(KEY, key, strict=True)))
        for name in COLOURS:
            own = where(part, part.outcome == name)
            figure.add_trace(_dots(own, name, rng, legend=column == 1), row=1, col=column)
        reference_line(figure, x=limit, text=f"threshold {limit:.2f}", at="top right", row=1, col=column)
    figure.update_xaxes(title_text="attention ratio, higher is more on the object →", rangemode="tozero")
    figure.update_yaxes(tickvals=[0, 1], ticktext=["wrong", "right"], range=[-0.5, 1.5])
    figure.update_yaxes(title_text="answer", col=1)
    return {"outcomes": laid_out(figure, 380, columns=len(limits), margin={"b": 96})}


def _dots(own: pd.DataFrame, name: str, rng: np.random.Generator, *, legend: bool) -> go.Scatter:
    """A dot per sample, spread around 0 (wrong) or 1 (right)."""
    nothing = [None] if own.empty else None  # so that the legend names every outcome
    return go.Scatter(
        x=nothing or own.ar,
        y=nothing or own.correct.astype(float) + rng.uniform(-0.3, 0.3, len(own)),
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=legend,
        marker={"size": 7, "color": COLOURS[name], "opacity": 0.75},
        customdata=own["sample"].map(plain),
        hovertemplate="%{customdata}<br>AR %{x:.2f}",
    )


def write_page(
    result: Result, path: str | Path, *, choice: LayerChoice, limits: Mapping[Key, float], found: pd.DataFrame
) -> Path:
    """Writes the page: counts, a figure, and cases drawn with the result's seed.

    Args:
        result: The samples reported.
        path: The HTML file.
        choice: The layer, chosen on other samples.
        limits: (model, data) → limit, from `thresholds` on other samples.
        found: From `verdicts`.
    """
    said = "; ".join(f"{number(limit)} for {data}" for (_, data), limit in limits.items())
    chosen_on = f"{choice.split or 'other'} samples"
    how = HOW.format(limits=said, choice=capital(choice.sentence(result)), chosen_on=chosen_on)
    lost = len(result.samples) - len(found)
    how += f" Left out: {count(lost, 'sample')} without a known answer or a defined AR." if lost else ""
    cases = join("Maps: ", ramp(), f", each by itself. Cases are drawn with seed {result.seed}.")
    body = [
        section(
            "How often", grid([figure_card("outcomes"), *_counts(found, result.seed)], "stacked"), intro=how
        ),
        paragraph(CARE, kind="wide"),
        paragraph(cases, kind="soft"),
    ]
    for outcome in DISAGREE:
        own = where(found, found.outcome == outcome)
        body.append(
            section(capital(outcome), *(_cases(cell, own, choice, result.seed) for cell in result.cells))
        )
    return save_page(
        path,
        title="Attention and answers",
        question="When the model fails, had it looked?",
        lead=sweep_opening(LEAD, result, n=len(found)),
        body=body,
        figures=figures(found, limits),
    )


def _counts(found: pd.DataFrame, seed: int) -> list[Markup]:
    """A card per model and data set."""
    shares, related, parts = counts(found, seed=seed), relations(found, seed=seed), []
    columns: dict[str, Any] = {
        "outcome": "outcome",
        "samples": "n",
        "share [95 %]": lambda row: estimate(row, of=("share", "low", "high"), scale=100, digits=0) + " %",
        "expected": lambda row: percent(row["expected"]),
    }
    for labels, part in _parts(shares):
        key, note = tuple(labels.values()), str(part["note"].iloc[0])
        groups = f"{note} {_per_group(rows_of(found, labels))}"
        parts.append(
            card(
                table(list(columns), rows(part, columns)),
                paragraph(_together(related[key[0], key[1]]), kind="soft"),
                paragraph(groups, kind="note") if note else "",
                title=" · ".join(key),
            )
        )
    return parts


def _together(related: Mapping[str, Interval]) -> str:
    difference, auroc = related["difference"], related["auroc"]
    if np.isnan(difference.mean) and np.isnan(auroc.mean):
        return "Whether looking goes with being right cannot be said: one of the two does not vary here."
    gap = estimate(vars(difference), scale=100, digits=0)
    return (
        f"Share of right answers among samples that looked, minus the share among the others: {gap} percentage points. "
        f"AUROC of AR for a right answer: {estimate(vars(auroc))} (0.5: no relation)."
    )


def _per_group(part: pd.DataFrame) -> str:
    """Counts of each group in the order of `OUTCOMES`."""
    said = []
    for group, own in part.groupby("group", sort=False):
        numbers = [str(int((own.outcome == name).sum())) for name in OUTCOMES.values()]
        said.append(f"{group} {' / '.join(numbers)}")
    return f"Counts per group, in the table's order: {'; '.join(said)}."


def _cases(cell: Cell, found: pd.DataFrame, choice: LayerChoice, seed: int) -> Markup:
    own = rows_of(found, cell.labels)
    head = heading(f"{' · '.join(cell.key)} · {count(len(own), 'sample')}", level=3)
    if own.empty:
        return join(head, paragraph("None.", kind="soft"))
    layer = choice.layers[cell.labels["model"]]
    chosen = records(own.sample(min(N_SHOWN, len(own)), random_state=seed).sort_values("index"))
    view = [(f"map, layer {layer}", cell, layer)]
    cards = (map_card(view, int(row["index"]), score=f"AR {number(row['ar'])}") for row in chosen)
    return join(head, grid(cards, "tight"))
