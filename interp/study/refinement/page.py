"""The page of methods: what they change, with intervals, flips, cost, samples before and after, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.inputs.answers import RULE
from interp.report import gallery
from interp.report.figures import DIVERGING, GREY, Figures, colour_bar, laid_out, panels, plain
from interp.report.html import (
    bold,
    capital,
    card,
    code,
    details,
    figure_cards,
    grid,
    heading,
    headline,
    join,
    paragraph,
    save_page,
    section,
)  # fmt: skip
from interp.report.provenance import as_json, meanings, origin
from interp.report.tables import count, number, p_value, percent, signed, varying
from interp.stats import MIN_GROUPS
from interp.study.dataframes import records, rows_of, where
from interp.study.page_parts import lead, origins
from interp.study.refinement.result import numeric_pair
from interp.study.refinement.tables import (
    PLACE,
    cell_title,
    difference_hover,
    difference_points,
    failures_section,
    flips_card,
    measures_table,
    methods_card,
    pairs_card,
    panel_name,
    per_group,
    percentage_points,
    places,
)  # fmt: skip

if TYPE_CHECKING:
    from interp.study.refinement.result import RefinementCell, RefinementResult

__all__ = ["figures", "write_page"]


FEW_CELLS = 4
"""Up to this number, each cell has its own card; more cells are lines of a table."""
MANY_CELLS = 10
"""With more cells on the same samples, as in a table over parameters, only the figure and folded numbers are shown."""
LEVEL = 0.05
SMALLEST_ROW = 4
"""Pictures are never larger than with this number in a row."""

LEAD = Markup("""<b>{models}</b> answered {samples} twice, greedily: once without and once with the method.
Every difference is after − before on the same samples; above 0 means more often right.""")
FIGURES = {
    "difference": (
        "Accuracy, after − before",
        """Points are means over samples, bars 95 % bootstrap intervals over groups. With too few groups for an
        interval, each open circle is one group.""",
    ),
    "heat": (
        "Accuracy change over both parameters",
        """Each cell is the change of accuracy from the plain model, in percentage points, on the same samples: blue is
        better, red is worse. Hover for the interval and the number of samples. The best cell of a table looks better
        than it is: choose parameters on validation samples.""",
    ),
}
METHODS = """Each line compares one method with the plain model on the same samples. Before and after are accuracies;
points are the difference after − before in percentage points, with the 95 % interval. “+” counts answers that became
right, “−” answers that became wrong. Holm's p is the p of the group-wise sign test, adjusted over all lines. s ×,
passes × and tokens × are the method's costs divided by the plain model's."""
FLIPS = """McNemar's exact test asks whether a fair coin would split the flips so unevenly. It treats samples as
independent; where several samples share a patient, a volume or an image, use the interval over groups."""
GALLERY = Markup("""The samples were drawn with seed {seed}, not by their result. Maps run {ramp}, each scaled to its
own 99.5th percentile. The method hides the dark tokens. Beside each answer is the probability that it begins the
sample's own answer. {layer}""")
NO_LOOKS = "No attention was read except by the methods themselves."
LOOKS = """“Attention” is the attention of the last prompt token at layer {layers}, averaged over heads and divided by
that under a generic prompt on the plain model. “After” was read again with the method's edits. Where a method edits
that layer, the edit itself makes the change, so it is no evidence of grounding."""
TERMS = {
    "Right": RULE,
    "Probability of the answer": """The probability of beginning the answer: the summed probability, after the last
    prompt token, of the first tokens of the answer's spellings. PAI's guidance contrasts and cuts off logits, so its
    probabilities are sharper by construction, and 0 where it rules the answer out; logarithms of such zeros are left
    out and counted.""",
    "Attention ratio": """The relative map's mean inside the sample's boxes over its mean everywhere; a uniform map
    scores 1.""",
    "Intervals": """95 %, percentile bootstrap over groups (2,000 resamplings). With fewer than 20 groups no interval is
    shown, and no claim about a population is made.""",
    "Cost": """Seconds, passes and token positions of the method's whole call, including passes that only measure,
    divided by those of plain generation on the same batches. Each is counted as if it ran alone, so an image prefix
    that methods share counts for each. A prefix, what follows it, and each generated token are one pass each. Tokens
    are positions that went through the language model. Seconds depend on other work on the machine; passes and tokens
    are exact.""",
}


