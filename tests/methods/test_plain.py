"""The plain model's answers, and what every method checks."""

from __future__ import annotations

import numpy as np
import pytest

import interp
import tests.tiny as tiny
from interp.errors import MethodError
from interp.inputs.prompt import GENERIC_PROMPT
from interp.methods import Answer, Method, Plain


def test_answers_are_the_models_own(mllm):
    samples = tiny.samples()
    trace = mllm.trace(samples, generate=3)
    found = Plain().answer(mllm, samples, max_new_tokens=3)
    assert all(isinstance(one, Answer) for one in found)
    assert [one.text for one in found] == trace.answers
    np.testing.assert_array_equal([one.logits for one in found], trace.logits)
    assert found[0].logits.dtype == np.float32
    assert {one.cost.forwards for one in found} == {trace.cost.forwards}
    assert [dict(one.details) for one in found] == [{}, {}, {}]


def test_the_prompt_is_honoured_and_a_prefix_serves(mllm):
    samples = tiny.samples()
    generic = mllm.trace(samples, prompt=GENERIC_PROMPT).logits
    found = Plain().answer(mllm, mllm.prefix(samples), prompt=GENERIC_PROMPT, max_new_tokens=1)
    np.testing.assert_allclose([one.logits for one in found], generic, atol=1e-5)


def test_it_is_a_method_and_a_value():
    assert isinstance(Plain(), Method)
    assert Plain() == interp.methods.Plain()
    assert Plain().name == "Plain"
    assert Plain().to_dict() == {"method": "Plain"}


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_an_answer_has_a_token(mllm, unchecked, n):
    with pytest.raises(MethodError, match=r"whole number of at least 1.*got " + str(n)):
        Plain().answer(mllm, tiny.samples(), max_new_tokens=n)
