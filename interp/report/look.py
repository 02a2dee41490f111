"""Small multiples of maps over one image, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from interp.errors import MapError
from interp.report.gallery import overlay, picture

if TYPE_CHECKING:
    from interp.sample import Sample
    from interp.tokens import TokenMap

__all__ = ["show_maps"]

SIDE, TITLE = 190, 42


def show_maps(
    sample: Sample,
    maps: xr.DataArray,
    tokens: TokenMap,
    *,
    columns: int = 4,
    scores: dict[str, np.ndarray] | None = None,
    title: str = "",
) -> go.Figure:
    """A figure of the image with its boxes, and of every map laid over it.

    Each map has a colour scale of its own (see `interp.report.gallery.overlay`): compare where they are
    strong, not how strong they are.

    Args:
        sample: What was looked at.
        maps: ([layer or head,] token), one map or several, such as `maps[i]` of an indicator.
        tokens: Where the image's tokens lie: `maps.tokens[i]`.
        columns: Pictures beside each other.
        scores: Name → one number per map, shown above it.
        title: Over the figure.

    Raises:
        MapError: More than two dimensions, or a last dimension that is not the image's tokens.
    """
    if maps.ndim not in (1, 2) or maps.shape[-1] != tokens.n:
        raise MapError(
            f"maps are (token,) or (layer or head, token) with {tokens.n} tokens; got {dict(maps.sizes)}. "
            "Choose one layer first: maps.sel(layer=…)."
        )
    rows = maps.values[None] if maps.ndim == 1 else maps.values
    names = _names(maps, scores or {})
    n_rows = -(-(len(rows) + 1) // columns)
    figure = make_subplots(
        rows=n_rows, cols=columns, subplot_titles=["image", *names],
        horizontal_spacing=0.015, vertical_spacing=min(0.3 / n_rows, 0.1),
    )  # fmt: skip
    pictures = [picture(sample), *(overlay(sample, tokens, row) for row in rows)]
    for i, shown in enumerate(pictures):
        row, col = i // columns + 1, i % columns + 1
        figure.add_trace(go.Image(z=np.asarray(shown), hoverinfo="skip"), row=row, col=col)
    figure.update_xaxes(visible=False).update_yaxes(visible=False).update_annotations(font_size=12)
    figure.update_layout(
        title=title, width=SIDE * columns + 40, height=(SIDE + TITLE) * n_rows + (60 if title else 30),
        margin={"l": 20, "r": 20, "t": 80 if title else 40, "b": 10},
    )  # fmt: skip
    return figure


def _names(maps: xr.DataArray, scores: dict[str, np.ndarray]) -> list[str]:
    if maps.ndim == 1:
        labels = ["map"]
    else:
        dimension = str(maps.dims[0])
        labels = [f"{dimension} {value}" for value in maps[dimension].values]
    parts = [
        " · ".join(f"{name} {float(v[i]):.2f}" for name, v in scores.items()) for i in range(len(labels))
    ]
    return [f"{label}<br>{part}" if part else label for label, part in zip(labels, parts, strict=True)]
