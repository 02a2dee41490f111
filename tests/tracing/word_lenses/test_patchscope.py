"""Patchscopes against plain forward hooks: one text pass with one vector put in, on transformers' own eager model."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import tests.trained_like as trained_like
from interp.conformance.reference import reference
from interp.conformance.tiny import tiny
from interp.errors import PromptError
from interp.tracing import wrap
from interp.tracing.word_lenses import Patchscope, read_words
from tests.tiny import uneven_samples as samples
from tests.tracing.word_lenses.hooked import Hooked

WORDS = ["red", "lung"]
PROMPT = "red - red , left - left , lung - lung , ?"
FAMILIES = ("llava", "gemma3", "qwen2_5_vl", "qwen3_vl", "paligemma", "lfm2_vl", "llama4", "gemma4")


@cache
def model(family: str) -> tuple[Any, Hooked]:
    if family == "deep":
        mllm = trained_like.wrapped(trained_like.deep())
        return mllm, Hooked("deep", reference(mllm.hf, mllm.adapter, "eager").hf)
    return wrap(*tiny(family), family), Hooked(family)


def check(family: str, lens: Patchscope, layers: tuple[int, ...], *, atol: float = 2e-5) -> None:
    """Scores, ranks and first words of the lens at two tokens of each sample are those of hooked passes."""
    mllm, hooked = model(family)
    found, tokenizer = read_words(mllm, samples()[:2], WORDS, lens), mllm.processor.tokenizer
    text = tokenizer(lens.prompt)["input_ids"]
    ids = [tokenizer.convert_tokens_to_ids(word) for word in WORDS]
    for one, sample in zip(found, samples(), strict=False):
        batch = mllm.encode(sample)
        streams = hooked.streams(**batch.inputs)[0][:, batch.tokens[0].image]
        for layer in layers:
            put = layer if lens.target_layer is None else lens.target_layer
            for token in (one.token.values[0], one.token.values[-1]):
                logits = hooked.patched(text, lens.position, put, streams[layer + 1, token])
                here = one.sel(layer=layer, token=token)
                assert_allclose(here.score, logits.log_softmax(dim=-1)[ids], atol=atol, err_msg=f"{layer}")
                order = logits.argsort(descending=True).tolist()
                assert here["rank"].values.tolist() == [order.index(i) for i in ids]
                assert here.top_word.values[0] == tokenizer.decode(order[:1]).strip()


@pytest.mark.by_default(family=["llava", "qwen3_vl"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_hook_at_the_last_token(family: str) -> None:
    last = model(family)[0].n_layers - 1
    check(family, Patchscope(PROMPT), (-1, 0, last - 1, last))


@pytest.mark.by_default(family=["llava"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_position_before_the_end_changes_what_follows(family: str) -> None:
    last = model(family)[0].n_layers - 1
    check(family, Patchscope(PROMPT + " - a", position=-3), (-1, 0, last))


def test_a_deep_model_with_huge_residuals_is_read_as_well() -> None:
    check("deep", Patchscope(PROMPT, layers=[-1, 2, 28, 29], n_tokens=3), (-1, 2, 28, 29), atol=2e-4)


@pytest.mark.parametrize("target_layer", [-1, 1, 2])
def test_vectors_of_any_layer_are_put_after_one(target_layer: int) -> None:
    check("llava", Patchscope(PROMPT, target_layer=target_layer, layers=[0, 2]), (0, 2))


def test_after_the_last_layer_it_is_the_logit_lens_as_well() -> None:
    mllm = model("llava")[0]
    put, plain = (read_words(mllm, samples(), WORDS, lens) for lens in (Patchscope(PROMPT), "logit"))
    for one, other in zip(put, plain, strict=True):
        assert_allclose(one.score.sel(layer=2), other.score.sel(layer=2), atol=1e-5)
        assert float(np.abs(one.score.sel(layer=0) - other.score.sel(layer=0)).max()) > 1e-3


def test_fewer_layers_and_tokens_have_the_same_scores() -> None:
    mllm = model("llava")[0]
    every, some = (
        read_words(mllm, samples(), WORDS, lens)
        for lens in (Patchscope(PROMPT), Patchscope(PROMPT, layers=[2, 0], n_tokens=5))
    )
    for one, other in zip(some, every, strict=True):
        assert one.layer.values.tolist() == [0, 2]
        assert one.token.values.tolist() == [1, 4, 8, 11, 14]
        assert (one.position == other.position.sel(token=one.token)).all()
        assert_allclose(one.score, other.score.sel(layer=[0, 2], token=one.token), atol=1e-6)


def test_half_precision_stays_near_single() -> None:
    mllm = wrap(tiny("llava")[0].to(torch.bfloat16), tiny("llava")[1])
    half, whole = (
        read_words(one, samples()[:1], WORDS, Patchscope(PROMPT)) for one in (mllm, model("llava")[0])
    )
    for layer in (-1, 0, 2):
        assert_allclose(half[0].score.sel(layer=layer), whole[0].score.sel(layer=layer), atol=0.15)


def test_what_makes_no_sense_is_refused(unchecked: None) -> None:
    mllm, one = model("llava")[0], samples()[:1]
    for make, said in (
        (
            lambda: Patchscope(" "),
            "prompt is a text, such as 'cat->cat; .*; got ' '",
        ),
        (lambda: Patchscope(position=True), "number of a token of the prompt, such as −1; got True"),
        (lambda: Patchscope(layers=[]), r"layers is 'all', or layers from −1 .*; got \[\]"),
        (lambda: Patchscope(layers=[-2]), r"layers is 'all', or layers from −1 .*; got \[-2\]"),
        (lambda: Patchscope(target_layer=0.5), "target_layer is a whole number of at least -1; got 0.5"),
        (lambda: Patchscope(layers="same"), "layers is 'all', or layers from −1 .*; got 'same'"),
        (lambda: Patchscope(target_layer=-2), "target_layer is a whole number of at least -1; got -2"),
        (lambda: Patchscope(position=0.0), "number of a token of the prompt, such as −1; got 0.0"),
        (
            lambda: read_words(mllm, one, WORDS, Patchscope(target_layer=3)),
            "has layers −1 to 2; .* target_layer=3",
        ),
        (lambda: read_words(mllm, one, WORDS, Patchscope("red", position=2)), "2 tokens; got position .2"),
        (lambda: read_words(mllm, one, WORDS, Patchscope("red", position=-3)), "2 tokens; got position .-3"),
        (lambda: Patchscope(n_tokens=0), "n_tokens is a whole number of at least 1; got 0"),
        (
            lambda: read_words(mllm, one, WORDS, Patchscope(layers=[3])),
            "has layers −1 to 2; got layers=.3. and",
        ),
        (lambda: read_words(mllm, one, WORDS, Patchscope("red", position=4)), "2 tokens; got position .4"),
        (lambda: read_words(mllm, one, ["pancreas"], Patchscope(PROMPT)), "one token; 'pancreas' is"),
    ):
        with pytest.raises(PromptError, match=said):
            make()
