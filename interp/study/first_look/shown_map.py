"""The map of an indicator that is shown, and the rule that chose its layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from interp.errors import MapError
from interp.inputs.tokens import TokenMap
from interp.metrics import attention_ratio, positive_part
from interp.report.tables import number

__all__ = ["AUTO", "Layer", "ShownMap", "concentration", "shown_map"]

AUTO = "auto"
Layer = int | Literal["auto"]


@dataclass(frozen=True, eq=False)
class ShownMap:
    """One map over the image tokens.

    Attributes:
        label: The indicator's name.
        values: (token,) float64; larger = more important.
        tokens: Where the tokens are.
        layer: The map's layer, 0-based; None for an indicator without layers, or one whose layers are added up.
        rule: How the layer was chosen, as a sentence.
        about: What the indicator is, in a sentence.
    """

    label: str
    values: Float[np.ndarray, " token"]
    tokens: TokenMap
    layer: int | None
    rule: str
    about: str = ""

    @property
    def name(self) -> str:
        """The label, with the layer where there is one."""
        return self.label if self.layer is None else f"{self.label}, layer {self.layer}"

    @property
    def shares(self) -> Float[np.ndarray, " token"]:
        """Each token's share of the map's positive part: in sum 1, or all 0 where nothing is positive."""
        positive = np.maximum(self.values, 0.0)
        return positive / positive.sum() if positive.sum() > 0 else positive


def shown_map(
    label: str,
    indicator: Any,
    array: xr.DataArray,
    tokens: TokenMap,
    layer: Layer,
    inside: Float[np.ndarray, " token"] | Bool[np.ndarray, " token"] | None,
) -> ShownMap:
    """The map to show from an array ([layer,] token).

    With a layer's number it is that layer. With "auto" it is the first that applies: the sum over layers, where the
    indicator says that its layers add up; with boxes, the layer with the highest `attention_ratio`; otherwise the layer
    with the largest `concentration`. The attention ratio is the share of the drawn weight inside the boxes divided by
    that of a uniform map. The KL divergence from the boxes is not used, because it favours uniform maps: one dim token
    inside a box costs more than much weight outside.

    Args:
        label: The indicator's name.
        indicator: The indicator.
        array: The indicator's map of one sample.
        tokens: Where the tokens are.
        layer: A layer of the array, or "auto".
        inside: The share of each token inside the boxes, in [0, 1]; None without boxes.

    Raises:
        MapError: The array has a map per head, or does not have the layer.
    """
    values, about = np.asarray(array.values, np.float64), _about(indicator)
    if array.dims == ("token",):
        return ShownMap(
            label, values, tokens, None, "This indicator gives one map, of no single layer.", about
        )
    if array.dims != ("layer", "token"):
        raise MapError(
            f"a look shows maps ([layer,] token); {label!r} gives {array.dims}. Use per_head=False: the heads of the "
            "chosen layer are shown in any case."
        )
    layers = [int(one) for one in array["layer"].values]
    if layer == AUTO and getattr(indicator, "layers_add_up", False):
        return ShownMap(
            label, values.sum(axis=0), tokens, None, "Its layers add up: this is their sum.", about
        )
    at, rule = _chosen(label, values, layers, layer, inside)
    return ShownMap(label, values[at], tokens, layers[at], rule, about)


def _about(indicator: Any) -> str:
    """What an indicator is: the first line of its documentation."""
    words = (type(indicator).__doc__ or "").strip().split("\n")[0]
    divided = getattr(indicator, "relative_to", None) is not None
    return f"{words} Divided, token by token, by the same under a generic prompt." if divided else words


def _chosen(
    label: str, values: np.ndarray, layers: list[int], layer: Layer, inside: np.ndarray | None
) -> tuple[int, str]:
    """The index of the chosen layer in the array, and how it was chosen."""
    if layer != AUTO:
        if layer not in layers:
            raise MapError(
                f"layer is {AUTO!r} or a layer that {label!r} gives, {layers[0]} … {layers[-1]}; got {layer!r}."
            )
        return layers.index(layer), f"Layer {layer}, as asked for."
    if len(layers) == 1:
        return 0, f"The indicator gives layer {layers[0]} alone."
    if inside is not None and inside.any():
        ratios = attention_ratio(positive_part(values), inside)
        if not np.isnan(ratios).all():
            at = int(np.nanargmax(ratios))
            return at, (
                f"Of {len(layers)} layers, layer {layers[at]} has the largest share of its weight inside the boxes "
                f"(highest attention ratio, {number(ratios[at])}; a uniform map has 1). The boxes chose it, so how "
                "well it fits them is no evidence."
            )
    at = int(np.argmax(concentration(values)))
    return at, f"Of {len(layers)} layers, layer {layers[at]} has the most concentrated map (lowest entropy)."


def concentration(map: Float[np.ndarray, "*lead token"]) -> Float[np.ndarray, "*lead"]:
    """1 − H(p) / ln N of the positive part p of a map, as shares of its sum over N tokens.

    In [0, 1], larger = more concentrated: 0 for a uniform map and for one without a positive value, 1 where one token
    has everything. With a single token it is 0. H is the entropy in nats.

    >>> concentration(np.array([[1.0, 1.0], [3.0, 0.0]])).tolist()
    [0.0, 1.0]
    """
    positive = np.maximum(np.asarray(map, np.float64), 0.0)
    n, total = positive.shape[-1], positive.sum(axis=-1, keepdims=True)
    shares = np.divide(positive, total, out=np.full(positive.shape, 1.0 / n), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    entropy = -(shares * logs).sum(axis=-1)
    return np.clip(1.0 - entropy / np.log(n), 0.0, 1.0) if n > 1 else np.zeros(positive.shape[:-1])
