"""A copy with shuffled weights: what is shuffled, what stays, and that the model itself is not touched."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers

import tests.tiny as tiny
from interp.errors import ModelError
from interp.tracing import Mllm, wrap
from interp.tracing.copies import randomised


def changed(a: Mllm, b: Mllm) -> set[str]:
    pairs = zip(a.hf.named_parameters(), b.hf.named_parameters(), strict=True)
    return {name for (name, first), (_, second) in pairs if not torch.equal(first, second)}


def test_nothing_shuffled_is_an_equal_copy(mllm: Mllm) -> None:
    state = torch.random.get_rng_state()
    made = randomised(mllm, 0)
    assert changed(mllm, made) == set()
    np.testing.assert_array_equal(made.trace(tiny.samples()).logits, mllm.trace(tiny.samples()).logits)
    weights = {weight.data_ptr() for weight in mllm.hf.parameters()}
    assert not weights & {weight.data_ptr() for weight in made.hf.parameters()}
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_top_of_the_decoder_is_shuffled_within_each_tensor(mllm: Mllm) -> None:
    """Half of three layers are the upper two; everything of one value, such as a norm's ones, cannot change."""
    before = {name: weight.clone() for name, weight in mllm.hf.named_parameters()}
    top, same = randomised(mllm, 0.5, seed=1), randomised(mllm, 0.5, seed=1)
    names = changed(mllm, top)
    assert {name.split("layers.")[1][0] for name in names if "language_model.layers." in name} == {"1", "2"}
    assert {name for name in names if "language_model.layers." not in name} == {"lm_head.weight"}
    assert changed(top, same) == set()
    assert changed(top, randomised(mllm, 0.5, seed=2)) == names
    own = dict(top.hf.named_parameters())
    for name in names:
        assert torch.equal(own[name].flatten().sort().values, before[name].flatten().sort().values)
    assert all(torch.equal(weight, before[name]) for name, weight in mllm.hf.named_parameters())


def test_randomising_every_layer_reaches_the_vision_tower(mllm: Mllm) -> None:
    whole, top = randomised(mllm, everything=True), randomised(mllm, 0.3)
    names = changed(mllm, whole)
    assert any("vision_tower" in name for name in names)
    assert any("embed_tokens" in name for name in names)
    shuffled, upper = dict(whole.hf.named_parameters()), dict(top.hf.named_parameters())
    for name in changed(mllm, top):
        assert torch.equal(shuffled[name], upper[name])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_between_0_and_1(mllm: Mllm, share: float) -> None:
    with pytest.raises(ModelError, match=r"share is a number in \[0, 1\]"):
        randomised(mllm, share)


def test_a_deep_copy_is_refused_with_advice(mllm: Mllm) -> None:
    with pytest.raises(ModelError, match=r"cannot be deep-copied: .* Load it again with interp\.load"):
        copy.deepcopy({"model": mllm})
    assert copy.copy(mllm).hf is mllm.hf


def test_an_output_layer_tied_to_the_embeddings_stays() -> None:
    config = tiny.config()
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = True
    model = transformers.LlavaForConditionalGeneration(config).eval()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    tied = wrap(model, tiny.processor())
    names = changed(tied, randomised(tied, 1.0))
    assert any("layers.0" in name for name in names)
    assert not any("embed_tokens" in name or "lm_head" in name for name in names)
    assert any("embed_tokens" in name for name in changed(tied, randomised(tied, everything=True)))
