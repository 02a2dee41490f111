"""Inputs and outputs of MLPs, several of them in one trace, against hooks on an eager model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from interp.tracing import MLP, Contrast, Decoding, Mllm, Residual, Rows, Site
from tests.tracing.reference_attention import greedy, layers_of

N = 3  # generated tokens


@contextmanager
def hooked(eager: Any) -> Iterator[dict[tuple[str, int], list[np.ndarray]]]:
    """(side, layer) → what each pass of the block gave the MLP, and what it returned, (position, hidden)."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    handles = []
    for i, layer in enumerate(layers_of(eager)):
        into, out = found.setdefault(("input", i), []), found.setdefault(("output", i), [])

        def keep(_: Any, given: Any, output: torch.Tensor, into: Any = into, out: Any = out) -> None:
            into.append(given[0][0].detach().numpy())
            out.append(output[0].detach().numpy())

        handles.append(layer.mlp.register_forward_hook(keep))
    yield found
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("executor", ["tap", "source"])
def test_each_read_has_its_side_layers_and_positions(
    mllm: Mllm, eager: Any, batch: Any, executor: Any
) -> None:
    reads = [
        MLP([2, 0], "question", "input"),
        MLP([1], "last", "input"),
        MLP([0], ("image", "last")),
        MLP([2, 1], "last"),
    ]
    trace = mllm.using(executor).trace(batch, reads=[*reads, Residual([1]), Rows(Site())])
    assert [one.name for one in trace[0].reads[:4]] == ["mlp_input", "mlp_input", "mlp_output", "mlp_output"]
    for i, tokens in enumerate(batch.tokens):
        with hooked(eager) as found, torch.no_grad():
            eager(**batch.singles[i].inputs)
        for read, own in zip(reads, trace[i].reads, strict=False):
            groups = [read.positions] if isinstance(read.positions, str) else list(read.positions)
            at = np.concatenate([tokens.positions(one) for one in groups])
            assert own.dims == ("layer", "position", "hidden")
            assert own["layer"].values.tolist() == list(read.layers)
            assert own["position"].values.tolist() == at.tolist()
            for layer in read.layers:
                assert_allclose(own.sel(layer=layer), found[read.side, layer][0][at], atol=1e-5)


def test_each_generated_token_is_read_and_no_second_stream(mllm: Mllm, eager: Any, batch: Any) -> None:
    reads = [MLP([1], "last", side) for side in ("input", "output")]
    trace = mllm.trace(batch, reads=reads, generate=N)
    with hooked(eager) as found:
        greedy(eager, batch.singles[1].inputs, N)
    for read, own in zip(reads, trace[1].reads, strict=True):
        assert own.dims == ("step", "layer", "position", "hidden")
        for step in range(own.sizes["step"]):
            assert_allclose(own[step, 0, 0], found[read.side, 1][step][-1], atol=1e-5)
    every = [*reads, Residual([1]), Rows(Site())]
    plain = mllm.trace(batch, reads=every)
    guided = mllm.trace(batch, reads=every, generate=1, decoding=Decoding(contrast=Contrast(1.0, None)))
    for one, other in zip(plain, guided, strict=True):
        for mine, same in zip(one.reads, other.reads, strict=True):
            assert_allclose(same[0], mine, atol=1e-5)


def test_streams_of_other_layers_stay_apart(mllm: Mllm, batch: Any) -> None:
    every = mllm.trace(batch, reads=[Residual("all", "question")])
    reads = [Residual([2], "question"), Residual([0], "question"), Residual([1, 0], "question")]
    for one, whole in zip(mllm.trace(batch, reads=reads), every, strict=True):
        for read, own in zip(reads, one.reads, strict=True):
            assert_allclose(own, whole.residual.sel(layer=list(read.layers)), atol=1e-6)
