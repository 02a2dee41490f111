"""The explorer's page: what is on it, and under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

__all__ = ["page"]

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
    """The layout.

    Args:
        model: The model's name.
        question: What stands in the question's field at first.
        layers: Layers that can be shown and edited.
        n_heads: Heads of a layer.
        generate: Tokens of an answer at most.
        files: The name of the images that are there at first.
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
    """Whether the layer at this place has its number below the slider: about eight have."""
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
    """What a list offers: value → what it says."""
    return [{"label": said, "value": value} for value, said in names.items()]
