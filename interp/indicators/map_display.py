"""Maps as lines of text, as a frame, and as pictures in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from interp.errors import InterpError
from interp.inputs.notebook import block, thumbnails
from interp.inputs.overlays import overlay
from interp.inputs.pictures import bounded, heated, strengths
from interp.inputs.sample import Sample
from interp.inputs.tokens import TokenMap

__all__ = ["COLUMNS", "map_frame", "map_lines", "maps_html"]

COLUMNS = ("sample", "token", "position", "image", "x0", "y0", "x1", "y1", "view", "value")
SHOWN, LAYERS, IMAGES, SIDE, VALUES = 3, 4, 4, 180, 4
"""Samples, layers and images that a notebook shows, pixels of a picture, and values in a line of text."""


def map_lines(arrays: Sequence[xr.DataArray]) -> Iterator[str]:
    """The first values of the first maps, and how many maps there are more."""
    for i, array in enumerate(arrays[:SHOWN]):
        values = array.values.reshape(-1)
        more = " …" if values.size > VALUES else ""
        yield f"[{i}] {' '.join(f'{value:.3g}' for value in values[:VALUES])}{more}"
    if len(arrays) > SHOWN:
        yield f"and {len(arrays) - SHOWN} more"


def map_frame(array: xr.DataArray, tokens: TokenMap, sample: int) -> pd.DataFrame:
    """The values of one map, a row each, with the place of each token."""
    levels = [str(dim) for dim in array.dims[:-1]]
    places = {
        dim: array[dim].values if dim in array.coords else np.arange(array.sizes[dim]) for dim in levels
    }
    index = pd.MultiIndex.from_product([*places.values(), range(tokens.n)], names=[*levels, "token"])
    frame = index.to_frame(index=False)
    at = frame["token"].to_numpy()
    frame.insert(0, "sample", sample)
    corners = tokens.footprints[at].T
    columns = {"position": tokens.image[at], "image": tokens.image_index[at]}
    columns |= dict(zip(("x0", "y0", "x1", "y1"), corners, strict=True))
    return frame.assign(**columns, view=tokens.views[at], value=array.values.reshape(-1))


def maps_html(
    arrays: Sequence[xr.DataArray], tokens: Sequence[TokenMap], samples: Sequence[Sample], title: str
) -> str:
    """The maps of the first samples as HTML: each image with its maps, several layers beside each other.

    Heads are averaged. Without samples the maps lie on light paper.
    """
    pictures: list[tuple[str, Image.Image]] = []
    for i, (array, own) in enumerate(zip(arrays[:SHOWN], tokens[:SHOWN], strict=True)):
        sample = samples[i] if samples else None
        for image in range(min(len(own.sizes), IMAGES)):
            where = f"sample {i}" + (f", image {image + 1}" if len(own.sizes) > 1 else "")
            pictures += [
                (f"{where}, {name}", _over(sample, own, values, image)) for name, values in _layers(array)
            ]
    return block(title, thumbnails(pictures, left=len(arrays) - SHOWN, of="sample"))


def _layers(array: xr.DataArray) -> list[tuple[str, np.ndarray]]:
    """Name and values (token,) of up to four layers, evenly spaced, the last among them."""
    if "head" in array.dims:
        name, array = "mean of heads", array.mean("head")
    else:
        name = "map"
    if "layer" not in array.dims:
        return [(name, array.values)]
    n = array.sizes["layer"]
    places = np.unique(np.linspace(0, n - 1, min(n, LAYERS)).round().astype(int))
    labels: Any = array["layer"].values if "layer" in array.coords else np.arange(n)
    more = f" ({name})" if name != "map" else ""
    return [(f"layer {labels[place]}{more}", array.values[place]) for place in places]


def _over(sample: Sample | None, tokens: TokenMap, values: np.ndarray, image: int) -> Image.Image:
    """One map over its image, or over paper where the image is not at hand or cannot be read."""
    if sample is not None:
        with suppress(InterpError):
            return overlay(sample, tokens, values, image, SIDE)
    return heated(tokens.to_pixels(strengths(values), image=image), bounded(tokens.sizes[image], SIDE))
