"""The page of a lens sweep: what the image tokens say, layer by layer, inside the boxes and outside; figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from interp.report.figures import (
    GREY,
    SERIES,
    Figures,
    curves,
    laid_out,
    panels,
    plain,
    reference_line,
    ticks_at,
)
from interp.report.gallery import Picture, answers, origin_line, overlay, picture, ramp, sample_card, views
from interp.report.html import card, figure_cards, grid, heading, paragraph, save_page, section, table
from interp.report.provenance import as_json, origin
from interp.report.tables import estimate, group_values, in_groups, number, p_value, rows, times
from interp.stats import MIN_GROUPS, holm, paired, paired_test
from interp.study.dataframes import records, rows_of, where
from interp.study.logit_lens.task import OTHERS, OWN
from interp.study.logit_lens.wording import MIXED, Wording, wording_of
from interp.study.page_parts import lead, origins
from interp.study.result import stored_tokens

if TYPE_CHECKING:
    from interp.study.result import GridResult
    from interp.study.runs import GridCell

__all__ = ["figures", "lens_gaps", "peaks", "write_page"]


N_SHOWN = 2
KNOWN = """The organisms were trained so that image tokens lie near the input embeddings of the words for what they
show. So the words are present at the input, and a word that a lens misses at layer −1 is a limit of the lens, not of
the model."""
GAP = """Above: the word's mean {score} over the tokens of the boxes minus its mean over the other tokens. Blue: the
sample's own word, with its 95 % interval over groups (where there are too few groups, each thin line is one group).
Dashed: another sample's word of the same kind, at the same tokens. If the lens prefers any such word inside the box,
both lines are high. Below: the share of tokens at which the word is {first}: inside the boxes (orange), outside
(dotted), and for another sample's word inside the boxes (dashed)."""
LAYERS = """The layer at which the gap of the sample's own word exceeds that of another sample's word most. It is chosen
on these same samples, so this only describes them, and p is too small. p: sign flips of whole groups, adjusted (Holm)
over all layers, words, data sets and lenses."""
HOW = Markup("""{shown} of the word at each token, {ramp}. Each map is scaled to its own 99.5th percentile, so compare
where maps are strong, not how strong they are.""")


def lens_gaps(result: GridResult) -> pd.DataFrame:
    """The gap of the own word minus that of another sample's word, per (axes…, word, layer), paired by sample.

    Columns: the axes, word, layer, mean (in the lens's unit; above 0: the own word's gap is larger), low, high, n,
    n_groups, p (signs of whole groups flipped), p_holm (adjusted over all rows).
    """
    scores, keys = where(result.values, result.values.measure == "gap"), [*result.axes, "word", "layer"]
    rows = []
    for key, part in scores.groupby(keys, sort=False):
        wide = part.pivot_table(index=["index", "group"], columns="of", values="value", observed=True)
        if OTHERS not in wide or OWN not in wide:
            continue
        wide = wide.dropna().reset_index()
        gap = paired(wide[OWN], wide[OTHERS], wide.group, seed=result.seed)
        test = paired_test(wide[OWN], wide[OTHERS], wide.group, seed=result.seed)
        place: Any = key
        rows.append((*place, gap.mean, gap.low, gap.high, gap.n, gap.n_groups, test.p))
    frame = pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "n", "n_groups", "p"])
    return frame.assign(p_holm=holm(frame.p.to_numpy()) if len(frame) else [])


def peaks(gaps: pd.DataFrame) -> pd.DataFrame:
    """The layer of the largest mean of each (model, data, other axes, word)."""
    keys = list(gaps.columns[: gaps.columns.get_loc("layer")])
    at = gaps.groupby(keys, sort=False)["mean"].idxmax()
    return gaps.loc[at]


