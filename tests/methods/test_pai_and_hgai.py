"""PAI against its formula in numpy on an eager model."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.errors import MethodError, SiteError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.methods import HGAI, PAI, Method, Plain
from interp.tracing import Boost, Contrast, Decoding, Guide, Rows, Site
from tests.methods.reference_generation import Steps, generated, on_last_rows

N = 4
BOOST = PAI(alpha=0.7, layers=[1, 2], gamma=1.0)  # no guidance
WHOLE = PAI(alpha=0.7, layers=[1, 2])


def pai_answered(eager, mllm, sample, *, layers, alpha: float, gamma: float = 1.0, prompt=None) -> Steps:
    inputs = mllm.encode([sample], prompt or Prompt()).inputs
    boosted = on_last_rows(inputs, layers, lambda e: e + alpha * np.abs(e), decode=True)
    blind = inputs["input_ids"][:, inputs["input_ids"][0] != tiny.IMAGE_TOKEN]

    def guided(s: np.ndarray, ids: list[int]) -> np.ndarray:
        text = torch.cat([blind, torch.tensor([ids], dtype=torch.long)], dim=1)
        with torch.no_grad():
            u = BLIND(input_ids=text).logits[0, -1].numpy()
        return np.where(s < s.max() + np.log(0.1), -np.inf, gamma * (s - u) + u)

    return generated(eager, inputs, N, scores=boosted, guided=None if gamma == 1 else guided)


BLIND = tiny.llava("eager")  # its attention is written out elsewhere: it never runs inside `generated`


def test_rows_are_the_softmax_of_e_plus_alpha_abs_e(mllm, eager):
    """Layer 1 alone, so its queries and keys are those of the plain model: the worked example."""
    method = replace(BOOST, layers=[1])
    for sample in tiny.samples():
        inputs = mllm.encode([sample]).inputs
        expected = generated(
            eager,
            inputs,
            1,
            scores=on_last_rows(inputs, [1], lambda e: e + 0.7 * np.abs(e), decode=True),
        ).attention[0][1, :, -1]
        plain = generated(eager, inputs, 1).attention[0][1, :, -1]
        rows = mllm.trace([sample], edits=method.edits(mllm), reads=[Rows(Site(layers=[1], keys="all"))])[
            0
        ].rows[0, :, 0]
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        assert np.abs(expected - plain).max() > 1e-3


def test_a_row_of_pai_by_hand():
    """Two image tokens and one of text, e = (1, −1, 0.5), α = 0.5: e′ = (1.5, −0.5, 0.5)."""
    e = np.array([1.0, -1.0])
    boosted = e + 0.5 * np.abs(e)
    np.testing.assert_array_equal(boosted, [1.5, -0.5])
    weights = np.exp([*boosted, 0.5])
    np.testing.assert_allclose(weights / weights.sum(), [0.665241, 0.090031, 0.244728], atol=1e-6)


@pytest.mark.parametrize("gamma", [1.0, 1.1, 3.0])
def test_answers_and_logits_are_an_eager_models(mllm, eager, gamma):
    method = replace(WHOLE, gamma=gamma)
    samples = tiny.samples()
    plain = mllm.trace(samples).logits.values
    for i, found in enumerate(method.answer(mllm, samples, max_new_tokens=N)):
        expected = pai_answered(eager, mllm, samples[i], layers=[1, 2], alpha=0.7, gamma=gamma)
        assert_logits(found.logits, expected.logits[0])
        assert found.text == expected.text
        assert (1 < np.isfinite(found.logits).sum() < len(found.logits)) == (gamma != 1)
        assert np.abs(found.logits - plain[i])[np.isfinite(found.logits)].max() > 1e-3


def assert_logits(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal, and −∞ in the same places."""
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], atol=2e-5)


def test_every_generated_row_is_boosted_too(mllm, eager):
    sample = tiny.samples()[1]
    expected = pai_answered(eager, mllm, sample, layers=[1, 2], alpha=0.7)
    trace = mllm.trace([sample], generate=N, edits=BOOST.edits(mllm), reads=[Rows(Site())])
    assert trace[0].rows.sizes["step"] == len(expected.attention) > 1
    for step, attention in enumerate(expected.attention):
        rows = attention[:, :, -1, trace.tokens[0].image]
        np.testing.assert_allclose(trace[0].rows[step, :, :, 0], rows, atol=1e-6)


