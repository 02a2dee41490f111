"""The residual stream of a pass whose edges carry values of their own: what was written, and what each node reads."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.tracing.circuits.edge_graph import EdgeGraph

__all__ = ["EdgeStream"]


class EdgeStream:
    """What sources have written so far, and what a receiver reads: Σ_source κ·own + (1 − κ)·reference, and biases.

    Args:
        graph: The nodes and edges.
        embeddings: What "image" and "text" write.
        reference: What each source writes in the reference, float32.
        weights: κ of each edge.
    """

    def __init__(
        self,
        graph: EdgeGraph,
        embeddings: Float[Tensor, "two row hidden"],
        reference: Float[Tensor, "source row hidden"],
        weights: Float[Tensor, "source receiver"],
    ) -> None:
        self.graph, self.reference, self.weights = graph, reference, weights
        self._writes = list(embeddings)
        self._constant: Tensor = torch.zeros_like(embeddings[0][:1])

    @property
    def written(self) -> Float[Tensor, "source row hidden"]:
        """What each source wrote."""
        return torch.stack(self._writes)

    def heads_read(self, layer: int) -> Float[Tensor, "head row hidden"]:
        """What each head of a layer reads."""
        return self._read(layer * (self.graph.n_heads + 1), self.graph.n_heads)

    def mlp_reads(self, layer: int) -> Float[Tensor, "row hidden"]:
        """What the MLP of a layer reads."""
        return self._read(layer * (self.graph.n_heads + 1) + self.graph.n_heads, 1)[0]

    def answer_reads(self) -> Float[Tensor, "row hidden"]:
        """What the final norm reads."""
        return self._read(len(self.graph.receivers) - 1, 1)[0]

    def write_heads(self, heads: Float[Tensor, "head row hidden"], bias: Tensor | float = 0.0) -> None:
        """Adds what a layer's heads write, and the bias behind them, which is of no head and no reference."""
        self._writes += list(heads.float())
        self._constant = self._constant + bias

    def write_mlp(self, output: Float[Tensor, "row hidden"]) -> None:
        """Adds what a layer's MLP writes."""
        self._writes.append(output.float())

    def _read(self, first: int, n: int) -> Float[Tensor, "receiver row hidden"]:
        known = len(self._writes)
        own = self.weights[:known, first : first + n]
        base = self.reference[:known].sum(dim=0) + self._constant
        return torch.einsum("sv,srh->vrh", own, self.written - self.reference[:known]) + base
