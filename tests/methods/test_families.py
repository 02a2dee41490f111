"""Methods of each kind on every family: padding changes nothing, the method something."""

from __future__ import annotations

import numpy as np
import pytest

import interp
from interp.conformance.tiny import tiny
from interp.methods import PAI, AdaptVis, Method, Plain, VGRefine
from interp.tracing import Mllm, wrap
from tests.covering import every_family

SIZES = ((64, 80), (84, 140))
QUESTIONS = ("is there red?", "where is the nodule in the left lung?")
NAMES = ("VGRefine", "PAI", "AdaptVis")


@pytest.fixture(scope="module", params=every_family(maps="self"))
def mllm(request) -> Mllm:
    return wrap(*tiny(request.param))


def method(name: str, mllm: Mllm) -> Method:
    """A method of that name whose layers have a softmax in this model."""
    first, *rest = mllm.attention_layers
    second = rest[0] if rest else first
    return {
        "VGRefine": VGRefine([(second, 0), (first, 1)], layers=[second, *rest[1:2]]),
        "PAI": PAI(variant="paper"),
        "AdaptVis": AdaptVis(sure_weight=2.0),
    }[name]


@pytest.fixture(scope="module")
def plain(mllm) -> list[interp.Answer]:
    return Plain().answer(mllm, samples(), max_new_tokens=1)


def samples() -> list[interp.Sample]:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (*size, 3)).astype(np.uint8) for size in SIZES]
    return [interp.Sample(picture, q) for picture, q in zip(pictures, QUESTIONS, strict=True)]


@pytest.mark.by_default(mllm=("gemma3", "gemma4", "kimi_k25", "llava_onevision", "paligemma", "qwen2_5_vl"))
@pytest.mark.covering
@pytest.mark.parametrize("name", NAMES)
def test_a_padded_sample_answers_as_alone(mllm, plain, name):
    batch = samples()
    found = method(name, mllm).answer(mllm, batch, max_new_tokens=2)[0]  # the shorter question
    alone = method(name, mllm).answer(mllm, batch[:1], max_new_tokens=2)[0]
    np.testing.assert_allclose(found.logits, alone.logits, atol=5e-5)
    assert found.text == alone.text
    assert np.abs(found.logits - plain[0].logits)[np.isfinite(found.logits)].max() > 1e-4
