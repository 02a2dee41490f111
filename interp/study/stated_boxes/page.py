"""The page of stated boxes: agreement with the expert's, where attention lies, what could not be read; figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from PIL import Image, ImageColor, ImageDraw

from interp.inputs.box_conventions import BOX_CONVENTIONS
from interp.inputs.files import read_json
from interp.report.figures import GREY, SERIES, Figures, laid_out, panels, points, reference_line
from interp.report.gallery import origin_line, overlay, picture, sample_card, views
from interp.report.html import (
    card,
    code,
    figure_cards,
    grid,
    heading,
    join,
    key,
    paragraph,
    save_page,
    section,
    table,
)
from interp.report.provenance import INTERVALS, as_json, meanings, origin
from interp.report.tables import count, estimate, in_groups, number, rows
from interp.study.dataframes import records, rows_of, where
from interp.study.page_parts import failures_by_sample, lead, origins
from interp.study.result import stored_tokens
from interp.study.stated_boxes.task import MEASURES

if TYPE_CHECKING:
    from interp.study.result import GridResult
    from interp.study.runs import GridCell

__all__ = ["NAMES", "figures", "write_page"]


N_SHOWN, N_UNPARSED, COLOUR = 6, 10, "#E69F00"
LEAD = Markup("""The boxes that <b>{models}</b> writes, compared with the expert's boxes and with the map of
{indicator}; {samples} ({data}).{stored}""")
STORED = " The texts were given to the study and not generated; they are compared with the model's own maps."
FIGURE = """Means over samples, with 95 % bootstrap intervals over groups where there are enough groups. “Another
sample's”: the stated boxes against the expert's boxes of another sample. A model that always states the usual place
scores the same against both."""
GALLERY = (
    """The first samples. Orange: the boxes the model states. Blue: the expert's boxes. Right: the map."""
)
UNPARSED = """Parts of the texts that begin like a box but could not be read as one. They count nowhere."""
TERMS = {
    "Stated box": """A box that the convention below can read. It counts if it has four finite numbers in the
    convention's range and its corners are in order.""",
    "Attention ratio": """The mean of the map inside the boxes over its mean over the image; 1 is a uniform map. It
    favours small boxes, so compare the areas before you compare two ratios.""",
    "Attention mask": "The map, averaged over layers, upsampled and cut at the threshold below.",
    "What it does not show": """Attention inside the stated box does not show that the model derived the box from it, or
    that the answer depends on that place. To test that, remove the tokens.""",
    "Intervals": INTERVALS,
}


