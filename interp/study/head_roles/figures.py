"""Figures of head roles: a map of the heads for each measure, and one measure against another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from interp.report.figures import (
    DIVERGING,
    GREY,
    SEQUENTIAL,
    Figures,
    colour_bar,
    heat,
    laid_out,
    panels,
    reference_line,
    ticks_at,
)
from interp.study.dataframes import rows_of

if TYPE_CHECKING:
    from interp.study.head_roles.result import HeadTable

__all__ = ["CAPTIONS", "figures"]

CAPTIONS = {
    "image_share": "share of the image",
    "entropy": "entropy on the image",
    "sink_share": "share of the first token",
    "position": "same map on another image",
    "ablation": "effect of ablation, nats",
    "copying": "copying",
}
"""Measure → its caption."""
SIGNED = ("ablation", "copying")
COLUMNS = 3


def figures(result: HeadTable) -> Figures:
    """ "heads", "heads-2", …: each measure by layer and head, a figure per run; "roles": share of the image, effect."""
    found: Figures = {}
    for number, cell in enumerate((cell for cell in result.cells if cell.measured), start=1):
        own = rows_of(result.heads, cell.labels)
        found["heads" if number == 1 else f"heads-{number}"] = _maps(own, result.measures)
    if "ablation" in result.measures:
        found["roles"] = _scatter(result)
    return found


def _maps(heads: Any, measures: tuple[str, ...]) -> go.Figure:
    n_rows = -(-len(measures) // COLUMNS)
    titles = [CAPTIONS[name] for name in measures]
    figure = panels(
        titles, rows=n_rows, columns=COLUMNS, horizontal_spacing=0.12, vertical_spacing=0.4 / n_rows
    )
    axes: dict[str, Any] = {}
    layout: Any = figure.layout
    for place, name in enumerate(measures):
        row, column = divmod(place, COLUMNS)
        more = [one for one in (f"{name}_low", f"{name}_high") if one in heads] or [name]
        ends = " [%{customdata[0]:.3f}, %{customdata[1]:.3f}]" if len(more) == 2 else ""
        axis = f"coloraxis{'' if not place else place + 1}"
        cells = heat(heads, name, more=more, hover=f": %{{z:.3f}}{ends}", axis=axis)
        figure.add_trace(cells, row=row + 1, col=column + 1)
        number = str(place + 1) if place else ""
        x, y = (layout[f"{one}axis{number}"].domain for one in "xy")
        axes[axis] = _scale(heads[name], name, x=x[1] + 0.005, y=sum(y) / 2, length=y[1] - y[0])
    figure.update_xaxes(title_text="layer", **ticks_at(heads.layer, 8))
    figure.update_yaxes(showgrid=False, **ticks_at(heads["head"], 8))
    figure.update_yaxes(title_text="head", col=1)
    return laid_out(figure, 120 + 270 * n_rows, columns=COLUMNS, margin={"r": 60}, **axes)


def _scale(values: Any, name: str, *, x: float, y: float, length: float) -> dict[str, Any]:
    """A colour scale with its bar at the right of a panel; shares go to the largest there is."""
    bar = colour_bar("", x=x, y=y, len=length, xanchor="left", thickness=8, nticks=4)
    most = float(values.abs().max()) or 1.0
    if name not in SIGNED:
        return {
            "colorscale": SEQUENTIAL,
            "cmin": 0,
            "cmax": most if name == "sink_share" else 1,
            "colorbar": bar,
        }
    return {"colorscale": DIVERGING, "cmin": -most, "cmax": most, "colorbar": bar}


def _scatter(result: HeadTable) -> go.Figure:
    """Each head's effect of ablation against its share of the image, coloured by how alike its maps are."""
    cells = [cell for cell in result.cells if cell.measured]
    figure = panels([cell.labels["data"] for cell in cells], columns=len(cells), shared_yaxes=True)
    for column, cell in enumerate(cells, start=1):
        own = rows_of(result.heads, cell.labels)
        marker = {
            "size": 9,
            "color": own.position,
            "coloraxis": "coloraxis",
            "line": {"width": 0.5, "color": GREY},
        }
        dots = go.Scatter(
            x=own.image_share, y=own.ablation, customdata=own[["name", "position", "entropy"]], mode="markers",
            marker=marker, showlegend=False,
            hovertemplate="%{customdata[0]}<br>image %{x:.3f}, ablation %{y:.3f} nats<br>"
            "same map %{customdata[1]:.2f}, entropy %{customdata[2]:.2f}<extra></extra>",
        )  # fmt: skip
        figure.add_trace(dots, row=1, col=column)
        reference_line(figure, y=0, row=1, col=column)
    figure.update_xaxes(title_text="share of the image, higher: more →")
    figure.update_yaxes(title_text="effect of ablation, nats,<br>higher: for the answer ↑", col=1)
    scale = {
        "colorscale": SEQUENTIAL,
        "cmin": 0,
        "cmax": 1,
        "colorbar": colour_bar("same map on another image"),
    }
    return laid_out(figure, 400, columns=len(cells), coloraxis=scale)
