"""The registered attention functions, and the one hand-off to nnsight."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import nnsight
import numpy as np
import pytest
import torch
import transformers
import transformers.modeling_flash_attention_utils as flash
from nnsight.intervention.interleaver import Mediator
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.generic import is_flash_attention_requested

import tests.tiny as tiny
from interp.conformance.tiny import tiny as tiny_of
from interp.errors import ModelError, SiteError
from interp.indicators import AttentionGradient
from interp.inputs import Sample
from interp.tracing import Knockout, Rows, Site, positions, wrap
from interp.tracing.executors.hooks import registered
from tests.tracing import kernels
from tests.tracing.module_state import state_of


def test_each_function_keeps_its_own_masks():
    assert registered("sdpa") == registered("sdpa") == "interp_sdpa"
    assert ALL_MASK_ATTENTION_FUNCTIONS["interp_sdpa"] is sdpa_mask
    assert ALL_MASK_ATTENTION_FUNCTIONS[registered("eager")] is eager_mask
    assert ALL_ATTENTION_FUNCTIONS["interp_sdpa"] is not ALL_ATTENTION_FUNCTIONS["interp_eager"]
    with pytest.raises(ModelError, match="paged"):
        registered("paged|sdpa")


@pytest.fixture
def sdpa_calls(monkeypatch):
    """What torch's attention is called with: (has a mask, is_causal, queries)."""
    calls = []
    function = torch.nn.functional.scaled_dot_product_attention

    def spy(query, key, value, attn_mask=None, is_causal=False, **kwargs):
        if query.shape[-1] == 16 and query.shape[-2] > 17:  # the language model's, not the vision tower's
            calls.append((attn_mask is not None, is_causal, query.shape[2]))
        return function(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    return calls


def test_without_padding_attention_needs_no_mask(mllm, plain, batch, sdpa_calls):
    inputs = batch.singles[1].inputs
    assert inputs["attention_mask"].all()
    with torch.no_grad():
        plain(**inputs)
    expected = list(sdpa_calls)
    assert expected == [(False, True, 40)] * 3
    sdpa_calls.clear()
    mllm.trace(batch.samples[1], reads=[Rows(Site())], edits=[Knockout(Site(keys=positions([4])))])
    assert sdpa_calls == expected
    sdpa_calls.clear()
    mllm.trace(batch)
    assert sdpa_calls == [(True, False, 40)] * 3


def test_knockouts_of_most_rows_become_a_mask(mllm, batch, sdpa_calls):
    many = Knockout(Site(layers=[1], queries="all", keys=positions([4])))
    few = Knockout(Site(layers=[2], queries="last", keys=positions([4])))
    mllm.trace(batch.samples[1], edits=[many, few])
    assert sdpa_calls == [(False, True, 40), (True, False, 40), (False, True, 40)]


def test_nothing_is_left_on_the_modules(mllm, batch):
    before = [set(a.__dict__) for a in mllm.installation.attentions]
    mllm.trace(batch, reads=[Rows(Site())])
    with pytest.raises(ValueError, match="boom"):
        failing(mllm, batch)
    assert [set(a.__dict__) for a in mllm.installation.attentions] == before
    mllm.trace(batch)


def failing(mllm, batch):
    def boom(module, args):
        raise ValueError("boom")

    hook = mllm.installation.attentions[1].register_forward_pre_hook(boom)
    try:
        mllm.trace(batch, reads=[Rows(Site())])
    finally:
        hook.remove()


@pytest.mark.parametrize("generate", [0, 3])
def test_a_run_hands_over_to_nnsight_once(mllm, batch, monkeypatch, generate):
    served = Counter()
    handle = Mediator.handle

    def spy(mediator, provider, value):
        served[provider] += 1
        return handle(mediator, provider, value)

    monkeypatch.setattr(Mediator, "handle", spy)
    prefix = mllm.prefix(batch)
    for samples in (batch, prefix):
        served.clear()
        mllm.trace(samples, reads=[Rows(Site()), Rows(Site(queries="after_image"))], generate=generate)
        assert served == {"model.interp_collector.output": 1}


def test_collected_rows_are_the_modules_own_attention(mllm, batch):
    """The door and the collector agree: two ways out of one computation."""
    trace = mllm.trace(batch, reads=[Rows(Site(layers=[2], keys="all"))])
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[2].self_attn.pattern.output.save()
    for i, pad in enumerate(batch.pad):
        np.testing.assert_allclose(trace[i].rows[0], rows[i, ..., pad:], atol=1e-7)


def test_models_of_both_kinds_live_side_by_side(batch):
    one, other = (wrap(tiny.llava(kind), tiny.processor()) for kind in ("sdpa", "eager"))
    first, second = (m.trace(batch, reads=[Rows(Site())]) for m in (one, other))
    np.testing.assert_allclose(first.rows, second.rows, atol=1e-6)
    assert one.hf.config.text_config._attn_implementation == "interp_sdpa"
    assert other.hf.config.text_config._attn_implementation == "interp_eager"


def test_last_rows_are_read_padded(mllm, batch, attentions):
    with torch.no_grad(), mllm.tap(queries="last"), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[1].self_attn.pattern.output.save()
    assert rows.shape == (3, 4, 1, 40)
    for i, (full, pad) in enumerate(zip(attentions, batch.pad, strict=True)):
        np.testing.assert_allclose(rows[i, :, 0, pad:], full[1, :, -1], atol=1e-6, rtol=0)
        assert not rows[i, ..., :pad].any()


def test_other_rows_need_the_batch(mllm, batch, attentions):
    wanted = positions([4, 20])
    with torch.no_grad(), mllm.tap(queries=wanted, batch=batch), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[2].self_attn.pattern.output.save()
    with torch.no_grad(), mllm.tap(queries="all", layers=[2]), mllm.nn.trace(**batch.inputs):
        every = mllm.layers[2].self_attn.pattern.output.save()
    for i, (full, pad) in enumerate(zip(attentions, batch.pad, strict=True)):
        np.testing.assert_allclose(rows[i, :, :, pad:], full[2][:, [4, 20]], atol=1e-6, rtol=0)
        np.testing.assert_allclose(every[i, :, pad:, pad:], full[2], atol=1e-6, rtol=0)
    with pytest.raises(
        SiteError, match=r"needs the batch to find its rows. Write mllm\.tap\(queries=…, batch=batch"
    ):
        mllm.tap(queries="after_image").__enter__()
    with pytest.raises(SiteError, match=r"every sample needs the same number of rows.*\[16, 21, 20\]"):
        mllm.tap(queries="after_image", batch=batch).__enter__()
    with pytest.raises(SiteError, match="the model has 3 layers, 0 … 2; got layer 5"):
        mllm.tap(layers=[5]).__enter__()


def test_reading_leaves_the_output_bit_equal(mllm, plain, batch):
    with torch.no_grad(), mllm.tap(queries="all"), mllm.nn.trace(**batch.inputs):
        mllm.layers[0].self_attn.pattern.output.save()
        logits = mllm.nn.output.logits.save()
    with torch.no_grad():
        assert torch.equal(logits, plain(**batch.inputs).logits)


def test_writing_in_place_and_assigning_edit_the_output(mllm, batch):
    keys = [5, 6, 9]
    edit = Knockout(Site(layers=[1], keys=positions(keys)), "zero")
    expected = mllm.trace(batch, edits=[edit]).logits
    assert np.abs(expected - mllm.trace(batch).logits).max() > 1e-2
    columns = torch.zeros(3, 1, 1, 40, dtype=torch.bool)
    for i, pad in enumerate(batch.pad):
        columns[i, ..., [pad + key for key in keys]] = True
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        mllm.layers[1].self_attn.pattern.output.masked_fill_(columns, 0)
        in_place = mllm.nn.output.logits[:, -1].save()
    with torch.no_grad(), mllm.tap(), mllm.nn.trace(**batch.inputs):
        rows = mllm.layers[1].self_attn.pattern.output
        mllm.layers[1].self_attn.pattern.output = rows.masked_fill(columns, 0)
        assigned = mllm.nn.output.logits[:, -1].save()
    np.testing.assert_allclose(in_place, expected, atol=1e-5)
    np.testing.assert_allclose(assigned, expected, atol=1e-5)


def test_every_generated_token_offers_its_row(mllm, batch):
    with (
        torch.no_grad(),
        mllm.tap(),
        mllm.nn.generate(**batch.inputs, max_new_tokens=3, do_sample=False) as run,
    ):
        rows = nnsight.save([])
        for _ in run.iter[:3]:
            rows.append(mllm.layers[1].self_attn.pattern.output)
    found = mllm.trace(batch, reads=[Rows(Site(layers=[1]))], generate=3)
    for step, offered in enumerate(rows):
        assert offered.shape == (3, 4, 1, 40 + step)
        for i, (one, tokens) in enumerate(zip(found, batch.tokens, strict=True)):
            image = offered[i, :, 0, tokens.image + batch.pad[i]]
            np.testing.assert_allclose(one.rows[step, 0, :, 0], image, atol=1e-6)


def test_gradients_reach_the_rows_as_in_eager(mllm, eager, batch):
    inputs = batch.singles[1].inputs
    weight = mllm.hf.get_input_embeddings().weight
    with mllm.tap(queries="last"), mllm.nn.trace(**inputs):
        rows = mllm.layers[1].self_attn.pattern.output
        mllm.layers[1].self_attn.pattern.output = rows * 1  # a copy is spliced in, so the logits depend on it
        logit = mllm.nn.output.logits[0, -1].log_softmax(-1).max()
        gradient = torch.autograd.grad(logit, rows)[0].save()
    assert weight.grad is None
    output = eager(**inputs, output_attentions=True)
    top = output.logits[0, -1].log_softmax(-1).max()
    expected = torch.autograd.grad(top, output.attentions[1])[0][0, :, -1]
    assert expected.abs().max() > 1e-2
    np.testing.assert_allclose(gradient[0, :, 0], expected, atol=1e-5)


def test_one_trace_or_tap_at_a_time(mllm, batch):
    with (
        mllm.tap(),
        pytest.raises(ModelError, match=r"another trace or tap of this model is open.*leave|Leave"),
    ):
        mllm.trace(batch)
    with mllm.tap(), pytest.raises(ModelError, match="another trace or tap"):
        mllm.prefix(batch)
    with mllm.tap(), pytest.raises(ModelError, match="another trace or tap"):
        mllm.unwrap()
    with pytest.raises(RuntimeError, match="mine"), mllm.tap():
        raise RuntimeError("mine")
    assert not any("_interp_work" in a.__dict__ for a in mllm.installation.attentions)
    mllm.trace(batch)


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
        ModelError, match=r"in the implementations sdpa, eager.*'paged\|eager'.*attn_implementation='sdpa'"
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
        ModelError, match=r"takes a transformers model and its processor, .*; got hf_model='x'"
    ):
        wrap("x", tiny.processor())
    with pytest.raises(ModelError, match=r"got hf_model=a type"):
        wrap(transformers.LlavaForConditionalGeneration, tiny.processor())
    with pytest.raises(ModelError, match=r"got processor=None"):
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

    with pytest.raises(ModelError, match=r"'bare' returns 1 layer, without one in layers \[0\]"):
        wrap(tiny.llava(), tiny.processor(), adapter=Bare())


