"""From values at the model's inputs, pixels or embeddings, to one value per image token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from interp.models.pixels import pixel_views, pooled
from interp.tracing.inputs import InputFunction

__all__ = ["INPUTS", "contribution", "per_token", "sensitivity"]

INPUTS = ("pixels", "embeddings")

PerToken = list[Float[np.ndarray, " _"]]


def per_token(function: InputFunction, gradient: Tensor, times_input: bool) -> PerToken:
    """The size of a gradient at each token, or its contribution: the gradient times the input."""
    return (
        contribution(function, gradient * function.start) if times_input else sensitivity(function, gradient)
    )


def sensitivity(function: InputFunction, gradient: Tensor) -> PerToken:
    """Each sample's size of the gradient at its tokens: L2 over hidden, or over channels, and the mean over pixels."""
    if function.of == "embeddings":
        return [np.linalg.norm(one, axis=-1) for one in _own(function, gradient)]
    return _pooled(function, gradient, lambda one: np.linalg.norm(one.sum(axis=0), axis=0), "mean")


def contribution(function: InputFunction, products: Tensor) -> PerToken:
    """Each sample's sum of the products at its tokens: over hidden, or over channels and pixels."""
    if function.of == "embeddings":
        return [one.sum(axis=-1) for one in _own(function, products)]
    return _pooled(function, products, lambda one: one.sum(axis=(0, 1)), "sum")


def _own(function: InputFunction, values: Tensor) -> list[np.ndarray]:
    """Each sample's part, float64."""
    return [function.own(values, i).double().cpu().numpy() for i in range(len(function.batch))]


def _pooled(
    function: InputFunction, values: Tensor, reduce: Callable[[np.ndarray], np.ndarray], how: str
) -> PerToken:
    """Values at the pixels, reduced over frames and channels, then over each token's own pixels."""
    mllm, found = function.mllm, []
    parts: Any = zip(_own(function, values), function.batch.singles, strict=True)
    for own, single in parts:
        views = pixel_views(single.inputs, single.tokens, mllm.processor, mllm.hf.config)
        pictures = [reduce(view.picture(own)) for view in views]
        found.append(pooled(views, pictures, single.tokens.n, how))
    return found
