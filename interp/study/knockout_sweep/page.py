"""The page of a knockout sweep: what was blocked, how the answer changed, how sure that is; and its figures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from interp.report.figures import (
    DIVERGING,
    Figures,
    colour_bar,
    curves,
    heat,
    laid_out,
    panels,
    plain,
    reference_line,
    series_colour,
    ticks_at,
)
from interp.report.html import (
    bold,
    card,
    details,
    figure_cards,
    grid,
    join,
    paragraph,
    save_page,
    section,
    table,
)  # fmt: skip
from interp.report.provenance import INTERVALS, as_json, failure_list, meanings, origin
from interp.report.tables import count, estimate, interval, p_value, rows, signed
from interp.study.dataframes import records, rows_of, where
from interp.study.knockout_sweep.flows import Flow, control_of
from interp.study.knockout_sweep.result import LEAST
from interp.study.page_parts import lead, origins

if TYPE_CHECKING:
    from interp.study.knockout_sweep.result import KnockoutResult
    from interp.study.runs import GridCell

__all__ = ["figures", "flow_figure", "head_map", "write_page"]


LEAD = Markup("""On {samples}, attention from some tokens (queries) to others (keys) was blocked {where}, one flow at a
time. The probability of {target} was compared with that of the unedited model on the same sample.""")
TARGETS = {
    "answer": "the first token of the sample's own answer",
    "greedy": "the first token of the unedited model's answer",
}
PLACES = {
    "layer window": "in a few neighbouring layers",
    "layer": "in one layer",
    "head": "in one head",
}
FIGURE = """Lines are means over samples. Bands are 95 % bootstrap intervals over groups; with too few groups for an
interval, each thin line is one group. Dashed: the same number of image tokens elsewhere, blocked instead of those in
the box. Windows at both ends are narrower, because the model's first and last layer cut them off."""
HEADS = """Each cell is one head, blocked alone: the mean relative change of the probability. Red: the answer becomes
less likely. The heads are many and were not tested; test the ones that stand out on other samples."""
STRONGEST = """For each flow, the layers where blocking it lowers the probability most; “nowhere” where no mean falls by
0.1 %. The layers were chosen on these same samples, so this only describes them; a maximum over windows looks larger
than it is."""
TESTS = """Difference of the log-probability (nats) on the same samples between the pass with the flow blocked and the
unedited pass. Flows from boxes are also compared with the pass in which the same number of tokens elsewhere is blocked.
p: sign flips of whole groups. Holm's p is adjusted over all rows of a model and data set. A small p says that a change
is not zero, not that it is large."""
NO_ANSWER = Markup("""The unedited model answers no sample correctly, so there is no probability to follow. Use
target="greedy".""")
TERMS = {
    "Relative change": """(p_after − p_before) / p_before × 100, per sample, then the mean. −100 % is a probability of
    0. Increases have no upper bound, so a few samples with a small p_before can raise a mean (Geva et al., arXiv
    2304.14767).""",
    "Accuracy": """The share of samples whose likeliest first token, over the whole vocabulary, begins the sample's
    answer: after blocking minus before, in percentage points, over all samples with an answer.""",
    "Samples that count": """With the sample's own answer as target, means of probabilities are over the samples that
    the unedited model answers correctly, because only there a flow can carry the answer.""",
    "Windows": """Centred on a layer; a window of even width has one layer more below than above. Layers outside the
    model are cut off.""",
    "Blocked": """The flow's queries do not attend to its keys in the window. Under “renormalise” the other keys share
    the blocked weight; under “zero” it is lost. Everything else runs as before, so another route can replace a flow: no
    change does not show that no information flows.""",
    "Question": """The question's own words, without template and instruction; “after_image” is everything after the
    last image token.""",
    "Elsewhere": "The same number of image tokens outside the boxes, drawn at random once per sample.",
    "Intervals": INTERVALS,
}


def write_page(result: KnockoutResult, path: str | Path) -> Path:
    """Writes the page and returns its path."""
    shown = figures(result)
    title, words = ("Head by head", HEADS) if result.by_head else ("Layer by layer", FIGURE)
    body = [
        section(title, figure_cards(shown), intro=words),
        _strongest(result),
        "" if result.by_head else _tests(result),
        section("What was blocked", grid((_blocked(result, cell) for cell in result.cells), "stacked")),
        _failures(result),
        meanings(TERMS),
        origins(result, partial(_origin, result)),
    ]
    study = result.study
    return save_page(
        path, title=study.title, question=study.question, lead=_lead(result), body=body, figures=shown
    )


def _lead(result: KnockoutResult) -> Markup:
    counts, studies = [], [cell.study for cell in result.cells]
    for cell in result.cells:
        counted, measured = result.n_counted(cell)
        right = cell.study.target == "answer" and counted < measured
        note = f" ({counted} of them answered correctly: probabilities are means over those)" if right else ""
        counts.append(join(f"{count(measured, 'sample')} of ", bold(" · ".join(cell.key)), note))
    return lead(
        result,
        LEAD,
        samples=Markup(" and ").join(counts),
        where=" or ".join(dict.fromkeys(PLACES[study.by] for study in studies)),
        target=" or ".join(dict.fromkeys(TARGETS[study.target] for study in studies)),
    )


