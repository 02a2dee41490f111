"""HGAI against its formula in numpy on an eager model."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tests.tiny as tiny
from interp.errors import MethodError, SiteError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT
from interp.methods import HGAI, Method, Plain
from interp.tracing import Guide, Rows, Site
from tests.methods.reference_generation import Steps, generated, on_last_rows

N = 4
METHOD = HGAI(alpha=0.8, layers=[0, 1])


def guided(e: np.ndarray) -> np.ndarray:
    """Scores (head, row, token): every head of the layer gains 0.8 times the heads' mean size."""
    return e + 0.8 * sum(np.abs(head) for head in e) / len(e)


def answered(eager, mllm, sample, layers, prompt=PAPER_PROMPT) -> Steps:
    inputs = mllm.encode([sample], prompt).inputs
    return generated(eager, inputs, N, scores=on_last_rows(inputs, layers, guided, decode=True))


def test_a_row_by_hand():
    """Two heads, one image token: e = (1, −3), mean size 2, α = 0.8: (2.6, −1.4)."""
    np.testing.assert_allclose(guided(np.array([[[1.0]], [[-3.0]]]))[:, 0, 0], [2.6, -1.4])


def test_rows_are_the_softmax_of_the_guided_scores(mllm, eager):
    """Layer 1 alone, so its queries and keys are those of the plain model: the worked example."""
    edits = HGAI(alpha=0.8, layers=[1]).edits(mllm)
    for sample in tiny.samples():
        expected = answered(eager, mllm, sample, [1]).attention[0][1, :, -1]
        plain = generated(eager, mllm.encode([sample]).inputs, 1).attention[0][1, :, -1]
        rows = mllm.trace([sample], edits=edits, reads=[Rows(Site(layers=[1], keys="all"))])[0].rows
        np.testing.assert_allclose(rows[0, :, 0], expected, atol=1e-6)
        assert np.abs(expected - plain).max() > 1e-3


def test_answers_and_logits_are_an_eager_models_in_every_pass(mllm, eager):
    samples = tiny.samples()
    plain = mllm.trace(samples).logits.values
    trace = mllm.trace(samples, generate=N, edits=METHOD.edits(mllm), reads=[Rows(Site())])
    for i, found in enumerate(METHOD.answer(mllm, samples, max_new_tokens=N)):
        expected = answered(eager, mllm, samples[i], [0, 1])
        np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)
        assert found.text == expected.text
        assert np.abs(found.logits - plain[i]).max() > 1e-3
        assert found.details == {}
        for step, attention in enumerate(expected.attention):
            rows = attention[:, :, -1, trace.tokens[i].image]
            np.testing.assert_allclose(trace[i].rows[step, :, :, 0], rows, atol=1e-6)


def test_a_batch_answers_as_each_sample_alone_and_on_a_prefix(mllm):
    samples = tiny.samples()
    together = METHOD.answer(mllm, samples, max_new_tokens=N)
    shared = METHOD.answer(mllm, mllm.prefix(samples), max_new_tokens=N)
    for sample, found, other in zip(samples, together, shared, strict=True):
        alone = METHOD.answer(mllm, [sample], max_new_tokens=N)[0]
        for one in (alone, other):
            np.testing.assert_allclose(found.logits, one.logits, atol=1e-5)
            assert found.text == one.text


def test_alpha_zero_is_the_plain_model_to_the_bit(mllm):
    found = HGAI(alpha=0).answer(mllm, tiny.samples(), max_new_tokens=N)
    plain = Plain().answer(mllm, tiny.samples(), max_new_tokens=N)
    np.testing.assert_array_equal([one.logits for one in found], [one.logits for one in plain])
    assert [one.text for one in found] == [one.text for one in plain]


def test_the_prompt_is_honoured(mllm, eager):
    sample = tiny.samples()[0]
    found = METHOD.answer(mllm, [sample], prompt=GENERIC_PROMPT, max_new_tokens=1)[0]
    expected = answered(eager, mllm, sample, [0, 1], GENERIC_PROMPT)
    np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)


def test_published_constants_and_layers(mllm):
    assert HGAI().alpha == 0.5
    assert HGAI().guided_layers(32) == tuple(range(5, 19))
    assert HGAI().guided_layers(28) == tuple(range(4, 17))
    assert HGAI(layers=[9]).guided_layers(32) == (9,)
    # 5/32 and 19/32 of 3 layers: 0.47 → 0, 1.78 → 2
    site = Site(layers=[0, 1], heads="all", queries="last", keys="image")
    assert HGAI().edits(mllm) == [Guide(site, 0.5, steps="all")]


def test_it_is_a_method_and_a_value():
    assert isinstance(HGAI(), Method)
    assert hash(HGAI(layers=[1])) == hash(HGAI(layers=(1,)))
    assert json.loads(json.dumps(HGAI().to_dict())) == {"method": "HGAI", "alpha": 0.5, "layers": None}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": -1}, "alpha is a finite number of at least 0; got -1"),
        ({"alpha": None}, "alpha is a finite number of at least 0; got None"),
        ({"layers": 5}, r"Write layers=\[5\] for one.*Leave layers= out for layers 5 … 18 of 32"),
    ],
)
def test_wrong_parameters_say_what_is_right(unchecked, wrong, message):
    with pytest.raises(MethodError, match=message):
        HGAI(**wrong)


def test_layers_the_model_lacks(mllm):
    with pytest.raises(SiteError, match=r"the model has 3 layers, 0 … 2; got layer 18"):
        HGAI(layers=[18]).answer(mllm, tiny.samples())
