"""On a GPU: the same numbers as eager attention and as the CPU, in half precision too; memory; waits for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

import tests.tiny as tiny
from interp.indicators import AttentionGradient, AttributionPatching, InputGradient, TokenKnockout
from interp.tracing import Boost, Knockout, Rows, ScaleWeights, Site, load, wrap
from tests.tracing.model_numbers import numbers

ROWS = [Rows(Site(queries="last", keys="all"))]
KERNELS = ["sdpa", *(["flash_attention_2"] if find_spec("flash_attn") else [])]
HALF = {"bfloat16": 0.02, "float16": 0.005}
"""How far rows may be from float32's: keys and queries are rounded before."""


@pytest.fixture(autouse=True)
def _exact() -> Any:
    """float32 products are not rounded to TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def on_gpu(attention: str = "sdpa", dtype: str = "float32", **options: Any) -> Any:
    hf = tiny.llava(attention, **options)
    return wrap(hf.to("cuda", getattr(torch, dtype)), tiny.processor())


def test_float32_gives_the_cpus_numbers():
    here, there = numbers(wrap(tiny.llava(), tiny.processor())), numbers(on_gpu())
    for name, value in here.items():
        np.testing.assert_allclose(there[name], value, atol=1e-4, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("attention", KERNELS)
def test_rows_in_half_precision_are_eagers(attention, dtype):
    mllm, samples = on_gpu(attention, dtype), tiny.samples()
    eager = tiny.llava("eager").to("cuda", getattr(torch, dtype))
    for sample in samples:  # alone, so that eager sees no padding
        batch = mllm.encode(sample)
        with torch.no_grad():
            expected = eager(**batch.inputs, output_attentions=True).attentions
        found = mllm.trace(batch, reads=ROWS)[0].rows
        for layer, weights in enumerate(expected):
            own = weights[0, :, -1].float().cpu()
            np.testing.assert_allclose(found[layer, :, 0], own, atol=HALF[dtype])
    whole = mllm.trace(samples, reads=ROWS)
    for i, sample in enumerate(samples):
        alone = mllm.trace(sample, reads=ROWS)[0].rows
        np.testing.assert_allclose(whole[i].rows, alone, atol=HALF[dtype])


@pytest.mark.parametrize("attention", KERNELS)
@pytest.mark.parametrize("dtype", HALF)
def test_an_idle_model_is_the_unwrapped_one_to_the_bit(attention, dtype):
    hf = tiny.llava(attention).to("cuda", getattr(torch, dtype))
    batch = wrap(tiny.llava(), tiny.processor()).encode(tiny.samples())
    inputs = {
        name: one.to("cuda", hf.dtype if one.is_floating_point() else None)
        for name, one in batch.inputs.items()
    }
    with torch.no_grad():
        before = hf(**inputs).logits
        wrap(hf, tiny.processor())
        assert torch.equal(hf(**inputs).logits, before)


def test_generation_is_that_of_transformers():
    mllm = on_gpu()
    for sample in tiny.samples():
        batch = mllm.encode(sample)
        ids = mllm.hf.generate(**batch.inputs, max_new_tokens=6, do_sample=False)
        own = ids[0, batch.inputs["input_ids"].shape[1] :]
        answer = mllm.processor.tokenizer.decode(own, skip_special_tokens=True).strip()
        assert mllm.trace(batch, generate=6).answers == [answer]


@pytest.mark.parametrize("dtype", ["float32", *HALF])
def test_gradients_are_the_cpus(dtype):
    here, there = wrap(tiny.llava(), tiny.processor()), on_gpu(dtype=dtype)
    sample = tiny.sample()
    for indicator in (AttentionGradient(signed=True), AttributionPatching(), InputGradient()):
        expected, found = (np.asarray(indicator(one, sample)[0]).ravel() for one in (here, there))
        assert np.isfinite(found).all()
        assert np.corrcoef(found, expected)[0, 1] > (0.9999 if dtype == "float32" else 0.95)


def test_all_knockouts_are_the_cpus():
    expected, found = (
        TokenKnockout()(one, tiny.sample())[0].values
        for one in (wrap(tiny.llava(), tiny.processor()), on_gpu())
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rows_take_no_more_memory_than_a_plain_pass():
    """No matrix of queries × keys: 48 × 48 image tokens and eight layers would need 170 MB of weights."""
    options = {"layers": 8, "side": 672}
    hf = tiny.llava(**options).to("cuda")
    mllm = wrap(hf, tiny.processor(side=672))
    batch = mllm.encode(tiny.sample())

    def peak(run: Callable[[], Any]) -> int:
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    with torch.no_grad():
        plain = peak(lambda: hf(**batch.inputs, use_cache=False, logits_to_keep=1))
    assert peak(lambda: mllm.trace(batch, reads=[Rows(Site())])) <= 1.1 * plain + 2**21


WAYS: dict[str, Callable[[Any, Any], Any]] = {
    "read": lambda mllm, batch: mllm.trace(batch, reads=ROWS),
    "edited": lambda mllm, batch: mllm.trace(
        batch, edits=[Boost(Site(heads=[1]), 0.4, steps="all"), ScaleWeights(Site(), 0.5)], generate=3
    ),
    "hidden": lambda mllm, batch: mllm.trace(batch, edits=[Knockout(Site(queries="all", keys="image"))]),
    "gradient": lambda mllm, batch: AttentionGradient()(mllm, batch),
}


def synchronisations(layers: int, way: str) -> int:
    """How often torch says that a call made the CPU wait for the GPU."""
    mllm = on_gpu(layers=layers)
    batch = mllm.encode(tiny.samples())
    WAYS[way](mllm, batch)  # what is made once is made
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            WAYS[way](mllm, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


@pytest.mark.parametrize("way", WAYS)
def test_more_layers_make_no_more_synchronisations(way):
    assert synchronisations(2, way) == synchronisations(6, way)


def test_load_puts_a_model_on_the_gpu():
    mllm = load("organism", device="cuda", dtype="bfloat16")
    assert mllm.device.type == "cuda"
    spread = load("organism", device_map="auto", dtype="bfloat16")
    sample = tiny.sample("is it red ?")
    np.testing.assert_allclose(spread.trace(sample).logits, mllm.trace(sample).logits, atol=0.05)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_give_the_numbers_of_one(tmp_path):
    tiny.llava().save_pretrained(tmp_path)
    tiny.processor().save_pretrained(tmp_path)
    layers = {f"model.language_model.layers.{i}": int(i > 0) for i in range(3)}
    rest = ("embed_tokens", "norm", "rotary_emb")
    where = {"model.vision_tower": 0, "model.multi_modal_projector": 0, "lm_head": 1, **layers}
    where |= {f"model.language_model.{name}": 0 for name in rest}
    one, two = load(tmp_path, device="cuda:0"), load(tmp_path, device_map=where)
    for name, value in numbers(one).items():
        np.testing.assert_allclose(numbers(two)[name], value, atol=1e-4, rtol=1e-3, err_msg=name)
