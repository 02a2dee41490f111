"""What each node of a graph reads of the stream, on numbers small enough to add by hand."""

from __future__ import annotations

import torch

from interp.tracing.circuits.edge_graph import EdgeGraph
from interp.tracing.circuits.edge_stream import EdgeStream

IMAGE, TEXT, REFERENCE = 1.0, 10.0, 0.5
HEADS, MLPS, BIASES = (100.0, 2000.0), (1000.0, 20000.0), (3.0, 5.0)


def vector(value: float) -> torch.Tensor:
    """(row, hidden), of one row and one dimension."""
    return torch.full((1, 1), value)


def readings(weight: float) -> dict[str, float]:
    """What each node of two layers of one head reads when every edge has this weight."""
    graph = EdgeGraph(2, 1)
    embeddings = torch.stack([vector(IMAGE), vector(TEXT)])
    reference = torch.full((len(graph.sources), 1, 1), REFERENCE)
    stream = EdgeStream(graph, embeddings, reference, torch.full(graph.edges.shape, weight))
    found = {}
    for layer in range(2):
        found[f"head {layer}"] = stream.heads_read(layer).item()
        stream.write_heads(vector(HEADS[layer])[None], torch.tensor([BIASES[layer]]))
        found[f"MLP {layer}"] = stream.mlp_reads(layer).item()
        stream.write_mlp(vector(MLPS[layer]))
    return {**found, "answer": stream.answer_reads().item()}


def test_a_node_reads_what_was_written_before_and_biases() -> None:
    assert readings(1.0) == {"head 0": 11, "MLP 0": 114, "head 1": 1114, "MLP 1": 3119, "answer": 23119}


def test_without_edges_a_node_reads_the_reference_and_biases() -> None:
    assert readings(0.0) == {"head 0": 1, "MLP 0": 4.5, "head 1": 5, "MLP 1": 10.5, "answer": 11}
