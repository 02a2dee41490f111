"""A model's identity changes with what numbers depend on, and with nothing else; so does the hash of its tensors."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

import pytest
import torch

import tests.tiny as tiny
from interp.conformance.tiny import tiny as tiny_of
from interp.models.adapter import built_in
from interp.models.families.llava import Llava
from interp.models.refusals import AnswersOnly
from interp.tracing import wrap
from interp.tracing.parameters.fingerprint import (
    _code,
    _family,
    _sum_by_numpy,
    _sum_by_torch,
    content,
    named_tensors,
)
from tests.covering import every_family


@pytest.fixture
def own():
    """A model that the test may change."""
    return wrap(tiny.llava(), tiny.processor())


def differ(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """The parts of two identities that are not the same."""
    return {name for name in before if before[name] != after[name]}


def attention(mllm):
    return mllm.installation.attentions[0]


def zero_a_head_by_data(mllm):
    attention(mllm).o_proj.weight.data[:, :8] = 0  # does not count as a change of the tensor's version


def one_ulp(mllm):
    with torch.no_grad():
        weight = mllm.hf.lm_head.weight
        weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))


def swap_heads(mllm):
    with torch.no_grad():
        attention(mllm).o_proj.weight.copy_(attention(mllm).o_proj.weight.roll(8, dims=1))


def by_numpy(mllm):
    mllm.hf.lm_head.weight.detach().numpy()[0, 0] += 1


def stretch_positions(mllm):
    mllm.hf.get_decoder().rotary_emb.inv_freq /= 2


def stored_scale(mllm):
    attention(mllm).scaling = 1.0


def activation(mllm):
    mllm.installation.layers[0].mlp.act_fn = torch.nn.ReLU()


def activation_function(mllm):
    mllm.hf.model.language_model.layers[0].mlp.forward = lambda x: x


def config_entry(mllm):
    mllm.hf.config.text_config.rope_theta = 5.0


def end_token(mllm):
    mllm.hf.generation_config.eos_token_id = 7


def pixels(mllm):
    mllm.processor.image_processor.image_mean = [0.1, 0.2, 0.3]


def template(mllm):
    mllm.processor.chat_template = "{{ messages }}"


def patch_size(mllm):
    mllm.processor.patch_size = 99


def pre_hook(mllm):
    attention(mllm).register_forward_pre_hook(lambda module, args: None)


def hook(mllm):
    mllm.installation.layers[1].register_forward_hook(lambda module, args, output: output)


CHANGES = {
    zero_a_head_by_data: {"weights"},
    one_ulp: {"weights"},
    swap_heads: {"weights"},
    by_numpy: {"weights"},
    stretch_positions: {"weights"},
    stored_scale: {"modules"},
    activation: {"modules"},
    activation_function: {"hooks"},
    config_entry: {"config"},
    end_token: {"config"},
    pixels: {"processor"},
    template: {"processor"},
    patch_size: {"processor"},
    pre_hook: {"hooks"},
    hook: {"hooks"},
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_numbers_depend_on_is_part_of_it(own, change):
    before, fingerprint = own.identity, own.fingerprint
    change(own)
    assert differ(before, own.identity) == CHANGES[change]
    assert own.fingerprint != fingerprint


def scaled(factor, module, args, output):
    return output * factor


def scaler(factor):
    return lambda module, args, output: output * factor


def test_hooks_are_known_by_what_they_do(own):
    layer = own.installation.layers[0]

    def under(function):
        handle = layer.register_forward_hook(function)
        found = own.identity["hooks"]
        handle.remove()
        return found

    assert under(scaler(2.0)) == under(scaler(2.0))
    hooks = [scaler(2.0), scaler(3.0), partial(scaled, 2.0), partial(scaled, 3.0), tiny.llava]
    assert len({under(function) for function in hooks}) == 5
    waves = [lambda module, args, output: output.sin(), lambda module, args, output: output.cos()]
    assert under(waves[0]) != under(waves[1])  # equal but for a name
    assert own.identity["hooks"] == "none"
    assert "model.language_model.layers.0 forward_hooks: " in under(scaler(2.0))
    assert "test_fingerprint.scaler" in under(scaler(2.0))


def test_hooks_of_all_modules_count(own):
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, args, output: None)
    try:
        assert "all modules forward_hooks" in own.identity["hooks"]
    finally:
        handle.remove()
    assert own.identity["hooks"] == "none"


def test_a_forward_of_ones_own_counts_before_and_after_wrapping():
    hf = tiny.llava()
    mlp = hf.model.language_model.layers[0].mlp
    mlp.forward = lambda x: x
    assert "layers.0.mlp forward: " in wrap(hf, tiny.processor()).identity["hooks"]


def test_autocast_counts(own):
    plain = own.identity
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert differ(plain, own.identity) == {"autocast"}


class Lora(torch.nn.Module):
    """A layer as PEFT makes them: what it does is in plain attributes."""

    def __init__(self, base):
        super().__init__()
        self.base_layer, self.scaling = base, {"default": 2.0}
        self._active_adapter, self._disable_adapters, self.merged_adapters = ["default"], False, []

    active_adapters = property(lambda self: self._active_adapter)
    disable_adapters = property(lambda self: self._disable_adapters)

    def forward(self, x):
        return self.base_layer(x)


def test_the_state_of_adapters_counts():
    hf = tiny.llava()
    layer = Lora(hf.lm_head)
    hf.lm_head = layer
    mllm = wrap(hf, tiny.processor())
    states = [mllm.identity]
    layer._disable_adapters = True
    states.append(mllm.identity)
    layer._disable_adapters, layer.merged_adapters = False, ["default"]
    states.append(mllm.identity)
    layer.merged_adapters, layer._active_adapter = [], ["other"]
    states.append(mllm.identity)
    assert [state["peft"] for state in states] == [
        "active default, merged none in 1 modules",
        "active default (off), merged none in 1 modules",
        "active default, merged default in 1 modules",
        "active other, merged none in 1 modules",
    ]
    before = mllm.identity
    layer.scaling["default"] = 1.0
    assert differ(before, mllm.identity) == {"modules"}


class Own(Llava):
    """An adapter of another package."""

    name = "own"
    shift = 1


class Other(Own):
    def footprints(self, *args):
        return super().footprints(*args)


def test_adapters_of_others_count_with_their_code_and_settings():
    made = [Own(), Other(), Own()]
    made[2].shift = 2
    names = []
    for adapter in (None, *made):
        mllm = wrap(tiny.llava(), tiny.processor(), adapter=adapter)
        names.append(mllm.identity["family"])
    assert names[0] == "interp.models.llava.Llava"  # by the name that stored runs hold
    assert "test_fingerprint.Own (no package) " in names[1]
    assert len(set(names)) == 4


def test_a_set_in_code_counts_without_its_order():
    """A set of strings has another order in each process; this set of numbers has that of insertion."""
    code = (lambda x: x).__code__
    one, other = (code.replace(co_consts=(None, frozenset(order))) for order in ((0, 8), (8, 0)))
    assert repr(one.co_consts) != repr(other.co_consts)
    assert _code(one) == _code(other) != _code(code)


def test_code_counts_with_names_and_constants_not_its_place():
    code = (lambda x: x.first).__code__
    others = [
        code,
        code.replace(co_names=("second",)),
        code.replace(co_varnames=("y",)),
        code.replace(co_consts=(None, 2)),
        (lambda x: lambda: 1).__code__,
        (lambda x: lambda: 2).__code__,
    ]
    assert len({repr(_code(one)) for one in others}) == 6
    assert _code(code.replace(co_filename="elsewhere.py", co_firstlineno=99)) == _code(code)


def test_a_family_that_moved_keeps_the_name_in_hashes():
    kept = {adapter.name: _family(adapter) for adapter in built_in()}
    assert kept["llava"] == "interp.models.llava.Llava"
    assert kept["gemma3"] == "interp.models.gemma3.Gemma3"
    assert kept["idefics2"] == "interp.models.idefics2.Idefics2"
    assert kept["qwen3_5_moe"] == "interp.models.qwen3_5.Qwen35Moe"
    assert _family(AnswersOnly("no map")) == "interp.models.answers_only.AnswersOnly"


@pytest.mark.by_default(family=("llava", "qwen2_5_vl", "gemma3"))
@pytest.mark.parametrize("family", every_family())
def test_passes_leave_it_as_it_is(family, own):
    mllm = wrap(*tiny_of(family))
    before = mllm.identity
    mllm.trace(tiny.samples()[:1], generate=2)
    mllm.using("source").trace(tiny.samples()[:1])
    assert mllm.identity == before
    assert wrap(*tiny_of(family, "eager")).identity == before


@pytest.mark.parametrize("change", ["in place", "replaced", "half"])
def test_a_change_that_torch_sees_has_weights_read_again(own, change):
    before = own.identity
    with patch(
        "interp.tracing.parameters.fingerprint._tensors", side_effect=AssertionError("the weights were read")
    ):
        assert own.identity_since() == before
    layer = attention(own).q_proj
    if change == "in place":
        with torch.no_grad():
            layer.weight[0, 0] += 1
    elif change == "replaced":
        layer.weight = torch.nn.Parameter(layer.weight.detach() + 1)
    else:
        own.hf.half()
    assert own.identity_since()["weights"] != before["weights"]
    assert own.identity_since() == own.identity


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
        monkeypatch.setattr("interp.tracing.parameters.fingerprint._WORDS", {"cpu": size})
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
