"""The page of head roles: what each head does, by measure, the heads at the ends of each, and the figures of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from markupsafe import Markup

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
from interp.report.html import (
    capital,
    card,
    definitions,
    figure_card,
    figure_cards,
    grid,
    heading,
    paragraph,
    save_page,
    section,
    table,
)
from interp.report.provenance import as_json, origin
from interp.report.tables import estimate, number, rows
from interp.study.dataframes import rows_of
from interp.study.page_parts import failure_line, lead, origins

if TYPE_CHECKING:
    from interp.study.head_roles.result import HeadTable
    from interp.study.runs import GridCell

__all__ = ["CAPTIONS", "figures", "write_page"]


N_SHOWN = 8
LEAD = Markup("""Every head of <b>{models}</b>: its row of attention at the last prompt token, and what the answer loses
without it; {samples} ({data}). The page describes the heads on these samples. Test a set of heads that you choose
here on other samples.""")
TERMS = {
    "Share of the image": """The row's weight on all image tokens, from 0 to 1. Higher: the head attends more to the
    image.""",
    "Entropy on the image": """The entropy of the row within the image, divided by its maximum. 1: uniform; 0: all
    weight on one token.""",
    "Share of the first token": """The row's weight on the prompt's first token (an attention sink), from 0 to 1. Heads
    that add little to the answer often attend there.""",
    "Same map on another image": """1 − Jensen–Shannon divergence (in bits) between the map and that of the same
    question on another sample's image. 1: the map is the same for both images, because the head attends to a position
    or uniformly (then its entropy is also near 1). 0: the two maps do not overlap.""",
    "Effect of ablation": """How far the log-probability of the answer's first token falls, in nats, when the head's
    output at the last prompt token is set to zero. Above 0: the head supports the answer. Later heads can compensate
    for a missing one, so a head without an effect may still contribute.""",
    "Copying": """Computed from the weights alone, from −1 to 1: the sum of the eigenvalues of the head's OV circuit
    divided by the sum of their absolute values. Near 1: attending to a word raises that word's logit. It describes
    words, not image tokens.""",
}
TABLE = """For each measure the heads with the highest mean; for measures with two directions also those with the
lowest. Brackets: 95 % interval over groups."""


def write_page(result: HeadTable, path: str | Path) -> Path:
    """Writes the page and returns its path.

    Args:
        result: Of a `HeadRoles`, or of a grid over one.
        path: The HTML file.
    """
    shown = figures(result)
    maps = [name for name in shown if name != "roles"]
    body = [
        section(
            "Layers × heads",
            grid(map(figure_card, maps, _names(result)), "stacked"),
            card(definitions(TERMS)),
        ),
        section("Share of the image and effect", figure_cards(name for name in shown if name == "roles")),
        section("Heads by measure", *_tables(result), intro=TABLE),
        section("Failures", paragraph(failure_line(result), kind="wide")),
        origins(result, _origin),
    ]
    study = result.cells[0].study
    first = lead(result, LEAD)
    return save_page(path, title=study.title, question=study.question, lead=first, body=body, figures=shown)


def _names(result: HeadTable) -> list[str]:
    """The name of each run above its maps; empty where there is only one run."""
    names = [" · ".join(cell.key) for cell in result.cells if cell.measured]
    return names if len(names) > 1 else [""]


def _tables(result: HeadTable) -> Iterator[Markup]:
    summary = result.summary()
    counts = summary.groupby([*result.axes, "layer", "head"], observed=True).n_groups.max().rename("n_groups")
    heads = result.heads.merge(counts.reset_index(), on=[*result.axes, "layer", "head"])
    for cell in (cell for cell in result.cells if cell.measured):
        own = rows_of(heads, cell.labels)
        if len(result.cells) > 1:
            yield heading(" · ".join(cell.key), level=3)
        for measure in result.measures:
            first = (measure, *(name for name in result.measures if name != measure))
            columns: dict[str, Any] = {"head": "name", **{CAPTIONS[name]: _said(name) for name in first}}
            ends = (own.nlargest(N_SHOWN, measure),)
            if measure in ("ablation", "copying"):
                ends = (*ends, own.nsmallest(N_SHOWN // 2, measure))
            for part, which in zip(ends, ("highest", "lowest"), strict=False):
                title = f"{capital(CAPTIONS[measure])}: {which}"
                yield card(table(list(columns), rows(part, columns)), title=title)


def _said(name: str) -> Any:
    def said(row: Mapping[str, Any]) -> str:
        if name == "copying":
            return number(row[name])
        return estimate(row, of=(name, f"{name}_low", f"{name}_high"))

    return said


def _origin(cell: GridCell) -> Markup:
    study = cell.study
    settings = f"{study.target}, {study.ablate}, {study.seed}, {study.batch}"
    return origin(cell.folder, [("prompt", as_json(study.prompt)), ("target, ablate, seed, batch", settings)])


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
    """ "heads", "heads-2", …: each measure by layer and head, for each run; "roles": effect by share of the image."""
    found: Figures = {}
    for place, cell in enumerate((cell for cell in result.cells if cell.measured), start=1):
        own = rows_of(result.heads, cell.labels)
        found["heads" if place == 1 else f"heads-{place}"] = _maps(own, result.measures)
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
    """A colour scale with its bar at the right of a panel."""
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
    """Each head's effect of ablation against its share of the image, coloured by “same map on another image”."""
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