IMAGE = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
SAMPLES = [Sample(IMAGE, "where is the nodule ?"), Sample(IMAGE[::-1].copy(), "where ?")]
READS = [Rows(Site(queries="all")), Rows(Site(queries="last", keys=["text", "image"]))]
MOST_ROWS = Knockout(Site(layers=[0], queries="all", keys=positions([7, 8])))
LAST_ROW = Knockout(Site(layers=[1], queries="last", keys="image"), mode="zero")
FLASH = ("flash_attention_2", "flash_attention_3")


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch):
    kernels.install(monkeypatch)


def made(family: str, attention: str) -> Any:
    """A wrapped model; where a family has sliding windows, they are narrower than the prompts."""
    model, processor = tiny_of(family)
    text = model.config.text_config
    if family == "mistral3":
        text.sliding_window = 8
    if family == "gemma3":
        assert text.sliding_window < 30
    text._attn_implementation = attention
    return wrap(model, processor)


def results(mllm: Any) -> dict[str, np.ndarray]:
    """Everything that attention takes part in."""
    plain = mllm.trace(SAMPLES, reads=READS, generate=3)
    edited = mllm.trace(SAMPLES, reads=READS[1:], edits=[MOST_ROWS, LAST_ROW])
    after = mllm.trace(mllm.prefix(SAMPLES), reads=READS[1:], edits=[LAST_ROW])
    source = mllm.using("source").trace(SAMPLES[:1], reads=READS[1:], edits=[MOST_ROWS])
    found = {"logits": plain.logits.values, "answers": np.array(plain.answers)}
    for name, trace in {"edited": edited, "after": after, "source": source}.items():
        found[f"{name} logits"] = trace.logits.values
    for i in range(len(SAMPLES)):
        found |= {f"rows {i} {k}": rows.values for k, rows in enumerate(plain[i].reads)}
        found |= {f"edited {i}": edited[i].rows.values, f"after {i}": after[i].rows.values}
    return found