def _strongest(result: KnockoutResult) -> Markup:
    columns: dict[str, Any] = {
        "flow": "flow",
        "layers": lambda row: _layers(row) if row["mean"] <= -LEAST else "nowhere",
        "head": "head",
        "probability, change in %": lambda row: estimate(row, digits=1, sign=True),
        "accuracy, change in points": "accuracy",
        "samples": "n",
    }
    if not result.by_head:
        del columns["head"]
    shown = []
    for cell in result.cells:
        found = [{**row, "accuracy": _accuracy(result, cell, row)} for row in result.strongest(cell)]
        if found:
            title = " · ".join(cell.key)
            shown.append(card(table(list(columns), rows(found, columns)), _few(result, cell), title=title))
    if not shown:
        return section("Where it matters most", paragraph(NO_ANSWER, kind="note wide"))
    return section("Where it matters most", grid(shown, "stacked"), intro=STRONGEST)


def _accuracy(result: KnockoutResult, cell: GridCell, row: dict[str, Any]) -> str | None:
    """The change of accuracy in the window or head of a row of `strongest`."""
    summary = rows_of(result.summary(), cell.labels)
    here = where(summary, (summary.flow == row["flow"]) & (summary.layer == row["layer"]))
    here = where(here, here.measure == "accuracy")
    if result.by_head:
        here = where(here, here["head"] == row["head"])
    return next((estimate(found, digits=1, sign=True) for found in records(here)), None)


def _layers(row: dict[str, Any]) -> str:
    return f"{row['first']}–{row['last']}" if row["first"] != row["last"] else str(row["first"])


def _few(result: KnockoutResult, cell: GridCell) -> Markup | str:
    notes = set(rows_of(result.summary(), cell.labels).note) - {""}
    return paragraph(sorted(notes)[0], kind="note") if notes else ""


def _tests(result: KnockoutResult) -> Markup:
    columns: dict[str, Any] = {
        "flow": "flow",
        "against": "against",
        "layers": _layers,
        "difference, nats": lambda row: signed(row["difference"], 3),
        "95 %": lambda row: None if row["note"] else interval(row["low"], row["high"], 3),
        "p": lambda row: p_value(row["p"]),
        "Holm's p": lambda row: p_value(row["p_holm"]),
    }
    found, parts = result.tests(), []
    for cell in result.cells:
        own = rows_of(found, cell.labels) if len(found) else found
        if len(own):
            shown = card(table(list(columns), rows(own, columns)))
            parts.append(details(f"{' · '.join(cell.key)}: {len(own)} tests", shown))
    return section("Tests", *parts, intro=TESTS)


def _blocked(result: KnockoutResult, cell: GridCell) -> Markup:
    """The number of tokens of each flow, because a flow with more keys and queries can lose more."""
    sizes, samples = cell.frame("sizes"), cell.frame("samples")
    lines = []
    for name, flow in result.flows(cell).items():
        own, ends = where(sizes, sizes.flow == name), flow.to_dict()
        keys, queries = (", ".join(map(str, ends[end])) for end in ("keys", "queries"))
        lines.append(
            (name, keys, f"{own.n_keys.mean():.1f}", queries, f"{own.n_queries.mean():.1f}", len(own))
        )
    heads = ("flow", "keys", "key tokens, mean", "queries", "query tokens, mean", "samples")
    words = (
        f"Prompts have {samples.n_prompt.mean():.0f} tokens on average, {samples.n_tokens.mean():.0f} of them "
        "image tokens."
    )
    return card(table(heads, lines), paragraph(words, kind="soft"), title=" · ".join(cell.key))


def _failures(result: KnockoutResult) -> Markup:
    found = result.failures
    if found.empty:
        return section("Failures", paragraph("None: every flow was blocked in every sample.", kind="soft"))
    flows = where(found, found.flow.notna()).drop_duplicates([*result.axes, "index", "flow"])
    counts = flows.flow.value_counts(sort=False).sort_index().to_dict()
    said = "; ".join(f"{name}: {count(n, 'sample')}" for name, n in counts.items()) or "none"
    words = f"Samples left out: {int(found.flow.isna().sum())}. "
    words += "Flows that could not be blocked, in some windows or all: "
    listed = details("The first of each kind", card(failure_list(found, ["sample", "flow"])))
    return section("Failures", paragraph(f"{words}{said}.", kind="wide"), listed)


def _origin(result: KnockoutResult, cell: GridCell) -> Markup:
    study, (ran, naive) = cell.study, result.work(cell)
    share = (
        f"{ran:,} token positions × layers; whole passes: {naive:,}, {naive / max(ran, 1):.1f} times as many"
    )
    more = [
        ("prompt", as_json(study.prompt)),
        ("by, mode, target", f"{study.by}, {study.mode}, {study.target}"),
        ("rule, seed, batch", f"{study.rule}, {study.seed}, {study.batch}"),
        ("work", share),
    ]
    return origin(cell.folder, more)


