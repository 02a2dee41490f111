"""The nodes and edges of a decoder seen as a graph: who writes into the residual stream, and who reads it later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

__all__ = ["EdgeGraph", "node_name"]


def node_name(kind: str, layer: int = -1, head: int = -1) -> str:
    """A node's name: "image", "text", "answer", a head such as "L01H03", an MLP such as "L01MLP"; 0-based.

    >>> node_name("head", 14, 3), node_name("mlp", 2)
    ('L14H03', 'L02MLP')
    """
    return {"head": f"L{layer:02d}H{head:02d}", "mlp": f"L{layer:02d}MLP"}.get(kind, kind)


@dataclass(frozen=True)
class EdgeGraph:
    """Sources (image, text, then each layer's heads and MLP) and receivers (each layer's heads and MLP, the answer).

    Attributes:
        n_layers: How many layers there are.
        n_heads: How many heads each has.
    """

    n_layers: int
    n_heads: int

    @property
    def inner(self) -> tuple[str, ...]:
        """The heads and MLPs, in the order in which they run."""
        found = []
        for layer in range(self.n_layers):
            found += [node_name("head", layer, head) for head in range(self.n_heads)]
            found.append(node_name("mlp", layer))
        return tuple(found)

    @property
    def sources(self) -> tuple[str, ...]:
        """What writes into the stream. "image" and "text" are the embeddings of their tokens."""
        return ("image", "text", *self.inner)

    @property
    def receivers(self) -> tuple[str, ...]:
        """What reads the stream."""
        return (*self.inner, "answer")

    def n_before(self, layer: int, *, mlp: bool = False) -> int:
        """How many sources write before the heads of a layer read, or before its MLP does."""
        return 2 + layer * (self.n_heads + 1) + (self.n_heads if mlp else 0)

    @property
    def edges(self) -> Bool[np.ndarray, "source receiver"]:
        """Which pairs are edges: the source writes before the receiver reads. Heads of one layer read side by side."""
        found = np.zeros((len(self.sources), len(self.receivers)), bool)
        for layer in range(self.n_layers):
            first = layer * (self.n_heads + 1)
            found[: self.n_before(layer), first : first + self.n_heads] = True
            found[: self.n_before(layer, mlp=True), first + self.n_heads] = True
        found[:, -1] = True
        return found
