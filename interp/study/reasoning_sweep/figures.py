"""The figure of a reasoning sweep: the answer's log-probability by how much of the reasoning saw the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.report.figures import SERIES, Figures, curves, laid_out, panels, plain, reference_line
from interp.study.dataframes import rows_of, where

if TYPE_CHECKING:
    from interp.study.result import GridResult

__all__ = ["figures"]


def figures(result: GridResult) -> Figures:
    """ "change": mean change of the answer's log-probability with its 95 % band over groups, or a line per group."""
    cells = [cell for cell in result.cells if cell.measured]
    figure = panels([" · ".join(cell.key) for cell in cells], columns=len(cells), shared_yaxes=True)
    for column, cell in enumerate(cells, start=1):
        summary, scores = (
            where(own, own.measure == "change").rename(columns={"seen": "layer"})
            for own in (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
        )
        for trace in curves(summary, scores, "image hidden from there on", SERIES[0], legend=column == 1):
            figure.add_trace(trace, row=1, col=column)
        reference_line(figure, y=0, row=1, col=column)
    figure.update_xaxes(title_text="share of the sentences that see the image", tickformat=".0%")
    title = plain("log p of the answer, change in nats,\nlower: the image mattered more ↓")
    figure.update_yaxes(title_text=title, row=1, col=1)
    return {"change": laid_out(figure, 380, columns=len(cells), margin={"l": 84, "b": 110})}