def write_page(result: RefinementResult, path: str | Path) -> Path:
    """Writes the page and returns its path."""
    shown = figures(result)
    body = [
        _headlines(result),
        *(section(FIGURES[name][0], figure_cards([name]), intro=FIGURES[name][1]) for name in shown),
        _methods(result),
        _flips(result),
        "" if "correct" not in result.measures or _many(result) else per_group(result),
        _gallery(result),
        failures_section(result, "None: every sample was answered both times."),
        _meanings(result),
        origins(result, _origin, folded=True),
    ]
    title, question = result.study.title, _question(result)
    return save_page(path, title=title, question=question, lead=_lead(result), body=body, figures=shown)


def _many(result: RefinementResult) -> bool:
    return len(result.cells) > MANY_CELLS * len(places(result))


def _question(result: RefinementResult) -> str:
    methods = [
        name for name in dict.fromkeys(cell.study.method.name for cell in result.cells) if name != "Plain"
    ]
    if len(methods) > 1:
        return "Is the model right more often with one of these methods than without?"
    return f"Is the model right more often with {(methods or ['Plain'])[0]} than without?"


def _lead(result: RefinementResult) -> Markup:
    counts = []
    for place in places(result):
        sizes = [len(cell.frame("samples")) for cell in result.cells if place.items() <= cell.labels.items()]
        counts.append(f"{count(max(sizes), 'sample')} of {panel_name(result, place)}")
    first = lead(result, LEAD, samples=", ".join(counts))
    lines = (paragraph(capital(line), kind="soft wide") for line in result.sentences()[:FEW_CELLS])
    return join(first, *lines)


def _headlines(result: RefinementResult) -> Markup | str:
    if len(result.cells) > FEW_CELLS:
        return ""
    return section("What the method changed", grid((_headline(result, cell) for cell in result.cells), "top"))


def _headline(result: RefinementResult, cell: RefinementCell) -> Markup:
    """The card of one cell: accuracy before → after, and every other measure."""
    title, found = cell_title(result, cell), records(rows_of(result.summary(), cell.labels))
    own = next((row for row in found if row["measure"] == "correct"), None)
    if own is None:
        return card(
            paragraph("No sample has an answer to compare with."),
            measures_table(found, result.measure_names),
            title=title,
        )
    before, after = (number(100 * own[when], 1) for when in ("before", "after"))
    counts = f"accuracy in % · {count(own['n'], 'sample')}, {count(own['n_groups'], 'group')}"
    cost = (
        f"Cost, times the plain model's: {own['seconds']:.2f} in seconds, {own['forwards']:.2f} in passes, "
        f"{own['tokens']:.2f} in token positions."
    )
    return card(
        headline(f"{before} → {after}", counts),
        paragraph(_verdict(own)),
        measures_table(found, result.measure_names),
        paragraph(cost, kind="soft"),
        paragraph(own["note"], kind="note") if own["note"] else "",
        title=title,
    )


def _verdict(own: dict[str, Any]) -> Markup:
    """The difference with its interval, and the conclusion that it allows."""
    gap = join("Difference ", bold(percentage_points(own)), " points. ")
    flips = f"{own['wrong_to_right']:.0f} wrong → right, {own['right_to_wrong']:.0f} right → wrong"
    test = f"{flips}; McNemar, exact: p {p_value(own['p_flips'])}."
    if own["n_groups"] < MIN_GROUPS:
        return join(gap, f"{test} Too few groups for a claim beyond these samples.")
    if not (own["low"] > 0 or own["high"] < 0):
        return join(gap, f"Not distinguishable from no change: the interval contains zero. {test}")
    more = own["low"] > 0
    word, side = ("More" if more else bold("Less")), ("above" if more else "below")
    weak = own["p"] > LEVEL
    but = f" But the sign test by group gives p {p_value(own['p'])}: few answers changed." if weak else ""
    return join(gap, word, f" often right: the interval lies {side} zero.{but} {test}")


def _methods(result: RefinementResult) -> Markup | str:
    """All cells as lines, and pairs of methods where there are several on the same samples."""
    if len(result.cells) < 2:
        return ""
    body = methods_card(result)
    shown = details("All numbers", body) if _many(result) else body
    return section("Beside the plain model", shown, pairs_card(result), intro=METHODS)


def _flips(result: RefinementResult) -> Markup | str:
    if _many(result):
        return ""
    cells = [cell for cell in result.cells if cell.measured and cell.study.method.name != "Plain"]
    return section("What flipped", grid((flips_card(result, cell) for cell in cells), "tight"), intro=FLIPS)