def write_page(result: GridResult, path: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `StatedBoxes`, or of a grid over one.
        path: The HTML file.
    """
    shown, study = figures(result), result.cells[0].study
    body = [
        section("How far they agree", figure_cards(shown), intro=FIGURE),
        section("In numbers", *_tables(result)),
        section("Samples", *_examples(result), intro=GALLERY),
        section("What could not be read", *_unparsed(result), intro=UNPARSED),
        section("Failures", failures_by_sample(result)),
        meanings(TERMS),
        origins(result, _origin),
    ]
    stored = STORED if study.answers is not None else ""
    first = lead(result, LEAD, stored=stored, indicator=type(study.indicator).__name__)
    return save_page(path, title=study.title, question=study.question, lead=first, body=body, figures=shown)


def _tables(result: GridResult) -> Iterator[Markup]:
    summary = result.summary()
    for cell in (cell for cell in result.cells if cell.measured):
        if len(result.cells) > 1:
            yield heading(" · ".join(cell.key), level=4)
        own = rows_of(summary, cell.labels).set_index("measure").loc[list(MEASURES)].reset_index()
        columns: dict[str, Any] = {
            "measure": lambda row: join(NAMES[row["measure"]], " ", code(row["measure"])),
            "mean [95 %]": lambda row: estimate(row) if row["n"] else None,
            "samples": in_groups,
            "undefined": "n_undefined",
        }
        yield card(table(list(columns), rows(own, columns)))


def _examples(result: GridResult) -> Iterator[Markup]:
    """The first samples of each run, with the boxes and the map."""
    for cell in (cell for cell in result.cells if cell.measured):
        maps = cell.folder.read_table("maps").to_pandas().set_index("index")["map"]
        scores = cell.frame("scores")
        cards = []
        for row in records(cell.frame("samples").head(N_SHOWN)):
            index = int(row["index"])
            sample, tokens = cell.study.data[index], stored_tokens(cell, index)
            boxes = json.loads(row["boxes"])
            over = partial(_with_stated, partial(picture, sample), boxes, sample.sizes)
            heat = partial(overlay, sample, tokens, np.asarray(maps.loc[index], float))
            shown = [*views(sample, "stated and expert's", over)]
            shown += views(sample, "map", partial(_with_stated, heat, boxes, sample.sizes))
            value = where(scores, (scores["index"] == index) & (scores.measure == "iou")).value.iloc[0]
            lines = [
                join("said: ", code(_short(row["said"]))),
                _told(row),
                origin_line(sample.id, row["group"]),
            ]
            score = "" if np.isnan(value) else f"IoU {number(float(value))}"
            cards.append(sample_card(shown, sample.question, lines, score=score))
        yield grid(cards, "tight")
    yield paragraph(key(COLOUR), "stated", kind="soft")


def _told(row: Mapping[Any, Any]) -> str:
    labels = ", ".join(one for one in json.loads(row["labels"]) if one)
    named = f" ({labels})" if labels else ""
    return f"boxes read: {row['n_stated']}{named}; unparsed: {row['n_unparsed']}"


def _short(text: Any) -> str:
    found = text if isinstance(text, str) else "(nothing)"
    return found if len(found) <= 160 else f"{found[:159]}…"


def _with_stated(draw: Any, boxes: list[list[float]], sizes: Any, image: int) -> Image.Image:
    """A picture of an image with the stated boxes over it."""
    shown: Image.Image = draw(image).convert("RGB")
    pen, colour = ImageDraw.Draw(shown), ImageColor.getrgb(COLOUR)
    x, y = shown.width / sizes[image][0], shown.height / sizes[image][1]
    for x0, y0, x1, y1 in boxes:
        left, top = round(x0 * x), round(y0 * y)
        pen.rectangle(
            (left, top, max(round(x1 * x) - 1, left), max(round(y1 * y) - 1, top)), outline=colour, width=2
        )
    return shown


def _unparsed(result: GridResult) -> Iterator[Markup]:
    for cell in (cell for cell in result.cells if cell.measured):
        frame = cell.frame("samples")
        own = where(frame, frame.n_unparsed > 0)
        silent = int(((frame.n_stated == 0) & (frame.n_unparsed == 0)).sum())
        name = f"{' · '.join(cell.key)}: " if len(result.cells) > 1 else ""
        unread = f"{name}{count(int(frame.n_unparsed.sum()), 'part')} in {len(own)} of {count(len(frame), 'sample')}."
        silence = f"{count(silent, 'other sample')} without any box."
        yield paragraph(f"{unread} {silence}", kind="wide")
        if len(own):
            lines = [(row["sample"], row["unparsed"]) for row in records(own.head(N_UNPARSED))]
            yield card(table(("sample", "reason and text"), lines, kind="text"))


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    rule = (read_json(cell.folder.path / "study.json") or {}).get("convention", {})
    source = BOX_CONVENTIONS[rule["name"]].source if rule.get("name") in BOX_CONVENTIONS else ""
    settings = (
        f"{study.upsample}, {study.threshold}, {study.rule}, {study.generate}, {study.seed}, {study.batch}"
    )
    return origin(
        cell.folder,
        [
            ("prompt", as_json(study.prompt)),
            ("convention", f"{as_json(rule)}; {source}"),
            ("indicator, layers", f"{as_json(study.indicator)}, {study.layers or 'all'}"),
            ("upsampling, threshold, rule, tokens, seed, batch", settings),
        ],
    )


NAMES = {
    "stated": "a box could be read",
    "iou": "stated and expert's boxes",
    "iou_shuffled": "stated and another sample's",
    "mask_stated": "attention mask and stated boxes",
    "mask_expert": "attention mask and expert's",
    "ar_stated": "inside the stated boxes",
    "ar_expert": "inside the expert's boxes",
    "ar_gap": "stated minus expert's",
    "area_stated": "area of the stated boxes",
    "area_expert": "area of the expert's",
}
"""Measure → its name on the page."""
OVERLAPS = ("mask_expert", "mask_stated", "iou_shuffled", "iou")
RATIOS = ("ar_expert", "ar_stated")
LETTERS = 18
"""The maximum number of letters in a line of an axis label, so that narrow screens have room for the points."""


def figures(result: GridResult) -> Figures:
    """ "overlap": IoUs; "attention": ratios inside the boxes. One panel per run, points with 95 % intervals."""
    return {
        "overlap": _points(result, OVERLAPS, "IoU ↑<br>(1: the same pixels)", [0, 1]),
        "attention": _points(result, RATIOS, "attention ratio ↑<br>(1: a uniform map)", None, line=1.0),
    }


def _points(
    result: GridResult, measures: tuple[str, ...], axis: str, limits: Any, line: float | None = None
) -> go.Figure:
    cells = [cell for cell in result.cells if cell.measured]
    figure = panels([" · ".join(cell.key) for cell in cells], columns=len(cells), shared_yaxes=True)
    for column, cell in enumerate(cells, start=1):
        summary = rows_of(result.summary(), cell.labels)
        own = (
            where(summary, summary.measure.isin(measures))
            .set_index("measure")
            .loc[list(measures)]
            .reset_index()
        )
        trace = points(
            own, ["\n".join(wrap(NAMES[name], LETTERS)) for name in measures], marker={"size": 9, "color": SERIES[0]},
            arms={"color": GREY, "thickness": 1.5}, showlegend=False,
        )  # fmt: skip
        figure.add_trace(trace, row=1, col=column)
        if line is not None:
            reference_line(figure, x=line, row=1, col=column)
    figure.update_xaxes(title_text=axis, **({} if limits is None else {"range": limits}))
    return laid_out(figure, 130 + 50 * len(measures), columns=len(cells), margin={"b": 95})