def test_a_batch_of_pai_answers_as_each_alone_and_on_a_prefix(mllm):
    samples = tiny.samples()
    together = WHOLE.answer(mllm, samples, max_new_tokens=N)
    shared = WHOLE.answer(mllm, mllm.prefix(samples), max_new_tokens=N)
    for sample, found, other in zip(samples, together, shared, strict=True):
        alone = WHOLE.answer(mllm, [sample], max_new_tokens=N)[0]
        for one in (alone, other):
            assert_logits(found.logits, one.logits)
            assert found.text == one.text


def test_no_boost_and_no_guidance_is_the_plain_model_to_the_bit(mllm):
    found = PAI(alpha=0, gamma=1).answer(mllm, tiny.samples(), max_new_tokens=N)
    plain = Plain().answer(mllm, tiny.samples(), max_new_tokens=N)
    np.testing.assert_array_equal([one.logits for one in found], [one.logits for one in plain])
    assert [one.text for one in found] == [one.text for one in plain]
    assert found[0].cost.forwards == plain[0].cost.forwards


def test_pai_honours_the_prompt(mllm, eager):
    sample = tiny.samples()[0]
    found = WHOLE.answer(mllm, [sample], prompt=GENERIC_PROMPT, max_new_tokens=1)[0]
    expected = pai_answered(eager, mllm, sample, layers=[1, 2], alpha=0.7, gamma=1.1, prompt=GENERIC_PROMPT)
    assert_logits(found.logits, expected.logits[0])


def test_guidance_costs_a_pass_without_the_image_per_token(mllm):
    samples = tiny.samples()
    guided, alone = (one.answer(mllm, samples, max_new_tokens=1)[0].cost for one in (WHOLE, BOOST))
    assert (guided.forwards, alone.forwards) == (2, 1)
    tokens = mllm.encode(samples).tokens
    assert guided.tokens - alone.tokens == len(tokens) * max(one.length - one.n for one in tokens)


def test_published_constants_and_layers_of_pai():
    assert PAI().strength == 0.2
    assert PAI(variant="paper").strength == 0.5
    assert PAI(variant="paper", alpha=0.3).strength == 0.3
    assert (PAI().gamma, PAI().cutoff) == (1.1, 0.1)
    assert PAI().boosted_layers(32) == tuple(range(2, 32))
    assert PAI().boosted_layers(28) == tuple(range(2, 28))
    assert PAI(layers=[0, 5]).boosted_layers(32) == (0, 5)


def test_guidance_is_as_strong_and_cuts_as_much_as_asked():
    assert PAI(gamma=1.5, cutoff=0.3).decoding == Decoding(contrast=Contrast(1.5, 0.3))
    assert PAI(gamma=1.0, cutoff=0.3).decoding == Decoding()


def test_the_edit_is_a_boost_of_the_last_row_in_every_pass(mllm):
    site = Site(layers=[0, 1, 2], heads="all", queries="last", keys="image")
    assert PAI().edits(mllm) == [Boost(site, 0.2, steps="all")]


def test_pai_is_a_method_and_a_value():
    assert isinstance(PAI(), Method)
    assert hash(PAI(layers=[1])) == hash(PAI(layers=(1,)))
    assert json.loads(json.dumps(PAI(layers=[1]).to_dict())) == {
        "method": "PAI",
        "variant": "code",
        "alpha": 0.2,
        "gamma": 1.1,
        "cutoff": 0.1,
        "layers": [1],
    }


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variant": "v2"}, "variant is 'code' or 'paper'; got 'v2'"),
        ({"alpha": -0.1}, "alpha is a finite number of at least 0; got -0.1"),
        ({"alpha": "0.5"}, "alpha is a finite number of at least 0; got '0.5'"),
        ({"gamma": float("inf")}, "gamma is a finite number; got inf"),
        ({"cutoff": 0}, "cutoff is a finite number above 0 and at most 1; got 0"),
        ({"cutoff": 1.5}, "cutoff is .* at most 1; got 1.5"),
        ({"layers": "all"}, r"or None for layers 2 … 31 of 32, scaled to the depth; got 'all'"),
        ({"layers": []}, "selects nothing.*Leave layers= out"),
    ],
)
def test_wrong_parameters_of_pai_say_what_is_right(unchecked, wrong, message):
    with pytest.raises(MethodError, match=message):
        PAI(**wrong)


def test_layers_the_model_lacks_for_pai(mllm):
    with pytest.raises(SiteError, match=r"the model has 3 layers, 0 … 2; got layer 31"):
        PAI(layers=[31]).answer(mllm, tiny.samples())


METHOD = HGAI(alpha=0.8, layers=[0, 1])