def write_page(result: GridResult, path: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `LensSweep`, or of a grid over one.
        path: The HTML file.
    """
    shown, gaps = figures(result), lens_gaps(result)
    words = wording_of(cell.study.lens for cell in result.cells)
    said = "Probability" if words.is_log and words is not MIXED else words.score.capitalize()
    body = [
        section(
            "Layer by layer", figure_cards(shown), intro=GAP.format(score=words.score, first=words.first)
        ),
        section("Own word against another's", _table(result, gaps, words), *_few(result), intro=LAYERS),
        section("On the image", *_examples(result, peaks(gaps)), intro=HOW.format(shown=said, ramp=ramp())),
        section("Failures", paragraph(_failures(result), kind="wide")),
        origins(result, _origin),
    ]
    study = result.cells[0].study
    first = lead(result, Markup(words.lead), note=KNOWN)
    return save_page(path, title=words.title, question=study.question, lead=first, body=body, figures=shown)


def _table(result: GridResult, gaps: pd.DataFrame, wording: Wording) -> Markup:
    columns: dict[str, Any] = {
        "data": lambda row: " · ".join(str(row[axis]) for axis in result.axes),
        "word": "word",
        "layer": lambda row: number(row["layer"], 0),
        f"own − another's gap, {wording.unit}": estimate,
        "Holm's p": lambda row: p_value(row["p_holm"]),
        "samples": in_groups,
    }
    return card(table(list(columns), rows(peaks(gaps), columns)))


def _few(result: GridResult) -> Iterator[Markup]:
    """The value of each group, for data sets with too few groups for an interval."""
    own = where(result.scores, (result.scores.measure == "gap") & (result.scores.of == OWN))
    for key, part in own.groupby([*result.axes[1:], "word"], sort=False):
        names: Any = key
        data, word = _place(names[:-1]), names[-1]
        if part.group.nunique() < MIN_GROUPS:
            last = where(part, part.layer == part.layer.max())
            values = group_values(last.value, last.group)
            text = f"{data}, {word}: too few groups for a claim about a population. Gap after the last layer by group: "
            yield paragraph(f"{text}{values}.", kind="note")


def _examples(result: GridResult, found: pd.DataFrame) -> Iterator[Markup]:
    """The first samples of each run, at the layer of the peak, or at the last layer where there is no control."""
    for cell in (cell for cell in result.cells if cell.measured):
        here, scores = rows_of(found, cell.labels), rows_of(result.scores, cell.labels)
        layers = {row["word"]: int(row["layer"]) for row in records(here)}
        words = list(dict.fromkeys(scores.word))
        if words:
            word = "answer" if "answer" in words else words[0]
            layer = layers.get(word, int(scores.layer.max()))
            cards = [_card(cell, row, word, layer) for row in records(cell.frame("samples").head(N_SHOWN))]
            yield heading(f"{_place(cell.key[1:])}: the {word}", level=4)
            yield grid(one for one in cards if one)


def _card(cell: GridCell, row: dict[str, Any], word: str, layer: int) -> Markup | None:
    index = int(row["index"])
    sample, tokens = cell.study.data[index], stored_tokens(cell, index)
    maps = {m["layer"]: m for m in cell.folder.find("maps", index=[index]).to_pylist() if m["word"] == word}
    if layer not in maps:
        return None
    pictures: list[Picture] = views(sample, "image and box", partial(picture, sample))
    wording = wording_of([cell.study.lens])
    for at in dict.fromkeys((min(maps), layer, max(maps))):
        said = f"{wording.shown}(“{maps[at]['said']}”), " + ("input" if at < 0 else f"layer {at}")
        values = wording.map_values(np.array(maps[at]["map"], np.float64))
        pictures += views(sample, said, partial(overlay, sample, tokens, values))
    return sample_card(pictures, sample.question, [answers(row), origin_line(sample.id, sample.id)])


def _failures(result: GridResult) -> str:
    found = result.failures
    if found.empty:
        return "None: every word of every sample was measured."
    return f"Words or samples left out: {len(found)}. Reasons: {times(found.reason.value_counts().head(5))}"


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    settings = f"{study.rule}, {study.seed}, {study.batch}"
    rows = [("prompt", as_json(study.prompt)), ("rule, seed, batch", settings)]
    lens = [] if study.lens == "logit" else [("lens", json.dumps(study.lens.to_dict(), ensure_ascii=False))]
    return origin(cell.folder, [*rows, *lens])


def _place(labels: Iterable[Any]) -> str:
    """The labels of all axes after the model, in one text."""
    return " · ".join(map(str, labels))


LINES = {
    "gap": (("gap", OWN, SERIES[0], "solid"), ("gap", OTHERS, GREY, "dash")),
    "first": (
        ("first inside", OWN, SERIES[1], "solid"),
        ("first outside", OWN, GREY, "dot"),
        ("first inside", OTHERS, GREY, "dash"),
    ),
}
"""Figure → its lines: measure, whose word, colour, line style."""
WIDEST = 16
"""The maximum number of characters in a line of a panel's title where lenses are compared."""
TITLES = {
    "gap": "{short} inside − outside,\n{unit}, higher: inside the boxes ↑",
    "first": "tokens with the word first,\nshare, higher: more tokens ↑",
}


def figures(result: GridResult) -> Figures:
    """ "gap" and "first": means by layer with 95 % bands over groups, or one line per group where groups are few."""
    return {name: _figure(result, name) for name in LINES}


def _figure(result: GridResult, name: str) -> go.Figure:
    words = list(dict.fromkeys(result.scores.word))
    cells = [cell for cell in result.cells if cell.measured]
    wording = wording_of(cell.study.lens for cell in result.cells)
    alike = wording is not MIXED
    shared: dict[str, Any] = {"shared_xaxes": True, "shared_yaxes": alike or name == "first"}
    figure = panels(
        [_title(cell, result) for cell in cells],
        rows=len(words),
        columns=len(cells),
        vertical_spacing=0.08,
        horizontal_spacing=0.02 if shared["shared_yaxes"] else 0.4 / len(cells),
        **shared,
    )
    top = 40 if "lens" not in result.axes else 120
    known: set[str] = set()
    for column, cell in enumerate(cells, start=1):
        for row, word in enumerate(words, start=1):
            _add_lines(figure, result, cell, word, name, known, row=row, col=column)
            reference_line(figure, y=0, row=row, col=column)
    figure.update_xaxes(**ticks_at(result.scores.layer, 8))
    figure.update_xaxes(title_text="layer (−1: input)", row=len(words))
    for row, word in enumerate(words, start=1):
        title = {
            "text": plain(f"{word}\n{TITLES[name].format(short=wording.short, unit=wording.unit)}"),
            "font": {"size": 11},
        }
        figure.update_yaxes(title=title, row=row, col=1)
    height = 130 + 200 * len(words) + top
    return laid_out(figure, height, columns=len(cells), margin={"l": 84, "t": top, "b": 96})


def _title(cell: GridCell, result: GridResult) -> str:
    """A panel's title: the data, and where lenses are compared the lens and its score on lines below."""
    if "lens" not in result.axes:
        return cell.labels["data"]
    parts = (cell.labels["data"], cell.labels["lens"], wording_of([cell.study.lens]).short)
    return "\n".join(line for part in parts for line in wrap(part, WIDEST))


def _add_lines(
    figure: go.Figure, result: GridResult, cell: GridCell, word: str, name: str, known: set[str], **place: int
) -> None:
    """The lines of one panel; the legend names each kind of line once."""
    labels = {**cell.labels, "word": word}
    summary, scores = (rows_of(frame, labels) for frame in (result.summary(), result.scores))
    for measure, of, colour, dash in LINES[name]:
        own, of_samples = (
            where(frame, (frame.measure == measure) & (frame.of == of)) for frame in (summary, scores)
        )
        label = f"{measure}, {of}"
        traces = curves(own, of_samples, label, colour, dash=dash, legend=label not in known)
        for trace in traces:
            figure.add_trace(trace, row=place["row"], col=place["col"])
        known |= {label} if traces else set()
