"""The hash of a model's tensors: any byte, any place, any layout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interp.errors import ModelError
from interp.tracing.parameters.placement import execution_device
from interp.tracing.parameters.weights import (
    _sum_by_numpy,
    _sum_by_torch,
    content,
    modules_of,
    named_modules,
    named_tensors,
)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.float8_e4m3fn]
)
def test_any_byte_changes_the_hash(dtype):
    tensor = torch.zeros(131, dtype=dtype)  # no whole number of words
    seen = {content(tensor)}
    for place in (0, 1, 64, 129, 130):
        changed = tensor.clone()
        changed.view(torch.uint8)[place * tensor.element_size()] = 1
        seen.add(content(changed))
    assert len(seen) == 6


def test_order_shape_and_dtype_count():
    one = torch.arange(6.0)
    assert content(one) == content(one.clone())
    others = [
        one.flip(0),
        one[[1, 0, 2, 3, 4, 5]],
        one.reshape(2, 3),
        one.view(torch.int32),
        one[:5],
        one + 0.0,
    ]
    assert len({content(x) for x in (one, *others[:-1])}) == 6
    assert content(others[-1]) == content(one)


def test_where_a_tensor_lies_does_not_count():
    whole = torch.randn(7, 9)
    assert content(whole.T.contiguous().T) == content(whole)
    assert content(whole[1:]) == content(whole[1:].clone())  # begins within a word
    assert content(torch.zeros(0)) != content(torch.zeros(0, 1))


def test_blocks_are_joined(monkeypatch):
    tensor = torch.randn(1001)
    whole = content(tensor)
    for size in (1, 8, 500, 501):
        monkeypatch.setattr("interp.tracing.parameters.weights._WORDS", {"cpu": size})
        assert content(tensor) == whole


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 8 * 2**15, 8 * 2**15 + 13])
def test_numpy_and_torch_give_one_sum(n):
    data = torch.randint(0, 256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    assert _sum_by_numpy(data.numpy()) == _sum_by_torch(data)


def test_equal_words_in_other_places_are_told_apart():
    heads = torch.zeros(8, 64)
    seen = set()
    for head in range(8):
        one = heads.clone()
        one[head] = 2.0**8
        seen.add(content(one))
    assert len(seen) == 8


def test_quantised_tensors():
    weight = torch.randn(4, 4)
    one = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
    other = torch.quantize_per_tensor(weight, 0.1, 1, torch.qint8)
    channels = torch.quantize_per_channel(weight, torch.full((4,), 0.1), torch.zeros(4), 0, torch.qint8)
    assert len({content(x) for x in (one, other, channels)}) == 3
    assert content(one) == content(torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8))
    linear = torch.ao.nn.quantized.dynamic.Linear(4, 4)
    changed = torch.ao.nn.quantized.dynamic.Linear(4, 4)
    changed.set_weight_bias(one, None)
    prints = [[content(value) for _, value in named_tensors(x)] for x in (linear, changed, linear)]
    assert prints[0] == prints[2] != prints[1]


class Halves(torch.Tensor):
    """A tensor made of two, as torchao's are."""

    @staticmethod
    def __new__(cls, low, high):
        return torch.Tensor._make_wrapper_subclass(cls, low.shape, dtype=torch.float32)

    def __init__(self, low, high):
        self.low, self.high = low, high

    def __tensor_flatten__(self):
        return ["low", "high"], {"group": 2}

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError(function)


def test_tensors_made_of_others():
    one, two = torch.ones(3, dtype=torch.int8), torch.zeros(3, dtype=torch.int8)
    assert content(Halves(one, two)) == content(Halves(one.clone(), two))
    assert content(Halves(one, two)) != content(Halves(two, one))


def test_weights_without_values_are_refused():
    with torch.device("meta"):
        linear = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"the weight bias is on the meta device.*Load the model's weights"):
        list(named_tensors(linear))
    assert execution_device(linear).type == "meta"


def test_a_model_is_listed_as_torch_lists_it() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(
        shared, nn.Sequential(nn.ReLU(), shared), nn.ModuleList([nn.ModuleDict({"a": nn.ReLU()})])
    )
    model.register_module("absent", None)
    assert [(name, module) for module, name in named_modules(model).items()] == list(model.named_modules())
    found = modules_of(model)
    assert found[0] is model
    assert len(found) == len(set(found))
    assert set(found) == set(model.modules())
