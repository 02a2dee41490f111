"""Gradients of rows of attention, in a padded batch after a prefix, against autograd through eager attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance.tiny import tiny
from interp.errors import ModelError
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Target, diff
from interp.tracing import Mllm, wrap
from interp.tracing.cost import Cost, Meter
from interp.tracing.gradients import RowGradients, input_function, recording, row_gradients
from interp.tracing.target import aims
from tests.tiny import uneven_samples as samples
from tests.tracing.reference_gradients import rows

LIKELIEST = Target()
TARGETS = {
    LIKELIEST: (),
    Target(diff("yes", "no")): ((1, "yes"), (-1, "no")),
    Target("yes no or", "mean"): ((1 / 3, "yes no or"),),
    Target(diff("red", "no is")): ((1, "red"), (-1, "no is")),
}


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "gemma3", "paligemma"])
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


@pytest.fixture(scope="module")
def eager(mllm) -> Any:
    return tiny(mllm.family, "eager")[0]


def run(
    mllm: Mllm, given: Any, target: Target = LIKELIEST, **options: Any
) -> tuple[list[RowGradients], Cost]:
    with Meter(mllm.device) as meter:
        layers = options.pop("layers", range(mllm.n_layers))
        found = list(row_gradients(mllm, given, target, PAPER_PROMPT, meter, layers=layers, **options))
    return found, meter.cost


def check(found: list[RowGradients], sample: int, expected: list[Any], layers: Any) -> None:
    """Rows to 2e-6; gradients, summed over passes for rows they share, to 1e-5 of the largest."""
    assert len(found) == len(expected)
    for one, (attention, gradient) in zip(found, expected, strict=True):
        mine = [one.of(sample, at) for at in range(len(layers))]
        np.testing.assert_allclose(np.stack([a for a, _ in mine]), attention[layers], atol=2e-6)
        scale = np.abs(gradient[layers]).max()
        assert scale > 1e-6
        np.testing.assert_allclose(np.stack([g for _, g in mine]), gradient[layers], atol=1e-5 * scale)


@pytest.mark.covering
@pytest.mark.parametrize("queries", ["last", "after_image"])
def test_every_target_is_eagers(mllm, eager, queries):
    for target, terms in TARGETS.items():
        if mllm.visibility.attends == "prefix" and any(" " in words for _, words in terms):
            with pytest.raises(ModelError, match="would be seen too"):
                run(mllm, samples(), target)
            continue
        found, cost = run(mllm, samples(), target, queries=queries)
        for i, sample in enumerate(samples()):
            expected = rows(mllm, eager, sample, terms, queries)
            if len(found) < len(expected):  # two answers of one token share a pass
                (attention, first), (_, second) = expected
                expected = [(attention, first + second)]
            check(found, i, expected, np.arange(mllm.n_layers))
        assert cost.backwards == len(found)
        if mllm.family in ("llava", "qwen2_5_vl"):
            assert cost.forwards == 1 + len(found), "a prefix, and what follows it"


def test_some_layers_some_prefixes_and_gradients_switched_off(mllm, eager):
    expected = rows(mllm, eager, samples()[1])
    prefixes = [mllm.prefix(samples(), stop=stop) for stop in ("image", "last")]
    other = mllm.prefix(samples(), GENERIC_PROMPT)  # begins as the paper's prompt does
    with torch.inference_mode():
        givens = [samples(), mllm.encode(samples()), *prefixes, other, mllm.prefix(samples())]
        for given in givens:
            found, cost = run(mllm, given, layers=[1, 2])
            check(found, 1, expected, [1, 2])
            if given in prefixes and mllm.visibility.attends != "prefix" and mllm.family != "gemma3":
                assert cost.forwards == 1, "the prefix is not run again"
    assert all(weight.grad is None and weight.requires_grad for weight in mllm.hf.parameters())
    assert not torch.is_inference(found[0].gradients[0])


def test_the_models_own_answer_of_several_tokens(mllm, eager):
    if mllm.visibility.attends == "prefix":
        return
    sample = samples()[1]
    ids = aims(mllm, mllm.encode(sample), Target(tokens=2))[0].answers[0]
    words = " ".join(mllm.processor.tokenizer.convert_ids_to_tokens(ids))
    found, cost = run(mllm, sample, Target(tokens=2))
    check(found, 0, rows(mllm, eager, sample, ((1, words),)), np.arange(mllm.n_layers))
    assert len(ids) == 2
    assert cost.forwards == 1 + 2 + 1, "a prefix, two tokens, and the pass that is differentiated"


def test_half_precision_gives_rows_in_float32():
    mllm = wrap(tiny("llava")[0].to(torch.bfloat16), tiny("llava")[1])
    (found,), _ = run(mllm, samples(), queries="after_image")
    whole, _ = run(wrap(*tiny("llava")), samples(), queries="after_image")
    for mine, exact in ((found.rows, whole[0].rows), (found.gradients, whole[0].gradients)):
        assert {one.dtype for one in mine} == {torch.float32}
        a, b = (torch.cat([one.flatten() for one in part]) for part in (mine, exact))
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.98


def test_what_cannot_be_differentiated_says_so():
    with torch.inference_mode():
        loaded = wrap(tiny("llava")[0].to(torch.bfloat16), tiny("llava")[1])
    with pytest.raises(ModelError, match=r"loaded under torch\.inference_mode\. Load the model outside"):
        run(loaded, samples())
    one, other = wrap(*tiny("llava")), wrap(*tiny("llava"))
    with pytest.raises(ModelError, match="this prefix was made by another model"):
        run(one, other.prefix(samples()))


def test_weights_ask_for_gradients_afterwards_as_before():
    """In the block none does; what was frozen stays so, after an error too."""
    one = wrap(*tiny("llava"))
    one.hf.lm_head.weight.requires_grad_(False)
    before = {name: weight.requires_grad for name, weight in one.hf.named_parameters()}
    assert set(before.values()) == {True, False}

    def fail():
        with torch.no_grad(), recording(one):
            assert torch.is_grad_enabled()
            assert not any(weight.requires_grad for weight in one.hf.parameters())
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert {name: weight.requires_grad for name, weight in one.hf.named_parameters()} == before


def test_only_the_last_row_is_differentiated_where_it_suffices():
    one, given = wrap(*tiny("llava")), samples()
    lengths = [tokens.length for tokens in one.encode(given).tokens]
    heads = [int(tokens.image[-1]) + 1 for tokens in one.encode(given).tokens]
    rests = [length - head for length, head in zip(lengths, heads, strict=True)]
    last, after = (run(one, given, queries=queries)[1].tokens for queries in ("last", "after_image"))
    assert last == 3 * (max(lengths) - 1) + 3
    assert after == 3 * max(heads) + 3 * max(rests)


@pytest.mark.parametrize("of", ["pixels", "embeddings"])
def test_inputs_of_a_model_in_half_precision_are_wide(of):
    hf, processor = tiny("llava")
    half = wrap(hf.to(torch.bfloat16), processor)
    with Meter(half.device) as meter:
        found = input_function(half, samples()[:1], LIKELIEST, None, meter, of=of)
        gradient = found.gradient(found.start)
    assert {found.start.dtype, gradient.dtype} == {torch.float32}
    assert float(gradient.abs().max()) > 0
    assert found.own(gradient, 0).shape == gradient.shape
