"""The figures of stated boxes: overlaps and attention ratios, with their intervals."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from interp.report.figures import GREY, SERIES, Figures, laid_out, panels, points, reference_line
from interp.study.dataframes import rows_of, where

if TYPE_CHECKING:
    from interp.study.result import GridResult

__all__ = ["NAMES", "figures"]

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
"""Of a line of a label beside the axis, so that narrow screens have room for the points."""


def figures(result: GridResult) -> Figures:
    """ "overlap": IoUs; "attention": the ratios inside the boxes. A panel for each run, points with 95 % intervals."""
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
