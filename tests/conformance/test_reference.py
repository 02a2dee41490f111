"""The independent path itself: same weights, own config, eager attention, hiding by its own arithmetic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.conformance.reference import (
    Reference,
    RowGroup,
    at_least_float32,
    image_layers,
    reference,
    row_groups,
)
from interp.conformance.tiny import tiny
from interp.inputs.tokens import TokenMap
from interp.tracing import Mllm


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


def test_hooks_and_hidden_keys_are_gone_after_an_error(subject):
    inputs, eager = subject("llava").singles[0].inputs, subject("llava").eager
    before = eager.logits(inputs)
    with pytest.raises(ZeroDivisionError), eager.hiding(flags_of([4]), "renormalise"):
        raise ZeroDivisionError
    assert torch.equal(eager.logits(inputs), before)
    with pytest.raises(ZeroDivisionError), eager.hooked(lambda *_: None):
        raise ZeroDivisionError
    assert not any(one._forward_hooks for one in eager.attentions)


def test_passes_and_layers_are_counted(subject):
    eager, told = subject("llava").eager, []

    def hidden(layer: int, step: int, queries: int, keys: int) -> None:
        told.append((layer, step, queries == keys))

    inputs = subject("llava").singles[0].inputs
    with eager.hiding(hidden, "zero"):
        for _ in range(2):
            eager.logits(inputs)
    n = len(eager.attentions)
    assert told == [(layer, step, True) for step in (0, 1) for layer in range(n)]


def test_half_precision_becomes_float32_and_no_other():
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    found = [at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert found == [torch.float32] * 3 + [torch.float64]


def kinds_of(*kinds: str) -> Any:
    made: dict[str, Any] = {"layer_kinds": kinds}
    for name, own in (("attention_layers", "attention"), ("cross_layers", "cross")):
        made[name] = tuple(i for i, kind in enumerate(kinds) if kind == own)
    one: Any = type("Given", (Mllm,), made)
    return one.__new__(one)


def test_layers_are_grouped_by_their_keys():
    """Places count the layers with a softmax; layer 1 has none."""
    mllm = kinds_of("attention", "linear", "cross", "attention", "cross")
    assert row_groups(mllm) == [RowGroup((0, 3), (0, 2), "all"), RowGroup((2, 4), (1, 3), "image")]
    assert image_layers(mllm) == (2, 4)
    plain = kinds_of("attention", "linear", "attention")
    assert row_groups(plain) == [RowGroup((0, 2), (0, 1), "all")]
    assert image_layers(plain) == (0, 2)


def test_rows_of_a_group_are_over_the_prompt_or_the_image():
    """Five positions, 1 and 3 of them the image's. A sliding layer lacks its first columns, which are 0."""
    tokens = TokenMap(
        np.array([1, 3]),
        np.array([[0, 0, 1, 1], [1, 0, 2, 1.0]]),
        None,
        np.full(2, ""),
        np.zeros(2, int),
        ((2, 1),),
        5,
    )
    layers = [torch.arange(1.0, 6), torch.arange(10.0, 15), torch.tensor([7.0, 8, 9])]
    assert RowGroup((0, 5), (0, 2), "all").of(layers, tokens).tolist() == [[1, 2, 3, 4, 5], [0, 0, 7, 8, 9]]
    assert RowGroup((3,), (1,), "image").of(layers, tokens).tolist() == [[11, 13]]
    later = [torch.arange(1.0, 8), torch.tensor([7.0, 8, 9])]  # after two generated tokens
    assert RowGroup((0, 1), (0, 1), "all").of(later, tokens, step=2).tolist() == [
        [1, 2, 3, 4, 5],
        [0, 0, 0, 0, 7],
    ]


def test_only_layers_with_a_softmax_have_attention():
    class Attention(torch.nn.Module):
        pass

    def layer(name: str) -> torch.nn.Module:
        made = torch.nn.Module()
        made.add_module(name, Attention())
        return made

    layers = [layer("self_attn"), layer("linear_attn"), layer("cross_attn"), layer("self_attn")]
    kind: Any = type("Given", (Reference,), {"hf": None, "adapter": SimpleNamespace(layers=lambda _: layers)})
    found = kind.__new__(kind)
    assert found.numbers == [0, 2, 3]
    assert found.attentions == [layers[0].self_attn, layers[2].cross_attn, layers[3].self_attn]
