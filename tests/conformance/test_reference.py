"""The independent path itself: same weights, own config, eager attention, hiding by its own arithmetic."""

from __future__ import annotations

import pytest
import torch

from interp.conformance.reference import reference
from interp.conformance.tiny import tiny


def flags_of(keys: list[int], heads: slice = slice(None)):
    """Hides keys from every row of every pass."""

    def hidden(layer: int, step: int, queries: int, n_keys: int):
        flags = torch.zeros(4, queries, n_keys, dtype=torch.bool)
        flags[heads, :, keys] = True
        return flags

    return hidden


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "gemma3"])
def test_it_computes_what_an_eager_model_of_the_same_seed_does(mllm, subject, family):
    expected, _ = tiny(family, "eager")
    inputs = subject(family).plain(0)
    with torch.no_grad():
        other = expected(**inputs, output_attentions=True)
    logits, kept = subject(family).eager.reading(inputs, lambda weights: weights)
    torch.testing.assert_close(logits, other.logits[:, -1], atol=1e-5, rtol=0)
    for mine, theirs in zip(kept, other.attentions, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_it_shares_every_tensor_and_no_config(mllm, family):
    original = mllm(family).hf
    made = reference(original, mllm(family).adapter, "eager")
    theirs = dict([*original.named_parameters(), *original.named_buffers()])
    mine = dict([*made.hf.named_parameters(), *made.hf.named_buffers()])
    assert set(mine) == set(theirs)
    assert all(tensor.data_ptr() == theirs[name].data_ptr() for name, tensor in mine.items())
    assert not any(tensor is theirs[name] for name, tensor in mine.items())  # a gradient stays with its model
    assert {a.config._attn_implementation for a in made.attentions} == {"eager"}
    assert all(a.config._attn_implementation == "interp_sdpa" for a in mllm(family).installation.attentions)
    assert not made.hf.training


def test_hiding_keys_from_every_row_is_an_attention_mask(subject):
    """With explicit positions, a key that no row sees might as well be padding."""
    inputs, eager = subject("llava").singles[0].inputs, subject("llava").eager
    keys = [4, 5, 9]
    mask = inputs["attention_mask"].clone()
    mask[:, keys] = 0
    expected = eager.logits({**inputs, "attention_mask": mask})
    with eager.hiding(flags_of(keys), "renormalise"):
        found = eager.logits(inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (eager.logits(inputs) - found).abs().max() > 1e-2  # and it is over when the block is


def test_zero_takes_the_mass_and_leaves_the_rest(subject):
    inputs, eager = subject("llava").singles[0].inputs, subject("llava").eager
    plain = eager.reading(inputs, lambda weights: weights[0, :, -1])[1][0]
    with eager.hiding(flags_of([4, 5], slice(1, 2)), "zero"):
        found = eager.reading(inputs, lambda weights: weights[0, :, -1])[1][0]
    expected = plain.clone()
    expected[1, [4, 5]] = 0
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)
    assert plain[1, [4, 5]].min() > 0


def test_hiding_nothing_changes_nothing(subject):
    inputs, eager = subject("llava").singles[0].inputs, subject("llava").eager
    for mode in ("renormalise", "zero"):
        with eager.hiding(lambda *_: None, mode):
            assert torch.equal(eager.logits(inputs), eager.logits(inputs))