PANELS = {
    "relative": "probability of the answer,\nchange in %,\nlower: it matters more ↓",
    "accuracy": "accuracy,\nchange in points,\nlower: it matters more ↓",
}
BAR_TITLE = "probability of the answer,<br>change in %, lower: it matters more"


def figures(result: KnockoutResult) -> Figures:
    """ "flow": the lines of every cell, side by side; for by="head" instead "heads", "heads-2", …, one per cell."""
    if not result.by_head:
        return {"flow": flow_figure(result)}
    cells = [cell for cell in result.cells if result.flows(cell)]
    names = ["heads" if place == 1 else f"heads-{place}" for place in range(1, len(cells) + 1)]
    return {name: head_map(result, cell) for name, cell in zip(names, cells, strict=True)}


def flow_figure(result: KnockoutResult) -> go.Figure:
    """Mean relative change of the answer's probability (above), change of accuracy (below), by the window's centre.

    Each flow has one colour; its control, the same number of image tokens elsewhere, is dashed in that colour. A band
    is the 95 % bootstrap interval over groups; with fewer than 20 groups there is a thin line per group instead.
    """
    cells = [cell for cell in result.cells if result.flows(cell)]
    rows = [name for name in PANELS if (result.scores.measure == name).any()]
    titles = [" · ".join(cell.key) for cell in cells] if len(cells) > 1 else [""]
    shared: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.06}
    figure = panels(titles, rows=len(rows), columns=len(cells), horizontal_spacing=0.04, **shared)
    known: set[str] = set()
    for column, cell in enumerate(cells, start=1):
        for row, measure in enumerate(rows, start=1):
            for trace in _traces(result, cell, measure, known):
                figure.add_trace(trace, row=row, col=column)
            reference_line(figure, y=0, row=row, col=column)
    figure.update_xaxes(**ticks_at(result.passes.layer))
    figure.update_xaxes(title_text="layer at the centre of the blocked window", row=len(rows))
    for row, measure in enumerate(rows, start=1):
        figure.update_yaxes(title_text=plain(PANELS[measure]), title_font_size=12, row=row, col=1)
    return laid_out(
        figure, 180 + 270 * len(rows), columns=len(cells), hovermode="x unified", margin={"l": 84, "b": 110}
    )


def _traces(result: KnockoutResult, cell: GridCell, measure: str, known: set[str]) -> list[go.Scatter]:
    """The bands of the flows, then their lines; the legend names each flow once."""
    flows, colours = result.flows(cell), _colours(result)
    summary, scores = (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
    spread, lines = [], []
    for name in flows:
        own, of_samples = (
            where(frame, (frame.flow == name) & (frame.measure == measure)) for frame in (summary, scores)
        )
        dash, legend = "dash" if flows[name].is_control else "solid", name not in known
        found = curves(
            own.sort_values("layer"), of_samples, name, colours[name], dash=dash, legend=legend, digits=1
        )
        spread += found[:-1]
        lines += found[-1:]
        known |= {name} if found else set()
    return [*spread, *lines]


def _colours(result: KnockoutResult) -> dict[str, str]:
    """Flow → its colour in all cells; a control has the colour of its flow."""
    flows: dict[str, Flow] = {}
    for cell in result.cells:
        flows |= result.flows(cell)
    owners = {control_of(name, flows): name for name in flows}
    leading = [name for name in flows if name not in owners]
    return {name: series_colour(leading.index(owners.get(name, name))) for name in flows}


def head_map(result: KnockoutResult, cell: GridCell) -> go.Figure:
    """The mean relative change of the answer's probability with one head blocked, layers × heads, per flow.

    All panels share one colour scale, symmetric around 0; red: the answer becomes less likely.
    """
    flows = list(result.flows(cell))
    n_columns = min(3, len(flows))
    n_rows = -(-len(flows) // n_columns)
    summary = rows_of(result.summary(), cell.labels)
    summary = where(summary, summary.measure == "relative")
    spacing = {"horizontal_spacing": 0.06, "vertical_spacing": 0.24 / n_rows}
    figure = panels(flows, rows=n_rows, columns=n_columns, **spacing)
    hover = ": %{z:.2f} % [%{customdata[0]:.2f}, %{customdata[1]:.2f}], samples: %{customdata[2]}"
    for place, name in enumerate(flows):
        at: dict[str, Any] = {"row": place // n_columns + 1, "col": place % n_columns + 1}
        own = where(summary, summary.flow == name)
        figure.add_trace(heat(own, "mean", more=("low", "high", "n"), hover=hover), **at)
        if at["col"] == 1:
            figure.update_yaxes(title_text="head", **at)
        if place + n_columns >= len(flows):
            figure.update_xaxes(title_text="layer", **at)
    end = float(np.nanmax(np.abs(summary["mean"].to_numpy(float)), initial=0.0)) or 1.0
    figure.update_xaxes(**ticks_at(summary.layer, 8))
    figure.update_yaxes(showgrid=False, **ticks_at(summary["head"], 8))
    scale = {"colorscale": DIVERGING, "cmin": -end, "cmax": end, "colorbar": colour_bar(BAR_TITLE)}
    return laid_out(figure, 140 + 250 * n_rows, columns=n_columns, coloraxis=scale)