@cache
def expected(family: str) -> dict[str, np.ndarray]:
    """The results under sdpa."""
    return results(made(family, "sdpa"))


FAMILIES = ("llava", "mistral3", "qwen2_5_vl")
NAMES = (*FLASH, "flex_attention")
CASES = [
    pytest.param(family, name, marks=[] if FAMILIES.index(family) == NAMES.index(name) else pytest.mark.slow)
    for family in FAMILIES
    for name in NAMES
]


@pytest.mark.parametrize(("family", "attention"), [*CASES, ("gemma3", "flex_attention")])
def test_flash_and_flex_are_read_and_edited_as_sdpa_is(family, attention):
    found = results(made(family, attention))
    for name, value in expected(family).items():
        if name == "answers":
            assert (found[name] == value).all()
        else:
            np.testing.assert_allclose(found[name], value, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("family", ["gemma3", "paligemma"])
def test_image_tokens_that_see_ahead_are_not_for_flash(family):
    model, processor = tiny_of(family)
    model.config.text_config._attn_implementation = "flash_attention_2"
    before = state_of(model)
    with pytest.raises(
        ModelError, match=rf"image tokens of {family} see tokens that come after them.*'sdpa'"
    ):
        wrap(model, processor)
    assert state_of(model) == before


def test_a_kernel_that_is_loaded_is_an_implementation(monkeypatch):
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

    AttentionInterface.register("kernels-community/own", ALL_ATTENTION_FUNCTIONS["sdpa"])
    AttentionMaskInterface.register("kernels-community/own", sdpa_mask)
    assert ALL_MASK_ATTENTION_FUNCTIONS["kernels-community/own"] is sdpa_mask
    found = made("llava", "kernels-community/own")
    assert found.hf.config.text_config._attn_implementation == "interp_kernels-community_own"
    np.testing.assert_allclose(
        found.trace(SAMPLES, reads=READS[:1]).logits, expected("llava")["logits"], atol=1e-5
    )


def test_flash_attention_is_called_under_its_own_name(monkeypatch):
    names = []
    lazy = flash._lazy_imports
    monkeypatch.setattr(
        flash, "_lazy_imports", lambda name, *a, **k: names.append(name) or lazy(name, *a, **k)
    )
    mllm = made("llava", "flash_attention_3")
    mllm.trace(SAMPLES[:1])
    assert names == ["flash_attention_3"]
    assert is_flash_attention_requested(mllm.hf.config.text_config, version=3)
    assert mllm.unwrap().config.text_config._attn_implementation == "flash_attention_3"


def test_gradients_under_flash_attention():
    one, other = (
        AttentionGradient()(made("mistral3", name), SAMPLES[:1]) for name in ("sdpa", "flash_attention_2")
    )
    np.testing.assert_allclose(one[0], other[0], atol=1e-5)
