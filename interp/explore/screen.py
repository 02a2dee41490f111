"""The explorer's page: what is on it, under which names, and its two figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from dash import dcc, html
from jaxtyping import Float, Int

from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap
from interp.report.figures import CLEAR, SHADES, colour_bar, laid_out
from interp.report.gallery import data_uri, overlay, picture

__all__ = ["empty_figure", "head_figure", "image_figure", "page", "token_at", "tokens_in"]


KINDS = {
    "knockout": "hide (the other keys take the share)",
    "zero": "set weights to 0",
    "weights": "multiply weights",
    "scores": "multiply scores before the softmax",
}
ROW_NAMES = {
    "last": "the last row of every pass",
    "question": "the question's rows",
    "after_image": "all prompt rows after the image",
}


def page(
    model: str, question: str, layers: Sequence[int], n_heads: int, generate: int, files: str | None = None
) -> Any:
    """The layout of the page.

    Args:
        model: The model's name.
        question: The first text of the question's field.
        layers: The layers that can be shown and edited.
        n_heads: The number of heads in each layer.
        generate: The most tokens of an answer.
        files: The name under which the first images are kept; None without images.
    """
    return html.Main(
        [
            html.Header(
                [html.H1("Where does it look?"), html.P(f"{model} · up to {generate} tokens an answer")]
            ),
            dcc.Store(id="files", data=files),
            dcc.Store(id="sample", data=None),
            dcc.Store(id="chosen", data=[]),
            dcc.Store(id="change", data=None),
            html.Div([_ask(question), _shown(layers, n_heads), _edit(layers, n_heads)], className="columns"),
            html.Section([html.H2("The code that reproduces this"), html.Pre(id="code", tabIndex=0)]),
        ]
    )


def _ask(question: str) -> Any:
    return html.Section(
        [
            html.H2("1 · Ask"),
            dcc.Upload(html.Button("Choose images"), id="upload", multiple=True, accept="image/*"),
            html.P(id="names", className="soft"),
            html.Label("Question", htmlFor="question"),
            dcc.Textarea(id="question", value=question, rows=3),
            html.Button("Ask", id="ask", className="main"),
            html.P(id="message", role="alert"),
            html.H3("Answer"),
            html.P(id="answer", role="status"),
            html.Ul(id="likely"),
        ]
    )


def _shown(layers: Sequence[int], n_heads: int) -> Any:
    heads = [
        {"label": "mean of all heads", "value": -1},
        *({"label": f"head {h}", "value": h} for h in range(n_heads)),
    ]
    first, last = layers[0], layers[-1]
    return html.Section(
        [
            html.H2("2 · Look"),
            html.Label("Row that predicts the generated token", htmlFor="step"),
            dcc.RadioItems(id="step", options=[], value=0, inline=True, className="chips"),
            html.Label("Image", id="image-label", htmlFor="image", hidden=True),
            html.Div(dcc.Dropdown(id="image", options=[0], value=0, clearable=False), id="image-box", hidden=True),
            html.Label("Layer"),
            dcc.Slider(
                min=first, max=last, step=None, value=layers[len(layers) // 2], id="layer",
                marks={layer: str(layer) if _marked(i, len(layers)) else "" for i, layer in enumerate(layers)},
            ),
            html.Label("Head", htmlFor="head"),
            dcc.Dropdown(id="head", options=heads, value=-1, clearable=False),
            dcc.Checklist(
                id="relative", value=[], options=[
                    {"label": " divide by the same under the generic prompt (first token)", "value": "relative"}
                ],
            ),
            dcc.Graph(id="map", config={"displaylogo": False, "modeBarButtonsToAdd": ["lasso2d"]}),
            html.P(id="about", className="soft"),
            html.Div(
                [html.Button("Clear selection", id="clear"), html.Button("Invert selection", id="invert")],
                className="buttons",
            ),
            dcc.Graph(id="heads", config={"displayModeBar": False}),
        ]
    )  # fmt: skip


def _marked(place: int, n: int) -> bool:
    """Whether the slider shows the number of the layer at this place; it shows about eight."""
    return place % max(1, -(-n // 8)) == 0 or place == n - 1


def _edit(layers: Sequence[int], n_heads: int) -> Any:
    pairs = [f"{layer}.{head}" for layer in layers for head in range(n_heads)]
    return html.Section(
        [
            html.H2("3 · Make it look elsewhere"),
            html.Label("Edit", htmlFor="kind"),
            dcc.Dropdown(
                id="kind", value="knockout", clearable=False, options=_options(KINDS)
            ),
            html.Label("Factor", htmlFor="factor"),
            dcc.Input(id="factor", type="number", value=2.0, min=0, step="any"),
            html.Label("Rows", htmlFor="rows"),
            dcc.Dropdown(
                id="rows", value="last", clearable=False, options=_options(ROW_NAMES)
            ),
            html.Label("Layers (none: all)", htmlFor="layers"),
            dcc.Dropdown(id="layers", value=[], multi=True, options=list(layers)),
            html.Label("Or single heads, layer.head", htmlFor="pairs"),
            dcc.Dropdown(id="pairs", value=[], multi=True, options=pairs),
            html.Button("Add the head shown", id="add"),
            html.P(id="tokens", className="soft"),
            html.Button("Run the edit", id="run", className="main"),
            html.P(id="refused", role="alert"),
            html.Div(id="effect", role="status"),
            dcc.RadioItems(
                id="which", value="before", inline=True, className="chips",
                options=[{"label": "map before", "value": "before"}, {"label": "map after the edit", "value": "after"}],
            ),
        ]
    )  # fmt: skip


def _options(names: Mapping[str, str]) -> list[dict[str, str]]:
    """The options of a list, from value → label."""
    return [{"label": said, "value": value} for value, said in names.items()]


SIDE = 640
"""The longer side, in pixels, of the picture that is sent to the browser."""
CHOSEN = "#22d3ee"


def image_figure(
    sample: Sample,
    tokens: TokenMap,
    values: Float[np.ndarray, " token"] | None,
    chosen: Sequence[int] = (),
    image: int = 0,
) -> go.Figure:
    """The image with the map over it, in pixels of the original image; chosen tokens have an outline.

    A click gives a place in pixels; a dragged region selects the centres of tokens, whose numbers are `customdata`.

    Args:
        sample: The sample.
        tokens: Where the sample's image tokens lie.
        values: The map, one value for each token; None for the image alone.
        chosen: The tokens that are outlined.
        image: The index of the image among the sample's images.
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
    """The share of each layer's and head's row, as cells to click; the one that is shown has a frame.

    Args:
        shares: The shares, (layer, head), in [0, 1].
        layers: The numbers of the layers.
        shown: The layer and the head that are shown; None as head for all heads.
        title: The title, which says what the shares are of.
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
    """An empty figure, for the page before the first question."""
    return laid_out(go.Figure(), 200).update_xaxes(visible=False).update_yaxes(visible=False)


def token_at(tokens: TokenMap, x: float, y: float, image: int = 0) -> int | None:
    """The image token whose footprint holds a place in pixels, the smallest of several; None without one."""
    here = _here(tokens, image)
    boxes = tokens.footprints[here]
    inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
    if not inside.any():
        return None
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return int(here[np.where(inside, area, np.inf).argmin()])


def tokens_in(selected: Mapping[str, Any] | None) -> list[int]:
    """The tokens whose centres lie in a dragged region, from Plotly's event."""
    points = (selected or {}).get("points") or []
    return sorted({int(point["customdata"]) for point in points if "customdata" in point})


def _here(tokens: TokenMap, image: int) -> Int[np.ndarray, " shown"]:
    """The numbers of the tokens that show this image and have a footprint."""
    return np.flatnonzero(tokens.shows(image) & ~np.isnan(tokens.footprints).any(axis=1))