def _gallery(result: RefinementResult) -> Markup | str:
    cells = [cell for cell in result.cells if cell.measured]
    if _many(result) or not cells:
        return ""
    n = 6 if len(cells) <= FEW_CELLS else 2
    layers = sorted({cell.study.read_layer for cell in cells if cell.study.read_layer is not None})
    layer = LOOKS.format(layers=", ".join(map(str, layers))) if layers else NO_LOOKS
    parts = []
    for place in places(result):
        own = [cell for cell in cells if place.items() <= cell.labels.items()]
        own = [cell for cell in own if cell.study.method.name != "Plain"] or own
        indices = shared_samples(own, n, result.seed) if own else []
        for cell in own:
            parts.append(heading(cell_title(result, cell), level=3))
            parts.append(grid(sample_card(cell, index) for index in indices))
    intro = GALLERY.format(seed=result.seed, ramp=gallery.ramp(), layer=layer)
    return section("Drawn samples, before and after", *parts, intro=intro)


def shared_samples(cells: Sequence[RefinementCell], n: int, seed: int) -> list[int]:
    """Up to `n` samples that all cells measured, drawn with a seed and not by their result."""
    measured = [set(cell.frame("samples")["index"].tolist()) for cell in cells]
    return gallery.drawn(set.intersection(*measured), n, seed)


def sample_card(cell: RefinementCell, index: int) -> Markup:
    """The card of one sample: pictures, question, answers and their probabilities before and after."""
    frame, scores = cell.named_frame("samples"), cell.frame("scores")
    row = records(where(frame, frame["index"] == index))[0]
    values = {(r["measure"], r["when"]): r["value"] for r in records(where(scores, scores["index"] == index))}
    pictures = _pictures(cell, index, row)
    lines = [_answers(row, values), _ratios(values), gallery.origin_line(row["sample"], row["group"])]
    columns = max(len(pictures), SMALLEST_ROW)
    return gallery.sample_card(pictures, row["question"], lines, columns=columns)


def _pictures(cell: RefinementCell, index: int, row: Mapping[str, Any]) -> list[gallery.Picture]:
    sample, tokens = cell.study.data[index], cell.tokens(index)
    maps = cell.maps([index])[index]
    first = "image and box" if sample.boxes else "image"
    shown = gallery.views(sample, first, partial(gallery.picture, sample))
    captions = {"before": "attention, before", "after": "attention, after", "method": "the method's map"}
    for name, caption in captions.items():
        if name in maps:
            shown += gallery.views(sample, caption, partial(gallery.overlay, sample, tokens, maps[name]))
    if "kept" in maps:
        hidden = f"{int(row['n_tokens'] - row['n_kept'])} of {int(row['n_tokens'])}"
        dark = partial(gallery.hidden_tokens, sample, tokens, maps["kept"] > 0.5)
        shown += gallery.views(sample, f"hidden: dark ({hidden})", dark)
    if row["crop"] is not None:
        edges = [int(edge) for edge in row["crop"]]
        shown += [
            ("where it crops", gallery.crop_frame(sample, edges)),
            ("the crop", gallery.crop(sample, edges)),
        ]
    return shown


def _answers(row: Mapping[str, Any], values: Mapping[tuple[str, str], float]) -> Markup:
    """“answer green · before blue 31 % → after green 88 %”."""
    known = isinstance(row["answer"], str)
    answer = join("answer ", bold(row["answer"])) if known else "no answer given"
    return join(answer, " · ", _answer(row, values, "before"), " → ", _answer(row, values, "after"))


def _answer(row: Mapping[str, Any], values: Mapping[tuple[str, str], float], when: str) -> Markup:
    right = row[f"correct_{when}"]
    kind = "" if right is None else gallery.verdict(right)
    mark = "" if right is None else " ✓" if right else " ✗"
    share = values.get(("probability", when), float("nan"))
    return join(
        bold(row[f"text_{when}"] + mark, kind=kind), "" if np.isnan(share) else f" ({percent(share, 1)})"
    )


def _ratios(values: Mapping[tuple[str, str], float]) -> str:
    before, after = (values.get(("ar", when), float("nan")) for when in ("before", "after"))
    if np.isnan(before):
        return ""
    return f"attention ratio {number(before)}" + ("" if np.isnan(after) else f" → {number(after)}")


def _meanings(result: RefinementResult) -> Markup:
    cells = result.cells[:1] if _many(result) else result.cells
    return meanings(TERMS, {cell_title(result, cell): code(as_json(cell.method)) for cell in cells})


def _origin(cell: RefinementCell) -> Markup:
    study = cell.study
    more = [
        ("method", as_json(cell.method)),
        ("prompt", as_json(study.prompt)),
        ("tokens, seed, batch", f"{study.max_new_tokens}, {study.seed}, {study.batch}"),
    ]
    return origin(cell.folder, more)


