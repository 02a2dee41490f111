"""The explorer's two figures: the image with a map and the chosen tokens, and every head's share of its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float, Int

from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report.figures import CLEAR, SHADES, colour_bar, laid_out
from interp.report.gallery import data_uri, overlay, picture

__all__ = ["empty_figure", "head_figure", "image_figure", "token_at", "tokens_in"]

SIDE = 640
"""Pixels of the longer side of the picture that is sent to the browser."""
CHOSEN = "#22d3ee"


def image_figure(
    sample: Sample,
    tokens: TokenMap,
    values: Float[np.ndarray, " token"] | None,
    chosen: Sequence[int] = (),
    image: int = 0,
) -> go.Figure:
    """The image with the map over it, in pixels of the original; chosen tokens have an outline.

    Clicks give a place in pixels; a dragged region selects the centres of tokens, whose numbers are `customdata`.

    Args:
        sample: Whose image.
        tokens: Where its tokens lie.
        values: The map; None for the image alone.
        chosen: Tokens that are outlined.
        image: Which of the sample's images.
    """
    shown = picture(sample, image, SIDE) if values is None else overlay(sample, tokens, values, image, SIDE)
    width, height = sample.sizes[image]
    across, down = width / shown.width, height / shown.height
    here = _here(tokens, image)
    centres = (tokens.footprints[here, :2] + tokens.footprints[here, 2:]) / 2
    figure = go.Figure(
        [
            go.Image(
                source=data_uri(shown), x0=across / 2, dx=across, y0=down / 2, dy=down,
                hoverinfo="none",
            ),
            go.Scatter(
                x=centres[:, 0], y=centres[:, 1], customdata=here.tolist(), mode="markers", hoverinfo="skip",
                marker={"size": 6, "color": CLEAR}, selected={"marker": {"color": CLEAR}},
                unselected={"marker": {"color": CLEAR}},
            ),
        ]
    )  # fmt: skip
    outlined = [place for place in chosen if place in set(here.tolist())]
    figure.update_layout(
        shapes=[
            {"type": "rect", **dict(zip(("x0", "y0", "x1", "y1"), map(float, tokens.footprints[i]), strict=True)),
             "line": {"color": CHOSEN, "width": 2}, "fillcolor": CLEAR}
            for i in outlined
        ]
    )  # fmt: skip
    figure.update_xaxes(visible=False, range=[0, width], constrain="domain")
    figure.update_yaxes(visible=False, range=[height, 0], scaleanchor="x", constrain="domain")
    margin = {"l": 0, "r": 0, "t": 4, "b": 4}
    laid_out(figure, 520, margin=margin, dragmode="select", showlegend=False, clickmode="event")
    bar = {"bgcolor": "rgba(255,255,255,0.7)", "color": "#5d6573", "activecolor": "#1b1f27"}
    return figure.update_layout(height=None, modebar=bar)  # as high as its place on the page


def head_figure(
    shares: Float[np.ndarray, "layer head"], layers: Sequence[int], shown: tuple[int, int | None], title: str
) -> go.Figure:
    """Every layer's and head's share of its row, as cells to click; the one shown has a frame.

    Args:
        shares: In [0, 1].
        layers: The layers' numbers.
        shown: The layer shown, and the head, or None for all heads.
        title: What the shares are of.
    """
    n_heads = shares.shape[1]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=list(range(n_heads)),
            y=list(range(len(layers))),
            colorscale=SHADES,
            zmin=0,
            colorbar=colour_bar("share of the row"),
            customdata=np.broadcast_to(np.asarray(layers)[:, None], shares.shape),
            hovertemplate="layer %{customdata}, head %{x}: %{z:.3f}<extra></extra>",
        )
    )
    layer, head = shown
    if layer in layers:
        at = list(layers).index(layer)
        first, last = (-0.5, n_heads - 0.5) if head is None else (head - 0.5, head + 0.5)
        figure.add_shape(
            type="rect", x0=first, x1=last, y0=at - 0.5, y1=at + 0.5, line={"color": "#D55E00", "width": 2}
        )
    every = max(1, -(-len(layers) // 16))
    ticks = list(range(0, len(layers), every))
    figure.update_yaxes(
        tickvals=ticks, ticktext=[str(layers[i]) for i in ticks], title="layer", autorange="reversed"
    )
    figure.update_xaxes(title="head", dtick=max(1, -(-n_heads // 16)))
    return laid_out(
        figure, 420, title={"text": title, "font": {"size": 13}}, margin={"l": 50, "r": 10, "t": 44, "b": 46}
    )


def empty_figure() -> go.Figure:
    """A figure without anything, before a question was asked."""
    return laid_out(go.Figure(), 200).update_xaxes(visible=False).update_yaxes(visible=False)


def token_at(tokens: TokenMap, x: float, y: float, image: int = 0) -> int | None:
    """The image token whose footprint holds a place in pixels; of several the smallest; None where there is none."""
    here = _here(tokens, image)
    boxes = tokens.footprints[here]
    inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    if not inside.any():
        return None
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return int(here[np.where(inside, area, np.inf).argmin()])


def tokens_in(selected: Mapping[str, Any] | None) -> list[int]:
    """The tokens whose centres a dragged region holds, from Plotly's event."""
    points = (selected or {}).get("points") or []
    return sorted({int(point["customdata"]) for point in points if "customdata" in point})


def _here(tokens: TokenMap, image: int) -> Int[np.ndarray, " shown"]:
    """The numbers of the tokens that show this image and have a footprint."""
    return np.flatnonzero(tokens.shows(image) & ~np.isnan(tokens.footprints).any(axis=1))
