"""ScalingVis and AdaptVis against their formula in numpy on an eager model."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tests.tiny as tiny
from interp.errors import MethodError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT
from interp.methods import AdaptVis, Method, Plain, ScalingVis
from interp.tracing import Rows, ScaleScores, Site
from tests.methods.reference_generation import Steps, generated, on_last_rows

N = 4
ALL = [0, 1, 2]


def answered(eager, mllm, sample, weight: float, prompt=PAPER_PROMPT, layers=ALL) -> Steps:
    inputs = mllm.encode([sample], prompt).inputs
    scaled = on_last_rows(inputs, layers, lambda e: e * weight, decode=False)
    return generated(eager, inputs, N, scores=scaled)


def confidences(eager, mllm) -> list[float]:
    """The probability of the likeliest first token, by hand."""
    found = []
    for sample in tiny.samples():
        logits = generated(eager, mllm.encode([sample]).inputs, 1).logits[0].astype(np.float64)
        exponents = np.exp(logits - logits.max())
        found.append(float(exponents.max() / exponents.sum()))
    return found


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_rows_are_the_softmax_of_the_scaled_scores(mllm, eager, weight):
    """The first layer, whose queries and keys no edit reaches: the worked example."""
    for sample in tiny.samples():
        expected = answered(eager, mllm, sample, weight).attention[0][0, :, -1]
        plain = generated(eager, mllm.encode([sample]).inputs, 1).attention[0][0, :, -1]
        edits = ScalingVis(weight).edits(mllm)
        rows = mllm.trace([sample], edits=edits, reads=[Rows(Site(layers=[0], keys="all"))])[0].rows
        np.testing.assert_allclose(rows[0, :, 0], expected, atol=1e-6)
        assert np.abs(expected - plain).max() > 1e-3


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_answers_are_eagers_and_generated_rows_stay(mllm, eager, weight):
    samples, method = tiny.samples(), ScalingVis(weight)
    plain = mllm.trace(samples).logits.values
    trace = mllm.trace(samples, generate=N, edits=method.edits(mllm), reads=[Rows(Site())])
    for i, found in enumerate(method.answer(mllm, samples, max_new_tokens=N)):
        expected = answered(eager, mllm, samples[i], weight)
        np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)
        assert found.text == expected.text
        assert found.details == {"weight": weight}
        assert np.abs(found.logits - plain[i]).max() > 1e-3
        for step, attention in enumerate(expected.attention):
            rows = attention[:, :, -1, trace.tokens[i].image]
            np.testing.assert_allclose(trace[i].rows[step, :, :, 0], rows, atol=1e-6)


def test_adaptvis_takes_the_weight_of_its_side_of_the_threshold(mllm, eager):
    samples, sure = tiny.samples(), confidences(eager, mllm)
    low, middle, high = sorted(sure)
    for threshold in (low - 1e-3, (low + middle) / 2, (middle + high) / 2, high + 1e-3):
        method = AdaptVis(unsure_weight=0.5, sure_weight=2.0, threshold=threshold)
        found = method.answer(mllm, samples, max_new_tokens=N)
        for sample, c, one in zip(samples, sure, found, strict=True):
            weight = 0.5 if c < threshold else 2.0
            assert one.details["weight"] == weight
            assert one.details["confidence"] == pytest.approx(c, abs=1e-5)
            expected = answered(eager, mllm, sample, weight)
            np.testing.assert_allclose(one.logits, expected.logits[0], atol=1e-5)
            assert one.text == expected.text


def test_a_mixed_batch_answers_as_each_sample_alone(mllm, eager):
    middle = sorted(confidences(eager, mllm))[1]
    method = AdaptVis(threshold=middle + 1e-3)
    together = method.answer(mllm, tiny.samples(), max_new_tokens=N)
    assert {one.details["weight"] for one in together} == {0.5, 1.5}
    for sample, found in zip(tiny.samples(), together, strict=True):
        alone = method.answer(mllm, [sample], max_new_tokens=N)[0]
        np.testing.assert_allclose(found.logits, alone.logits, atol=1e-5)
        assert found.text == alone.text
        assert found.details["weight"] == alone.details["weight"]


def test_confidence_at_the_threshold_is_sure():
    assert AdaptVis().weight(0.4) == 1.5
    assert AdaptVis().weight(0.3999) == 0.5
    assert AdaptVis(decimals=2).weight(0.3999) == 1.5  # 0.40
    assert AdaptVis(decimals=2).weight(0.3949) == 0.5  # 0.39


def test_weight_one_is_the_plain_model_to_the_bit(mllm):
    plain = Plain().answer(mllm, tiny.samples(), max_new_tokens=N)
    found = ScalingVis(1.0).answer(mllm, tiny.samples(), max_new_tokens=N)
    np.testing.assert_array_equal([one.logits for one in found], [one.logits for one in plain])
    assert [one.text for one in found] == [one.text for one in plain]
    prefix = mllm.prefix(tiny.samples())
    plain = Plain().answer(mllm, prefix, max_new_tokens=N)
    found = AdaptVis(1.0, 1.0).answer(mllm, prefix, max_new_tokens=N)
    np.testing.assert_array_equal([one.logits for one in found], [one.logits for one in plain])
    assert [one.details["weight"] for one in found] == [1.0, 1.0, 1.0]


def test_samples_of_weight_one_are_plain_beside_others(mllm, eager):
    sure = confidences(eager, mllm)
    threshold = sorted(sure)[1] + 1e-3
    prefix = mllm.prefix(tiny.samples())
    plain = Plain().answer(mllm, prefix, max_new_tokens=N)
    found = AdaptVis(1.0, 2.0, threshold).answer(mllm, prefix, max_new_tokens=N)
    for one, other, c in zip(found, plain, sure, strict=True):
        same = np.array_equal(one.logits, other.logits)
        assert same == (c < threshold)


def test_the_prompt_is_honoured(mllm, eager):
    sample = tiny.samples()[0]
    expected = answered(eager, mllm, sample, 2.0, GENERIC_PROMPT)
    for method in (ScalingVis(2.0), AdaptVis(2.0, 2.0)):
        found = method.answer(mllm, [sample], prompt=GENERIC_PROMPT, max_new_tokens=1)[0]
        np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)


def test_adaptvis_costs_one_prefix_and_two_suffixes(mllm):
    samples = tiny.samples()
    assert AdaptVis().answer(mllm, samples, max_new_tokens=1)[0].cost.forwards == 3
    assert AdaptVis().answer(mllm, mllm.prefix(samples), max_new_tokens=1)[0].cost.forwards == 2
    assert ScalingVis(2.0).answer(mllm, samples, max_new_tokens=1)[0].cost.forwards == 1


def test_published_constants():
    method = AdaptVis()
    assert (method.unsure_weight, method.sure_weight, method.threshold) == (0.5, 1.5, 0.4)
    with pytest.raises(TypeError, match="weight"):
        ScalingVis()  # pyright: ignore[reportCallIssue]


def test_the_edit_tempers_the_prompts_last_row_in_every_layer(mllm):
    site = Site(layers="all", heads="all", queries="last", keys="image")
    assert ScalingVis(0.5).edits(mllm) == [ScaleScores(site, 0.5, steps="prefill")]


def test_they_are_methods_and_values():
    assert isinstance(AdaptVis(), Method)
    assert isinstance(ScalingVis(0.5), Method)
    assert {AdaptVis(), AdaptVis(threshold=0.4), ScalingVis(0.5)} == {AdaptVis(), ScalingVis(0.5)}
    assert json.loads(json.dumps(ScalingVis(0.5).to_dict())) == {"method": "ScalingVis", "weight": 0.5}
    assert json.loads(json.dumps(AdaptVis().to_dict())) == {
        "method": "AdaptVis",
        "unsure_weight": 0.5,
        "sure_weight": 1.5,
        "threshold": 0.4,
        "decimals": None,
    }


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        (ScalingVis, {"weight": -1}, "weight is a finite number of at least 0; got -1"),
        (ScalingVis, {"weight": True}, "weight is a finite number of at least 0; got True"),
        (AdaptVis, {"unsure_weight": -1}, "unsure_weight is a finite number of at least 0; got -1"),
        (AdaptVis, {"sure_weight": float("nan")}, "sure_weight is a finite number of at least 0; got nan"),
        (AdaptVis, {"threshold": 40}, "threshold is a finite number of at least 0 and at most 1; got 40"),
        (
            AdaptVis,
            {"decimals": 1.5},
            "decimals, where it is not None, is a whole number of at least 0; got 1.5",
        ),
    ],
)
def test_wrong_parameters_say_what_is_right(unchecked, method, wrong, message):
    with pytest.raises(MethodError, match=message):
        method(**wrong)
