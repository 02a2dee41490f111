"""What tells one sparse coder from another, and weights and settings that make none."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from interp.errors import ModelError
from interp.tracing import Features
from tests.second_device import FIRST, second_devices

HIDDEN, N = 3, 2
THREE, TWO = torch.ones(HIDDEN), torch.ones(N)
SQUARE = torch.eye(HIDDEN)


def coder(**settings: Any) -> Features:
    weights = {
        "encoder": torch.ones(HIDDEN, N),
        "encoder_bias": TWO,
        "decoder": torch.ones(N, HIDDEN),
        "decoder_bias": THREE,
        "layer": 1,
    }
    return Features(**{**weights, **settings})


DIFFERENT: list[dict[str, Any]] = [
    {},
    {"encoder": 2 * torch.ones(HIDDEN, N)},
    {"encoder_bias": 2 * TWO},
    {"decoder": 2 * torch.ones(N, HIDDEN)},
    {"decoder_bias": 2 * THREE},
    {"layer": 2},
    {"centred": True},
    {"rectified": False},
    {"scaling": "constant_norm"},
    {"scaling": "layer_norm"},
    {"site": "mlp"},
    {"site": "mlp", "skip": SQUARE},
    {"site": "mlp", "skip": 2 * SQUARE},
    {"activation": "topk", "k": 1},
    {"activation": "topk", "k": 2},
    {"activation": "jumprelu", "threshold": TWO},
    {"activation": "jumprelu", "threshold": 2 * TWO},
    {"activation": "gated", "gate_bias": TWO, "log_scale": TWO},
    {"activation": "gated", "gate_bias": 2 * TWO, "log_scale": TWO},
    {"activation": "gated", "gate_bias": TWO, "log_scale": 2 * TWO},
]


def test_each_weight_and_setting_changes_the_digest() -> None:
    digests = [coder(**one).digest for one in DIFFERENT]
    assert len(set(digests)) == len(digests)
    assert coder(name="another").digest == digests[0]
    assert coder(name="another") == coder()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"activation": "jumprelu"}, 'only activation="jumprelu" takes threshold.*without threshold. Give it'),
    ({"threshold": TWO}, "with threshold. Leave it out"),
    ({"activation": "topk"}, "without k. Give it"),
    ({"k": 1}, "with k. Leave it out"),
    ({"activation": "gated", "gate_bias": TWO}, "without log_scale"),
    ({"activation": "gated", "log_scale": TWO}, "without gate_bias"),
    ({"activation": "topk", "k": 0}, "k is a whole number of at least 1 and at most 2; got 0"),
    ({"activation": "topk", "k": 3}, "at most 2; got 3"),
    ({"activation": "tanh"}, "activation is 'relu'"),
    ({"scaling": "unit"}, "scaling is 'none'"),
    ({"site": "heads"}, "site is 'residual'"),
    ({"layer": -1}, "layer is a whole number of at least 0; got -1"),
    ({"site": "mlp", "centred": True}, "got centred=True, scaling='none'"),
    ({"site": "mlp", "scaling": "layer_norm"}, "got centred=False, scaling='layer_norm'"),
    ({"skip": SQUARE}, r"only a transcoder .* has one; got shape \(3, 3\) with site='residual'"),
    ({"site": "mlp", "skip": torch.eye(2)}, r"skip is \(hidden, hidden\).*got shape \(2, 2\)"),
    ({"encoder_bias": THREE}, r"encoder_bias has one value for each feature, 2; got shape \(3,\)"),
    ({"decoder_bias": TWO}, r"decoder_bias has one value for each hidden, 3; got shape \(2,\)"),
    ({"activation": "jumprelu", "threshold": THREE}, "threshold has one value for each feature, 2"),
    ({"decoder": torch.ones(HIDDEN, N)}, r"an encoder \(hidden, feature\) and a decoder \(feature, hidden\)"),
    ({"decoder_bias": THREE * torch.inf}, "decoder_bias must hold finite numbers; it holds NaN or infinity"),
    ({"centred": 1}, "centred is"),
    ({"rectified": None}, "rectified is"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("settings", "said"), REFUSED)
def test_what_makes_no_coder_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        coder(**settings)


@pytest.mark.usefixtures("unchecked")
def test_decoding_needs_every_feature_and_a_skips_input() -> None:
    with pytest.raises(ModelError, match=r"activations of all 2 features .* got shape \(1, 3\)"):
        coder().decode(torch.ones(1, 3))
    skipping = coder(site="mlp", skip=2 * SQUARE, decoder_bias=torch.zeros(3))
    with pytest.raises(ModelError, match=r"adds a linear map of its input.*decode\(activations, stream\)"):
        skipping.decode(torch.ones(1, 2))
    # both features write (1, 1, 1), and the skip adds twice the input
    assert skipping.decode(torch.ones(1, 2), torch.tensor([[1.0, 0.0, -1.0]])).tolist() == [[4.0, 2.0, 0.0]]


def test_a_rescaled_stream_is_encoded_and_put_back_by_hand() -> None:
    """(3, 0, 4) has the norm 5, so the factor to the norm √3 is √3 / 5; its mean is 7/3, its variance 13/3."""
    stream, size = torch.tensor([[3.0, 0.0, 4.0]]), 5 / 3**0.5
    parts = {"encoder": SQUARE[:, [2, 0]], "encoder_bias": 0 * TWO, "decoder": 2 * SQUARE[[2, 0]]}
    bias = torch.tensor([0.5, 0.0, -0.5])
    own = coder(**parts, decoder_bias=bias, scaling="constant_norm", centred=True)
    active = own.encode(stream)
    assert active[0].tolist() == pytest.approx([4 / size + 0.5, 3 / size - 0.5])
    rebuilt = [(2 * (3 / size - 0.5) + 0.5) * size, 0.0, (2 * (4 / size + 0.5) - 0.5) * size]
    assert own.decode(active, stream)[0].tolist() == pytest.approx(rebuilt)
    assert own.steps(stream, torch.tensor([[10.0]]), [1])[0].tolist() == pytest.approx([20 * size, 0, 0])
    spread = (13 / 3) ** 0.5
    normed = coder(**parts, decoder_bias=0 * THREE, scaling="layer_norm")
    active = normed.encode(stream)
    assert active[0].tolist() == pytest.approx([5 / 3 / spread, 2 / 3 / spread], abs=1e-4)
    assert normed.decode(active, stream)[0].tolist() == pytest.approx([11 / 3, 7 / 3, 17 / 3], abs=1e-4)
    step = normed.steps(stream, torch.tensor([[1.0]]), [0])
    assert step[0].tolist() == pytest.approx([0, 0, 2 * spread])  # the mean is not added again


def test_a_coder_says_its_name_place_and_kind() -> None:
    assert repr(coder(name="mine")) == "Features('mine', layer 1, 2 features, relu)"
    assert repr(coder(activation="topk", k=2)) == "Features(layer 1, 2 features, topk 2)"


def test_a_digest_is_that_of_weights_and_settings_in_order() -> None:
    """Fields that came later count only where they are used, so that stored hashes stay."""
    own, hashed = coder(encoder=torch.arange(6.0).reshape(3, 2), layer=4), hashlib.sha256()
    for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
        weight = getattr(own, name)
        hashed.update(f"{name} {weight.shape}".encode() + weight.numpy().tobytes())
    settings = {"layer": 4, "activation": "relu", "threshold": None, "k": None, "gate_bias": None}
    settings |= {"log_scale": None, "centred": False, "rectified": True, "scaling": "none"}
    for name, value in settings.items():
        hashed.update(f"{name} {value}".encode())
    assert own.digest == hashed.hexdigest()


def test_a_coder_is_moved_once_and_learns_nothing() -> None:
    own = coder(encoder=torch.nn.Parameter(torch.ones(HIDDEN, N)))
    assert not own.encoder.requires_grad
    assert own.on(torch.device("cpu")) is own
    with second_devices():
        there = torch.zeros(1).to(FIRST).device
        moved = own.on(there)
        names = ("encoder", "encoder_bias", "decoder", "decoder_bias")
        assert {getattr(moved, name).device for name in names} == {there}
        assert own.on(there) is moved
    assert (moved.layer, moved.n_features) == (1, N)