def guided(e: np.ndarray) -> np.ndarray:
    """Scores (head, row, token): every head of the layer gains 0.8 times the heads' mean size."""
    return e + 0.8 * sum(np.abs(head) for head in e) / len(e)


def hgai_answered(eager, mllm, sample, layers, prompt=PAPER_PROMPT) -> Steps:
    inputs = mllm.encode([sample], prompt).inputs
    return generated(eager, inputs, N, scores=on_last_rows(inputs, layers, guided, decode=True))


def test_a_row_of_hgai_by_hand():
    """Two heads, one image token: e = (1, −3), mean size 2, α = 0.8: (2.6, −1.4)."""
    np.testing.assert_allclose(guided(np.array([[[1.0]], [[-3.0]]]))[:, 0, 0], [2.6, -1.4])


def test_rows_are_the_softmax_of_the_guided_scores(mllm, eager):
    """Layer 1 alone, so its queries and keys are those of the plain model: the worked example."""
    edits = HGAI(alpha=0.8, layers=[1]).edits(mllm)
    for sample in tiny.samples():
        expected = hgai_answered(eager, mllm, sample, [1]).attention[0][1, :, -1]
        plain = generated(eager, mllm.encode([sample]).inputs, 1).attention[0][1, :, -1]
        rows = mllm.trace([sample], edits=edits, reads=[Rows(Site(layers=[1], keys="all"))])[0].rows
        np.testing.assert_allclose(rows[0, :, 0], expected, atol=1e-6)
        assert np.abs(expected - plain).max() > 1e-3


def test_answers_and_logits_are_an_eager_models_in_every_pass(mllm, eager):
    samples = tiny.samples()
    plain = mllm.trace(samples).logits.values
    trace = mllm.trace(samples, generate=N, edits=METHOD.edits(mllm), reads=[Rows(Site())])
    for i, found in enumerate(METHOD.answer(mllm, samples, max_new_tokens=N)):
        expected = hgai_answered(eager, mllm, samples[i], [0, 1])
        np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)
        assert found.text == expected.text
        assert np.abs(found.logits - plain[i]).max() > 1e-3
        assert found.details == {}
        for step, attention in enumerate(expected.attention):
            rows = attention[:, :, -1, trace.tokens[i].image]
            np.testing.assert_allclose(trace[i].rows[step, :, :, 0], rows, atol=1e-6)


def test_a_batch_of_hgai_answers_as_each_alone_and_on_a_prefix(mllm):
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


def test_hgai_honours_the_prompt(mllm, eager):
    sample = tiny.samples()[0]
    found = METHOD.answer(mllm, [sample], prompt=GENERIC_PROMPT, max_new_tokens=1)[0]
    expected = hgai_answered(eager, mllm, sample, [0, 1], GENERIC_PROMPT)
    np.testing.assert_allclose(found.logits, expected.logits[0], atol=1e-5)


def test_published_constants_and_layers_of_hgai(mllm):
    assert HGAI().alpha == 0.5
    assert HGAI().guided_layers(32) == tuple(range(5, 19))
    assert HGAI().guided_layers(28) == tuple(range(4, 17))
    assert HGAI(layers=[9]).guided_layers(32) == (9,)
    # 5/32 and 19/32 of 3 layers: 0.47 → 0, 1.78 → 2
    site = Site(layers=[0, 1], heads="all", queries="last", keys="image")
    assert HGAI().edits(mllm) == [Guide(site, 0.5, steps="all")]


def test_hgai_is_a_method_and_a_value():
    assert isinstance(HGAI(), Method)
    assert hash(HGAI(layers=[1])) == hash(HGAI(layers=(1,)))
    assert json.loads(json.dumps(HGAI().to_dict())) == {"method": "HGAI", "alpha": 0.5, "layers": None}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"alpha": -1}, "alpha is a finite number of at least 0; got -1"),
        ({"alpha": None}, "alpha is a finite number of at least 0; got None"),
        ({"layers": 5}, r"write layers=\[5\].*Leave layers= out for layers 5 … 18 of 32"),
    ],
)
def test_wrong_parameters_of_hgai_say_what_is_right(unchecked, wrong, message):
    with pytest.raises(MethodError, match=message):
        HGAI(**wrong)


def test_layers_the_model_lacks_for_hgai(mllm):
    with pytest.raises(SiteError, match=r"the model has 3 layers, 0 … 2; got layer 18"):
        HGAI(layers=[18]).answer(mllm, tiny.samples())
