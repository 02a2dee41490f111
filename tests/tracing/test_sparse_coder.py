"""Settings of sparse coders: what their hash holds, and what excludes what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from interp.errors import ModelError
from interp.tracing.sparse_coder import SparseCoder


def small(**changed: Any) -> SparseCoder:
    """Three features of two values."""
    given: dict[str, Any] = {"encoder": torch.ones(2, 3), "encoder_bias": torch.zeros(3), "layer": 1}
    given |= {"decoder": torch.ones(3, 2), "decoder_bias": torch.zeros(2)}
    return SparseCoder(**{**given, **changed})


GATED = {"activation": "gated", "gate_bias": torch.zeros(3), "log_scale": torch.zeros(3)}
OTHERS: list[dict[str, Any]] = [
    {"encoder": torch.zeros(2, 3)},
    {"encoder_bias": torch.ones(3)},
    {"decoder": torch.zeros(3, 2)},
    {"decoder_bias": torch.ones(2)},
    {"layer": 2},
    {"activation": "jumprelu", "threshold": torch.zeros(3)},
    {"activation": "jumprelu", "threshold": torch.ones(3)},
    {"activation": "topk", "k": 1},
    {"activation": "topk", "k": 2},
    {"activation": "topk", "k": 2, "rectified": False},
    GATED,
    {**GATED, "gate_bias": torch.ones(3)},
    {**GATED, "log_scale": torch.ones(3)},
    {"centred": True},
    {"scaling": "layer_norm"},
    {"scaling": "constant_norm"},
    {"site": "mlp"},
    {"site": "mlp", "skip": torch.zeros(2, 2)},
    {"site": "mlp", "skip": torch.ones(2, 2)},
]


def test_every_weight_and_setting_is_in_the_hash() -> None:
    found = {small(**one).digest for one in ({}, *OTHERS)}
    assert len(found) == len(OTHERS) + 1
    assert small(name="mine").digest == small().digest
    assert small(name="mine") == small() != small(layer=2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder": torch.ones(2, 3)}, r"an encoder \(hidden, feature\) and a decoder"),
        ({"encoder_bias": torch.zeros(2)}, "encoder_bias has one value for each feature, 3"),
        ({"decoder_bias": torch.zeros(3)}, "decoder_bias has one value for each hidden, 2"),
        ({**GATED, "gate_bias": torch.zeros(2)}, "gate_bias has one value for each feature, 3"),
        ({"threshold": torch.zeros(3)}, 'only activation="jumprelu" takes threshold'),
        ({"activation": "jumprelu"}, "without threshold. Give it"),
        ({"k": 1}, 'only activation="topk" takes k'),
        ({"activation": "topk"}, "without k. Give it"),
        ({"activation": "topk", "k": 4}, "k is"),
        ({"activation": "topk", "k": 0}, "k is"),
        ({"activation": "gated", "gate_bias": torch.zeros(3)}, "without log_scale. Give it"),
        ({"activation": "gated", "log_scale": torch.zeros(3)}, "without gate_bias. Give it"),
        ({"log_scale": torch.zeros(3)}, 'only activation="gated" takes log_scale'),
        ({"site": "mlp", "centred": True}, "nothing is rescaled; got centred=True"),
        ({"site": "mlp", "scaling": "layer_norm"}, "nothing is rescaled; got centred=False"),
        ({"skip": torch.zeros(2, 2)}, "only a transcoder"),
        ({"site": "mlp", "skip": torch.zeros(2, 3)}, r"skip is \(hidden, hidden\)"),
        ({"encoder": torch.full((2, 3), float("nan"))}, "encoder must hold finite numbers"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    changed: dict[str, Any], message: str, unchecked: None
) -> None:
    with pytest.raises(ModelError, match=message):
        small(**changed)


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