NAMES = {"k": "k, heads in triage", "percentile": "p, percentile below which tokens are hidden"}


def figures(result: RefinementResult) -> Figures:
    """ "difference": the accuracy change of each cell; "heat": over two parameters, if only these differ."""
    summary = result.summary()
    if "correct" not in result.measures or len(result.cells) < 2:
        return {}
    own = where(summary, summary.measure == "correct")
    pair = numeric_pair(result.parameters, result.axes)
    if pair is not None:
        return {"heat": _heat_maps(result, own, pair)}
    return {"difference": _differences(result, own)}


def _differences(result: RefinementResult, own: pd.DataFrame) -> go.Figure:
    """Accuracy changes in percentage points with intervals, per model and data; single groups where groups are few."""
    shown = places(result)
    figure = panels([panel_name(result, place) for place in shown], shared_yaxes=True)
    for column, place in enumerate(shown, start=1):
        rows = rows_of(own, place)
        figure.add_trace(
            difference_points(rows, [_name(result, row) for row in records(rows)]), row=1, col=column
        )
        if (rows.n_groups < MIN_GROUPS).any():
            figure.add_trace(_group_points(result, place), row=1, col=column)
    figure.add_vline(x=0, line={"color": GREY, "width": 1})
    most = max((len(rows_of(own, place)) for place in shown), default=1)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text="accuracy, after − before, points (higher is better →)", matches="x")
    layout: Any = figure.layout
    layout.xaxis.matches = None  # the other axes match the first; an axis that matches itself is an error
    return laid_out(figure, 140 + 34 * most, columns=len(shown), showlegend=False)


def _group_points(result: RefinementResult, place: dict[str, str]) -> go.Scatter:
    groups = rows_of(result.per_group(), place)
    return go.Scatter(
        x=100 * groups.difference,
        y=[plain(_name(result, row)) for row in records(groups)],
        mode="markers",
        marker={"size": 6, "color": GREY, "symbol": "circle-open"},
        text=[plain(f"group {row['group']}, {count(row['n'], 'sample')}") for row in records(groups)],
        hovertemplate="%{y}, %{text}: %{x:+.1f}<extra></extra>",
    )


def _heat_maps(result: RefinementResult, own: pd.DataFrame, pair: tuple[str, str]) -> go.Figure:
    """Accuracy change over two parameters, one panel per model and data, on one scale symmetric around 0."""
    shown, (across, up) = places(result), sorted(pair, key=lambda name: name == "k")
    figure = panels([panel_name(result, place) for place in shown], horizontal_spacing=0.1)
    table = own.merge(result.parameters, on=list(result.axes))
    top = max(float(100 * table.difference.abs().max()), 0.1)
    for column, place in enumerate(shown, start=1):
        figure.add_trace(_heat(rows_of(table, place), across, up), row=1, col=column)
    bar = colour_bar("accuracy change,<br>points")
    scale: dict[str, Any] = {"colorscale": DIVERGING, "cmin": -top, "cmax": top, "colorbar": bar}
    figure.update_xaxes(type="category", title_text=NAMES.get(across, across))
    figure.update_yaxes(type="category", showgrid=False)
    figure.update_yaxes(title_text=NAMES.get(up, up), col=1)
    return laid_out(figure, 190 + 44 * len(set(table[up])), columns=len(shown), coloraxis=scale)


def _heat(rows: pd.DataFrame, across: str, up: str) -> go.Heatmap:
    x, y = sorted(set(rows[across])), sorted(set(rows[up]))
    grid, hover = np.full((len(y), len(x)), np.nan), np.full((len(y), len(x)), "", dtype=object)
    for row in records(rows):
        spot = y.index(row[up]), x.index(row[across])
        grid[spot], hover[spot] = 100 * row["difference"], difference_hover(row)
    return go.Heatmap(
        x=[f"{value:g}" for value in x],
        y=[f"{value:g}" for value in y],
        z=grid,
        text=[["" if np.isnan(value) else signed(value, 1) for value in line] for line in grid],
        texttemplate="%{text}",
        customdata=hover,
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
        hoverongaps=False,
        hovertemplate=f"{plain(up)} = %{{y}}, {plain(across)} = %{{x}}<br>%{{customdata}}<extra></extra>",
    )


def _name(result: RefinementResult, row: dict[str, Any]) -> str:
    """A cell's labels besides model and data."""
    shown = [axis for axis in varying(result.cells) if axis not in PLACE] or ["method"]
    return " · ".join(str(row[axis]) for axis in shown)
