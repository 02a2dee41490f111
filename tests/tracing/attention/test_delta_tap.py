"""Hybrid models that cannot be read, and what else stands around their DeltaNet layers."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.conformance.tiny.decoders import FAMILIES, qwen3_5_config
from interp.conformance.tiny.kit import build
from interp.errors import MapError, MethodError, ModelError, SiteError, StudyError
from interp.methods.published_layers import editable_layers
from interp.tracing import Mllm, Rows, Site
from interp.tracing.layers.layer_work import rules
from tests.tiny import uneven_samples as samples

LINEAR = Rows(Site(layers="linear"))


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return interp.wrap(*tiny("qwen3_5"))


def test_a_forward_that_calls_no_rule_is_named():
    model, processor = tiny("qwen3_5")
    net = model.get_decoder().layers[1].linear_attn
    kind = type(net)
    net.__class__ = type(
        "Own", (kind,), {"forward": lambda self, *args, **options: kind.forward(self, *args, **options)}
    )
    with pytest.raises(ModelError, match=r"Own.forward does not call transformers' .* Name attention layers"):
        interp.wrap(model, processor).trace(samples()[:1], reads=[LINEAR])
    assert interp.wrap(*tiny("qwen3_5")).trace(samples()[:1], reads=[Rows(Site(layers="attention"))])


def test_weights_that_accelerate_fetches_are_named(mllm):
    net = mllm.installation.attentions[0]
    net.conv1d._hf_hook = object()
    try:
        with pytest.raises(ModelError, match=r"accelerate moves the weights .* without device_map"):
            mllm.trace(samples()[:1], reads=[LINEAR])
    finally:
        del net.conv1d._hf_hook


def test_a_model_without_any_softmax_is_refused():
    config = qwen3_5_config()
    config.text_config.layer_types = ["linear_attention"] * 8
    model = build(FAMILIES["qwen3_5"].model, config)
    with pytest.raises(ModelError, match=r"all 8 decoder layers of Qwen3_5.* are linear"):
        interp.wrap(model, tiny("qwen3_5")[1])


def test_the_rules_are_transformers_own(mllm):
    found = rules(mllm.installation.attentions[0])
    assert sorted(found) == ["torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"]


def test_rows_are_float32_under_autocast(mllm):
    plain = mllm.trace(samples()[:1], reads=[LINEAR])[0].rows
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = mllm.trace(samples()[:1], reads=[LINEAR])[0].rows
    assert cast.dtype == np.float32
    first = float(abs(cast[0] - plain[0]).max() / abs(plain[0]).max())
    assert 0 < first < 0.05


def test_a_deltanet_layers_rows_are_no_distribution(mllm):
    """Of each metric that needs one: refused as they are, taken where the positive part was chosen by name."""
    rows = mllm.trace(samples()[:1], reads=[LINEAR])[0].rows
    mask = np.arange(rows.sizes["token"]) < 3
    sliding = partial(interp.metrics.attention_ratio_sliding, grid=(3, 4))
    plain = ("attention_ratio", "kl_divergence", "kl_gain", "js_divergence")
    for metric in (sliding, *(getattr(interp.metrics, name) for name in plain)):
        with pytest.raises(MapError, match=r"weights of 'linear attention' are signed.*positive_part\(map\)"):
            metric(rows, mask)
        chosen = interp.metrics.positive_part(rows)
        assert chosen.name == "positive part of linear attention"
        np.testing.assert_array_equal(metric(chosen, mask), metric(np.maximum(rows.values, 0), mask))
    assert np.isfinite(interp.metrics.auroc(rows, mask)).all()


INDICATORS = (
    interp.indicators.Attention(layers=[0]),
    interp.indicators.Attention(layers="linear"),
    interp.indicators.AttentionGradient(layers="linear"),
    interp.indicators.AttributionPatching(layers=[0, 1]),
    interp.indicators.ValueWeightedAttention(layers="linear"),
)


@pytest.mark.parametrize("indicator", INDICATORS, ids=lambda one: f"{type(one).__name__} {one.layers}")
def test_indicators_of_attention_refuse_deltanet_layers(mllm, indicator):
    words = rf"^{type(indicator).__name__} needs layers with a softmax; .* softmax in layers \[3, 7\]"
    with pytest.raises(SiteError, match=words):
        indicator(mllm, samples()[:1])
    assert indicator.to_dict()["layers"] in ([0], [0, 1], "linear")


def test_layers_of_indicators_are_numbered_as_the_models(mllm):
    found = interp.indicators.Attention()(mllm, samples()[:1])[0]
    assert found.layer.values.tolist() == [3, 7]


def test_rollout_is_refused(mllm):
    with pytest.raises(MapError, match=re.escape("layers [0, 1, 2, 4, 5, 6] of this model are linear")):
        interp.indicators.Rollout()(mllm, samples()[:1])


def test_published_layers_are_those_with_a_softmax(mllm):
    """Layer 16 of 28 is 5 of 8, a DeltaNet: 3 and 7 are as near, the later is taken."""
    vgrefine, pai = interp.methods.VGRefine(heads=[(3, 0)]), interp.methods.PAI()
    assert vgrefine.masked_layers(8) == (5,)
    assert editable_layers(mllm, (5,), None) == (7,)
    assert editable_layers(mllm, (2, 3, 4, 5), None) == (3,)
    assert editable_layers(mllm, (5,), [5]) == (5,)
    (boost,) = pai.edits(mllm)
    assert boost.site.layers == (3, 7)
    assert interp.methods.ViCrop()._layer(mllm) in (3, 7)
    with pytest.raises(SiteError, match="VGRefine needs layers with a softmax"):
        interp.methods.VGRefine(heads=[(0, 0)]).head_maps(mllm, samples()[:1])
    with pytest.raises((SiteError, MethodError), match="softmax"):
        interp.methods.VGRefine(heads=[(3, 0)], layers=[0]).answer(mllm, samples()[:1])


def test_a_sweep_of_windows_blocks_layers_of_both_kinds(mllm):
    study = interp.KnockoutSweep(
        data=[one.replace(answer="yes") for one in samples()[:2]], window=3, stride=4
    )
    assert [window.layers for window in study.task(mllm)._windows] == [(0, 1), (3, 4, 5)]
    with pytest.raises(StudyError, match="mode='zero' sets weights of a softmax"):
        study.replace(mode="zero").task(mllm)


STUDIES = {
    "LayerSweep": lambda **kw: interp.LayerSweep(**kw).run,
    "KnockoutSweep": lambda **kw: interp.KnockoutSweep(**kw).run,
    "Refinement": lambda **kw: interp.Refinement(method=interp.methods.PAI(), **kw).run,
}


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_studies_run_and_number_layers_as_the_model_does(study, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (96, 160, 3), np.uint8)
    questions = ("where is the nodule?", "what is the lung?", "is it red?")
    data = [interp.Sample(image, one, boxes=[(10, 10, 60, 60)], answer="yes") for one in questions]
    result = STUDIES[study](model=interp.wrap(*tiny("qwen3_5_moe")), data=data)(out=tmp_path)
    assert len(result.failures) == 0
    if study != "Refinement":
        assert sorted(set(result.scores.layer)) == ([3] if study == "LayerSweep" else [0, 1, 2, 3])
