"""The layers of a model by what their keys are, and their rows as eager attention gives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm, Rows, Site

__all__ = ["RowGroup", "image_layers", "row_groups"]


class RowGroup(NamedTuple):
    """Layers whose rows have the same keys.

    Attributes:
        layers: The layers, increasing.
        places: The same among the layers with a softmax.
        keys: What a site names all of their keys: "all" of the sequence, or "image" in cross-attention layers.
    """

    layers: tuple[int, ...]
    places: tuple[int, ...]
    keys: str

    def read(self, queries: Any) -> Rows:
        """Returns the read of these rows."""
        return Rows(Site(layers=self.layers, queries=queries, keys=self.keys))

    def of(
        self, layers: Sequence[Tensor], tokens: TokenMap, step: int = 0
    ) -> Float[np.ndarray, "layer *_ key"]:
        """Returns the group's rows over the prompt's positions, or the image's columns, from those of all layers.

        Args:
            layers: Eager attention of one sample in every layer with a softmax, (…, key).
            tokens: Where its tokens are.
            step: How many tokens were generated before. Columns that a sliding layer lacks become 0.
        """
        length = tokens.length
        found = []
        for place in self.places:
            row = layers[place].cpu()
            if self.keys == "image":
                found.append(row[..., torch.from_numpy(tokens.image.copy())])
            else:
                missing = length + step - row.shape[-1]
                found.append(torch.nn.functional.pad(row, (missing, 0))[..., :length])
        return torch.stack(found).numpy()


def row_groups(mllm: Mllm) -> list[RowGroup]:
    """Returns the groups of layers with a softmax: those that attend to the sequence and, if any, to the image."""
    softmax = [i for i, kind in enumerate(mllm.layer_kinds) if kind in ("attention", "cross")]
    found = []
    for kind, keys in (("attention", "all"), ("cross", "image")):
        layers = tuple(i for i, one in enumerate(mllm.layer_kinds) if one == kind)
        found += [RowGroup(layers, tuple(softmax.index(i) for i in layers), keys)] if layers else []
    return found


def image_layers(mllm: Mllm) -> tuple[int, ...]:
    """Returns the layers whose keys the image tokens are among."""
    return mllm.cross_layers or mllm.attention_layers
