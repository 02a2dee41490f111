from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import interp
import tests.tiny as tiny
from interp.errors import ModelError
from interp.tracing import Knockout, Rows, Site
from interp.tracing.executors.source import attention_call


@pytest.mark.parametrize(
    "edits",
    [
        [],
        [Knockout(Site(layers=[1], queries="after_image"))],
        [Knockout(Site(heads=[(0, 1), (2, 3)], queries="last"), mode="zero", steps="all")],
        [Knockout(Site(queries="all", keys=interp.positions([2, 3])))],  # most rows: a mask
    ],
)
def test_both_executors_do_the_same_bit_for_bit(mllm, batch, edits):
    reads = [Rows(Site(queries=("question", "last"), keys="all")), Rows(Site(heads=[(2, 0), (0, 3)]))]
    tap, source = (
        mllm.using(one).trace(batch, reads=reads, edits=edits, generate=3) for one in ("tap", "source")
    )
    assert source.answers == tap.answers
    assert np.array_equal(source.logits, tap.logits)
    for mine, its in zip(source, tap, strict=True):
        assert all(a.identical(b) for a, b in zip(mine.reads, its.reads, strict=True))


def test_both_count_the_same_passes(mllm, batch):
    costs = [mllm.using(one).trace(batch, generate=3).cost for one in ("tap", "source")]
    assert costs[0].forwards == costs[1].forwards == 3


def test_a_prefix_serves_both(mllm, batch):
    prefix = mllm.using("source").prefix(batch)
    reads = [Rows(Site(queries="after_image", keys="all"))]
    tap, source = (mllm.using(one).trace(prefix, reads=reads, generate=2) for one in ("tap", "source"))
    np.testing.assert_allclose(source.logits, tap.logits, atol=2e-5)
    np.testing.assert_allclose(source.rows, tap.rows, atol=2e-6)


def test_an_unknown_executor_is_refused(mllm, unchecked):
    with pytest.raises(ModelError, match='the executors are "tap" and "source"; got \'fast\''):
        mllm.using("fast")


def test_the_tap_stays_idle_under_source(mllm, batch, monkeypatch):
    armed = []
    monkeypatch.setattr("interp.tracing.executors.hooks.set_work", lambda module, work: armed.append(work))
    mllm.using("source").trace(batch, reads=[Rows()])
    assert not armed


def test_attention_without_the_interface_is_refused():
    class Plain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.softmax(-1)

    from nnsight import NNsight

    holder = nn.Sequential(Plain())
    with pytest.raises(ModelError, match=r"Plain\.forward does not call transformers' attention interface"):
        attention_call(NNsight(holder)[0])


def test_the_model_is_left_as_it_was():
    plain = tiny.llava()
    before = {module: type(module).forward for module in plain.modules()}
    wrapped = interp.wrap(plain, tiny.processor())
    wrapped.using("source").trace([tiny.sample()], reads=[Rows()])
    model = wrapped.unwrap()
    assert {module: type(module).forward for module in model.modules()} == before
    assert not any("forward" in module.__dict__ for module in model.modules())
