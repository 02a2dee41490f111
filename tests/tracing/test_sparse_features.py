"""How a sparse coder with known weights encodes, and which features a part of it holds."""

from __future__ import annotations

from typing import Any

import torch

from interp.tracing.sparse_coder import SparseCoder


def small(**changed: Any) -> SparseCoder:
    """Three features of two values."""
    given: dict[str, Any] = {"encoder": torch.ones(2, 3), "encoder_bias": torch.zeros(3), "layer": 1}
    given |= {"decoder": torch.ones(3, 2), "decoder_bias": torch.zeros(2)}
    return SparseCoder(**{**given, **changed})


GATED = {"activation": "gated", "gate_bias": torch.zeros(3), "log_scale": torch.zeros(3)}


def test_features_are_active_above_their_threshold_alone() -> None:
    """x·W is 1, 2 and 3 for the three features."""
    encoder = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    stream = torch.tensor([1.0, 5.0])
    jumps = small(encoder=encoder, activation="jumprelu", threshold=torch.tensor([1.0, 1.9, -1.0]))
    assert jumps.encode(stream).tolist() == [0, 2, 3]
    assert jumps.encode(-stream).tolist() == [0, 0, 0]
    top = small(encoder=encoder, activation="topk", k=2)
    assert top.encode(stream).tolist() == [0, 2, 3]
    assert top.encode(stream, [2, 0]).tolist() == [3, 0]
    assert top.encode(-stream).tolist() == [0, 0, 0]
    signed = small(encoder=encoder, activation="topk", k=2, rectified=False)
    assert signed.encode(-stream).tolist() == [-1, -2, 0]
    gated = small(encoder=encoder, **{**GATED, "gate_bias": torch.tensor([-1.0, -1.0, 1.0])})
    assert gated.encode(stream).tolist() == [0, 2, 3]


def test_a_part_of_a_coder_has_its_features_in_this_order() -> None:
    bias = torch.tensor([1.0, 2.0, 3.0])
    whole = small(
        encoder_bias=bias,
        activation="jumprelu",
        threshold=bias - 1,
        decoder=bias[:, None] + torch.zeros(3, 2),
    )
    part = whole.part([2, 0])
    assert (part.encoder_bias.tolist(), part.n_features, part.layer) == ([3, 1], 2, 1)
    assert part.threshold is not None
    assert part.threshold.tolist() == [2, 0]
    assert part.decoder[:, 0].tolist() == [3, 1]
    assert whole.part() == whole
    top = small(activation="topk", k=1)
    assert top.part([0]).n_features == 3
