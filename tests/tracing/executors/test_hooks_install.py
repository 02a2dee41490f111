"""What wrapping changes, and that unwrapping takes all of it back."""

from __future__ import annotations

import pytest
import torch
import transformers

import tests.tiny as tiny
from interp.errors import ModelError
from interp.tracing import wrap
from tests.tracing.module_state import state_of


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_unwrap_gives_the_model_back_as_it_was(attention, batch):
    hf = tiny.llava(attention)
    with torch.no_grad():
        expected = hf(**batch.inputs).logits  # transformers marks its modules on the first pass
    hf.train()
    hf.model.vision_tower.eval()
    hf.lm_head.weight.requires_grad_(False)
    before = state_of(hf)
    mllm = wrap(hf, tiny.processor())
    assert not hf.training
    assert not hf.lm_head.weight.requires_grad
    assert state_of(hf)["attributes"] != before["attributes"]
    mllm.trace(batch, generate=2)
    assert mllm.unwrap() is hf
    assert state_of(hf) == before
    hf.eval()
    with torch.no_grad():
        assert torch.equal(hf(**batch.inputs).logits, expected)


def test_a_model_can_be_wrapped_again_but_not_twice(batch):
    hf = tiny.llava()
    first = wrap(hf, tiny.processor())
    with pytest.raises(ModelError, match=r"wrapped already; use that Mllm, or call its unwrap\(\) first"):
        wrap(hf, tiny.processor())
    logits = first.trace(batch).logits
    first.unwrap()
    for use in (first.unwrap, lambda: first.trace(batch), lambda: first.encode(tiny.samples())):
        with pytest.raises(ModelError, match="was unwrapped; wrap the model again"):
            use()
    again = wrap(hf, tiny.processor())
    assert (again.trace(batch).logits == logits).all()


def test_a_config_shared_by_two_models_is_not_changed(batch):
    settings = tiny.config()
    one, other = (transformers.LlavaForConditionalGeneration(settings).eval() for _ in range(2))
    assert one.config is other.config
    mllm = wrap(one, tiny.processor())
    assert other.config.text_config._attn_implementation == "sdpa"
    assert settings.text_config._attn_implementation == "sdpa"
    assert one.config.text_config is one.model.language_model.config  # shared inside as before
    assert one.model.vision_tower.config._attn_implementation == "sdpa"
    assert mllm.installation.implementation == "sdpa"


def test_a_forward_of_ones_own_comes_back(batch):
    hf = tiny.llava()
    mlp = hf.model.language_model.layers[0].mlp
    own = mlp.forward
    calls = []

    def forward(x):
        calls.append(x.shape)
        return own(x)

    mlp.forward = forward
    wrap(hf, tiny.processor()).unwrap()
    assert mlp.__dict__["forward"] is forward
    mllm = wrap(hf, tiny.processor())
    mllm.trace(batch)
    assert len(calls) == 1


def test_the_processor_given_is_left_alone(batch):
    processor = tiny.processor()
    assert processor.tokenizer.padding_side == "right"
    mllm = wrap(tiny.llava(), processor)
    assert mllm.processor.tokenizer.padding_side == "left"
    assert processor.tokenizer.padding_side == "right"


def test_the_model_stays_on_its_device():
    mllm = wrap(tiny.llava(), tiny.processor())
    assert mllm.device == torch.device("cpu")
    assert next(mllm.hf.parameters()).device == torch.device("cpu")


def test_unreadable_attention_is_refused_and_all_put_back():
    hf = tiny.llava()
    hf.config.text_config._attn_implementation_internal = "paged|eager"
    before = state_of(hf)
    with pytest.raises(
        ModelError, match=r"'paged\|eager'; interp taps sdpa, eager.*attn_implementation='sdpa'"
    ):
        wrap(hf, tiny.processor())
    assert state_of(hf) == before


def test_the_parts_of_an_mllm(mllm):
    assert (mllm.family, mllm.n_layers, mllm.n_heads, mllm.n_key_value_heads) == ("llava", 3, 4, 2)
    assert mllm.image_token_id == tiny.IMAGE_TOKEN
    assert mllm.dtype == torch.float32
    assert len(mllm.layers) == 3
    assert mllm.layers[2].self_attn._module is mllm.installation.attentions[2]
    assert repr(mllm) == "Mllm(LlavaForConditionalGeneration, 3 layers, 4 heads, torch.float32, cpu)"


def test_what_cannot_be_wrapped(unchecked):
    with pytest.raises(
        ModelError, match=r"takes a transformers model and its processor; hf_model='x' is neither"
    ):
        wrap("x", tiny.processor())
    with pytest.raises(ModelError, match=r"hf_model=a type is neither"):
        wrap(transformers.LlavaForConditionalGeneration, tiny.processor())
    with pytest.raises(ModelError, match=r"processor=None is neither"):
        wrap(tiny.llava(), None)
    bert = transformers.BertModel(
        transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(ModelError, match=r"no adapter knows the model type 'bert'"):
        wrap(bert, tiny.processor())

    class Bare(type(wrap(tiny.llava(), tiny.processor()).adapter)):
        name = "bare"

        def layers(self, model):
            return [torch.nn.Linear(1, 1)]

    with pytest.raises(
        ModelError, match=r"adapter 'bare' names 1 decoder layers, of which \[0\] have no `\.self_attn`"
    ):
        wrap(tiny.llava(), tiny.processor(), adapter=Bare())
