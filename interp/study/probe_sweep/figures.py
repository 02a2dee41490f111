"""The figure of a probe sweep: held-out accuracy by layer, a panel per position, beside the control task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.report.figures import GREY, SERIES, Figures, curves, laid_out, panels, reference_line, ticks_at
from interp.study.dataframes import rows_of, where

if TYPE_CHECKING:
    from interp.study.probe_sweep.result import ProbeResult

__all__ = ["TOKENS", "figures"]

TOKENS = {"last": "last token", "question": "question", "image": "image tokens", "box": "tokens in the boxes"}
LINES = (
    ("accuracy", "probe", SERIES[0], "solid"),
    ("control", "control task", SERIES[1], "dash"),
    ("majority", "most frequent class", GREY, "dot"),
)
"""Measure, its name, colour and dash."""


def figures(result: ProbeResult) -> Figures:
    """ "accuracy": by layer, a row per run and a panel per position; bands of 95 %, or a line per group."""
    cells = [cell for cell in result.cells if cell.measured]
    positions = list(dict.fromkeys(result.scores.position))
    titles = [f"{cell.labels['data']}: {TOKENS[one]}" for cell in cells for one in positions]
    shared = {"shared_xaxes": True, "shared_yaxes": True, "vertical_spacing": 0.3 / (len(cells) + 1)}
    figure = panels(titles, rows=len(cells), columns=len(positions), horizontal_spacing=0.03, **shared)
    known: set[str] = set()
    for row, cell in enumerate(cells, start=1):
        summary, scores = (rows_of(frame, cell.labels) for frame in (result.summary(), result.scores))
        for column, position in enumerate(positions, start=1):
            for measure, name, colour, dash in LINES:
                own, of_samples = (
                    where(frame, (frame.measure == measure) & (frame.position == position))
                    for frame in (summary, scores)
                )
                for trace in curves(own, of_samples, name, colour, dash=dash, legend=name not in known):
                    figure.add_trace(trace, row=row, col=column)
                known.add(name)
            reference_line(figure, y=1, row=row, col=column)
    figure.update_xaxes(**ticks_at(result.scores.layer, 8))
    figure.update_xaxes(title_text="layer", row=len(cells))
    figure.update_yaxes(range=[0, 1.05])
    figure.update_yaxes(title_text="held-out accuracy,<br>higher: can be read ↑", col=1)
    return {"accuracy": laid_out(figure, 150 + 240 * len(cells), columns=len(positions), margin={"b": 100})}
