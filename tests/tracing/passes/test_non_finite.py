"""A model that gives NaN or infinity: an error that names the sample and the module, never an answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp import Contrast, Decoding, Residual, Rows, Site, Target
from interp.errors import InterpError, MapError, ModelError
from interp.indicators import (
    Attention,
    AttentionGradient,
    AttributionPatching,
    InputGradient,
    Occlusion,
    Rollout,
    TokenKnockout,
    ValueWeightedAttention,
)
from interp.indicators.maps import label_map
from interp.tracing import Mllm, wrap
from interp.tracing.variants.knockouts import Knockouts, KnockoutVariant

POISON = "nodule"


@pytest.fixture(scope="module")
def sick() -> Mllm:
    """A model whose second layer is NaN."""
    model = copy.deepcopy(tiny.llava())
    torch.nn.init.constant_(model.model.language_model.layers[1].self_attn.q_proj.weight, math.nan)
    return wrap(model, tiny.processor())


SAMPLE = tiny.samples()[0]
USES: dict[str, Callable[[Mllm], Any]] = {
    "logits": lambda mllm: mllm.trace([SAMPLE]),
    "a greedy answer": lambda mllm: mllm.trace([SAMPLE], generate=2),
    "a drawn answer": lambda mllm: mllm.trace([SAMPLE], generate=2, seed=0, decoding=Decoding(0.5)),
    "by source": lambda mllm: mllm.using("source").trace([SAMPLE], generate=2),
    "rows": lambda mllm: mllm.trace([SAMPLE], reads=[Rows(Site(layers=[0]))]),
    "a score": lambda mllm: mllm.score([SAMPLE], Target("yes")),
    "a score of several tokens": lambda mllm: mllm.score([SAMPLE], Target("yes no")),
    "a greedy score": lambda mllm: mllm.score([SAMPLE]),
    "a prefix": lambda mllm: mllm.prefix([SAMPLE]),
    "knockouts": lambda mllm: Knockouts.of(mllm, SAMPLE).plain,
    "an edit": lambda mllm: mllm.trace([SAMPLE], edits=KnockoutVariant((0,), (9,), (1,)).edits("zero")),
    **{
        type(one).__name__: lambda mllm, one=one: one(mllm, [SAMPLE])
        for one in (
            *(Attention(), ValueWeightedAttention(), Rollout(), AttentionGradient(), AttributionPatching()),
            *(TokenKnockout(), Occlusion()),
        )
    },
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nan_is_no_answer_and_its_module_is_named(sick: Mllm, use: Callable[[Mllm], Any]) -> None:
    message = (
        r"hold NaN or infinity in torch\.float32: they begin in \S*layers\.1\.self_attn\.q_proj \(Linear\)"
    )
    with pytest.raises(
        ModelError, match=rf"of sample {SAMPLE.id} {message}\. Are the model's weights damaged"
    ):
        use(sick)


def test_gradients_that_are_nan_are_no_map(sick: Mllm) -> None:
    with pytest.raises(MapError, match=r"the map of gradient holds NaN or infinity.*float32"):
        InputGradient(times_input=False)(sick, [SAMPLE])


def test_only_the_sample_at_fault_is_named() -> None:
    model = copy.deepcopy(tiny.llava())
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny.WORDS.index(POISON)] = math.nan
    mllm = wrap(model, tiny.processor())
    samples = [
        SAMPLE.replace(question=f"where is the {word}?", id=word) for word in ("lung", POISON, "circle")
    ]
    with pytest.raises(ModelError, match=rf"of sample {POISON} .* begin in \S*embed_tokens \(Embedding\)"):
        mllm.trace(samples)
    assert np.isfinite(mllm.trace([samples[0], samples[2]]).logits.values).all()


def test_overflow_in_half_precision_advises_another_dtype() -> None:
    model = copy.deepcopy(tiny.llava())
    model.model.multi_modal_projector.linear_2.weight.data.mul_(1e8)
    mllm = wrap(model.half(), tiny.processor())
    with pytest.raises(
        ModelError, match=r"begin in \S*linear_2 \(Linear\)\. Does the model overflow .*'float32'"
    ):
        mllm.trace([SAMPLE], generate=1)


def test_nan_after_some_tokens_is_no_answer() -> None:
    model = copy.deepcopy(tiny.llava())
    mllm = wrap(model, tiny.processor())
    first = int(mllm.trace([SAMPLE]).logits.values[0].argmax())
    assert first not in mllm.encode([SAMPLE]).inputs["input_ids"]
    with torch.no_grad():
        model.get_input_embeddings().weight[first] = math.nan
    assert len(mllm.trace([SAMPLE], generate=1).answers) == 1
    with pytest.raises(ModelError, match=r"hold NaN or infinity .*the prompt alone, run plainly, is finite"):
        mllm.trace([SAMPLE], generate=3)


@pytest.fixture
def headed() -> Callable[[Callable[[torch.Tensor], torch.Tensor]], Mllm]:
    """Wraps the tiny model with a function after its output layer."""
    model = copy.deepcopy(tiny.llava())

    def make(change: Callable[[torch.Tensor], torch.Tensor]) -> Mllm:
        model.lm_head.register_forward_hook(lambda module, given, output: change(output.clone()))
        return wrap(model, tiny.processor())

    return make


def masked(logits: torch.Tensor) -> torch.Tensor:
    logits[..., :10] = -math.inf
    return logits


def test_tokens_masked_on_purpose_are_no_fault(headed: Any) -> None:
    mllm = headed(masked)
    found = mllm.trace([SAMPLE], generate=2)
    assert np.isneginf(found.logits.values[0, :10]).all()
    assert int(found.logits.values[0].argmax()) >= 10
    assert np.isfinite(mllm.score([SAMPLE]).values).all()
    guided = mllm.trace([SAMPLE], generate=2, decoding=Decoding(contrast=Contrast(cutoff=None)))
    assert np.isneginf(guided.logits.values[0, :10]).all()
    assert np.isfinite(guided.logits.values[0, 10:]).all()


def test_infinity_and_nothing_but_masked_tokens_are_faults(headed: Any) -> None:
    def infinite(logits: torch.Tensor) -> torch.Tensor:
        logits[..., 3] = math.inf
        return logits

    with pytest.raises(ModelError, match=r"begin in lm_head \(Linear\)"):
        headed(infinite).trace([SAMPLE], generate=1)


def test_nothing_but_masked_tokens_is_a_fault(headed: Any) -> None:
    with pytest.raises(InterpError, match="hold NaN or infinity"):
        headed(lambda logits: logits - math.inf).trace([SAMPLE], generate=1)


def test_vectors_that_reach_no_logits_are_looked_at_too() -> None:
    model = copy.deepcopy(tiny.llava())
    mllm = wrap(model, tiny.processor())
    position = int(mllm.encode([SAMPLE]).tokens[0].positions("text")[2])

    def spoil(module: Any, given: Any, output: Any) -> Any:
        whole = output if isinstance(output, torch.Tensor) else output[0]
        whole[:, position] = math.inf
        return output

    layers = model.model.language_model.layers
    layers[-1].register_forward_hook(spoil)
    assert np.isfinite(mllm.trace([SAMPLE]).logits.values).all()
    with pytest.raises(ModelError, match=rf"residual streams of sample {SAMPLE.id} .*layers\.\d"):
        mllm.trace([SAMPLE], reads=[Residual(positions="all")])


def test_a_map_that_is_not_finite_is_refused(mllm: Mllm) -> None:
    tokens = mllm.encode([SAMPLE]).tokens[0]
    with pytest.raises(MapError, match="the map of mine holds NaN or infinity"):
        label_map(np.full(tokens.n, math.inf), tokens, "mine")
