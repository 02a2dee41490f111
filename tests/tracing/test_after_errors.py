"""An error inside leaves models, generators and hooks as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import tests.tiny as tiny
from interp.tracing import Mllm, wrap
from interp.tracing.circuits import _heads, _run_plain
from interp.tracing.cost import Meter
from interp.tracing.gradients import recording, replaced_input
from interp.tracing.layers.decoder_layers import RowsOfSharing, every_row
from interp.tracing.passes.streams import read_streams
from interp.tracing.trace import _seeded


@pytest.fixture(scope="module")
def model() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


def n_hooks(hf: Any) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in hf.modules())


def boom(*given: Any, **named: Any) -> Any:
    raise ValueError("boom")


def fails(call: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="boom"):
        call()


def test_weights_ask_for_gradients_again(model: Mllm) -> None:
    """Those that did before, and no others."""
    frozen = model.hf.lm_head.weight
    frozen.requires_grad_(False)
    before = [weight.requires_grad for weight in model.hf.parameters()]

    def block() -> None:
        with torch.no_grad(), recording(model):
            assert torch.is_grad_enabled()
            assert not any(weight.requires_grad for weight in model.hf.parameters())
            boom()

    fails(block)
    assert [weight.requires_grad for weight in model.hf.parameters()] == before
    frozen.requires_grad_(True)
    assert any(before)
    assert not all(before)


def test_a_replaced_input_is_its_own_again() -> None:
    layer = torch.nn.Identity()

    def block() -> None:
        with replaced_input(layer, lambda hidden: hidden + 1):
            assert float(layer(torch.zeros(1, 1, 1))) == 1
            boom()

    fails(block)
    assert float(layer(torch.zeros(1, 1, 1))) == 0


@pytest.mark.parametrize("module", ["interp.tracing.circuits", "interp.tracing.passes.streams"])
def test_passes_that_watch_layers_take_their_hooks_away(
    model: Mllm, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, meter, before = model.encode(tiny.sample()), Meter(model.device), n_hooks(model.hf)
    monkeypatch.setattr(f"{module}.run_pass", boom)
    if module.endswith("circuits"):
        fails(lambda: _run_plain(model, batch, meter))
    else:
        fails(lambda: read_streams(model, batch, [[0]], meter))
    assert n_hooks(model.hf) == before


def test_heads_of_a_circuit_take_their_hook_away(model: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = model.installation.layers[0]
    monkeypatch.setattr(layer.self_attn, "forward", boom)
    before = n_hooks(model.hf)
    fails(lambda: _heads(layer, torch.zeros(4, 1, 64), {}))
    assert n_hooks(model.hf) == before


def test_layers_without_keys_skip_rows_again() -> None:
    sharing = [RowsOfSharing(None, "sdpa") for _ in range(2)]

    def block() -> None:
        with every_row(sharing):
            assert all(one.every for one in sharing)
            boom()

    fails(block)
    assert not any(one.every for one in sharing)


def test_torchs_generator_goes_on_where_it_was() -> None:
    before = torch.random.get_rng_state()
    drawn = []

    def block() -> None:
        with _seeded(3):
            drawn.append(float(torch.rand(1)))
            boom()

    fails(block)
    fails(block)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert drawn[0] == drawn[1]
    with _seeded(None):
        torch.rand(1)
    assert not torch.equal(torch.random.get_rng_state(), before)
