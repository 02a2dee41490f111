"""Flash and flex attention: rows, edits, padding, generation and prefixes are those of sdpa."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import transformers.modeling_flash_attention_utils as flash
from transformers.utils.generic import is_flash_attention_requested

from interp.conformance.tiny import tiny as tiny_of
from interp.errors import ModelError
from interp.indicators import AttentionGradient
from interp.inputs import Sample
from interp.tracing import Knockout, Rows, Site, positions, wrap
from tests.tracing import kernels
from tests.tracing.module_state import state_of

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
