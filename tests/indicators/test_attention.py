from __future__ import annotations

import json

import jaxtyping
import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

import tests.tiny as tiny
from interp.errors import MapError, PromptError, SiteError
from interp.indicators import Attention, Maps
from interp.indicators.attention import _relative, relative
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.metrics import attention_ratio
from interp.tracing import Cost, Mllm, wrap

SHORT = " Answer the question using a single word or phrase."
GENERIC = "Write a general description of the image." + SHORT


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="module")
def eager() -> torch.nn.Module:
    return tiny.llava("eager")


def last_rows(eager, sample, text: str, *, image_first: bool = True) -> np.ndarray:
    """(layer, head, image token) of the last row, by transformers alone: one sample, eager attention."""
    parts = [{"type": "image"}, {"type": "text", "text": text}]
    turn = [{"role": "user", "content": parts if image_first else parts[::-1]}]
    processor = tiny.processor()
    prompt = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=Image.fromarray(sample.image), text=prompt, return_tensors="pt")
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
    image = inputs["input_ids"][0] == tiny.IMAGE_TOKEN
    return np.stack([layer[0, :, -1, image].numpy() for layer in attentions])


def test_plain_maps_are_the_head_mean_of_eagers_last_row(mllm, eager):
    samples = tiny.samples()
    maps = Attention()(mllm, samples)
    assert isinstance(maps, Maps)
    assert len(maps) == 3
    for sample, found, tokens in zip(samples, maps, maps.tokens, strict=True):
        assert found.dims == ("layer", "token")
        assert found.layer.values.tolist() == [0, 1, 2]
        expected = last_rows(eager, sample, sample.question + SHORT).mean(axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-8)
        np.testing.assert_array_equal(found.token, np.arange(16))
        np.testing.assert_array_equal(found.position, tokens.image)
        assert "query" not in found.coords


def test_relative_maps_are_the_quotient_of_eagers_head_means(mllm, eager):
    samples = tiny.samples()
    maps = Attention(relative_to=GENERIC_PROMPT)(mllm, samples)
    for sample, found in zip(samples, maps, strict=True):
        asked = last_rows(eager, sample, sample.question + SHORT).mean(axis=1)
        generic = last_rows(eager, sample, GENERIC).mean(axis=1)
        assert found.dims == ("layer", "token")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, asked / generic, rtol=1e-5)
        assert found.attrs == {"n_zero_over_zero": 0, "n_floored": 0}


def test_relative_maps_per_head_divide_each_head_by_itself(mllm, eager):
    sample = tiny.samples()[1]
    found = Attention(relative_to=GENERIC_PROMPT, per_head=True)(mllm, [sample])[0]
    expected = last_rows(eager, sample, sample.question + SHORT) / last_rows(eager, sample, GENERIC)
    assert found.dims == ("layer", "head", "token")
    assert found.shape == (3, 4, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    means = Attention(relative_to=GENERIC_PROMPT)(mllm, [sample])[0]
    assert not np.allclose(found.mean("head"), means, rtol=1e-2)  # a mean of quotients is not their quotient


def test_logits_are_those_of_the_question_prompt(mllm, eager):
    samples = tiny.samples()
    plain, relative_maps = Attention()(mllm, samples), Attention(relative_to=GENERIC_PROMPT)(mllm, samples)
    assert plain.logits.dims == ("sample", "token_id")
    np.testing.assert_allclose(relative_maps.logits, plain.logits, rtol=1e-4, atol=1e-4)
    generic = Attention()(mllm, samples, prompt=GENERIC_PROMPT)
    assert not np.allclose(generic.logits, plain.logits, atol=1e-2)


@pytest.mark.parametrize(
    "indicator", [Attention(), Attention(GENERIC_PROMPT), Attention(GENERIC_PROMPT, True)]
)
def test_a_map_does_not_depend_on_its_batch(mllm, indicator):
    samples = tiny.samples()
    together = indicator(mllm, samples)
    for place in (2, 0, 1):
        alone = indicator(mllm, samples[place])
        assert len(alone) == 1
        np.testing.assert_allclose(alone[0], together[place], rtol=1e-5, atol=1e-8)
        np.testing.assert_array_equal(alone.tokens[0].image, together.tokens[place].image)


def test_layers_are_read_in_the_order_given(mllm):
    whole = Attention(relative_to=GENERIC_PROMPT)(mllm, tiny.samples())
    some = Attention(relative_to=GENERIC_PROMPT, layers=[2, 0])(mllm, tiny.samples())
    assert some[1].layer.values.tolist() == [2, 0]
    np.testing.assert_allclose(some[1], whole[1].sel(layer=[2, 0]), rtol=1e-6)
    with pytest.raises(SiteError, match="3 layers, 0 … 2; got layer 3"):
        Attention(layers=[3])(mllm, tiny.samples())


def test_a_relative_map_runs_the_image_once_and_the_text_twice(mllm):
    samples = tiny.samples()
    asked, generic = mllm.trace(samples).cost, mllm.trace(samples, prompt=GENERIC_PROMPT).cost
    cost = Attention(relative_to=GENERIC_PROMPT)(mllm, samples).cost
    image = mllm.prefix(samples).cost
    assert isinstance(cost, Cost)
    assert cost.forwards == 3
    assert cost.tokens < asked.tokens + generic.tokens
    assert cost.tokens == asked.tokens + generic.tokens - image.tokens
    assert cost.seconds > 0
    assert Attention()(mllm, samples).cost.forwards == 1


@pytest.mark.parametrize(
    "prompt", [Prompt(image_first=False), Prompt(system="be brief")], ids=["image last", "another system"]
)
def test_prompts_without_a_shared_prefix_give_the_same_map(mllm, eager, prompt):
    samples = tiny.samples()
    maps = Attention(relative_to=GENERIC_PROMPT)(mllm, samples, prompt=prompt)
    assert maps.cost.forwards == 2
    plain, generic = (
        Attention()(mllm, samples, prompt=prompt),
        Attention()(mllm, samples, prompt=GENERIC_PROMPT),
    )
    for found, q, g, tokens in zip(maps, plain, generic, maps.tokens, strict=True):
        np.testing.assert_allclose(found, q.values / g.values, rtol=1e-5)
        np.testing.assert_array_equal(found.position, tokens.image)
    turned = Attention(relative_to=prompt)(mllm, samples)
    assert turned.cost.forwards == 2
    asked = Attention()(mllm, samples)
    for found, q, g in zip(turned, asked, plain, strict=True):
        np.testing.assert_allclose(found, q.values / g.values, rtol=1e-5)
    if not prompt.image_first:
        text = samples[0].question + SHORT
        asked = last_rows(eager, samples[0], text, image_first=False).mean(axis=1)
        np.testing.assert_allclose(maps[0], asked / last_rows(eager, samples[0], GENERIC).mean(1), rtol=1e-5)


def test_maps_line_up_with_the_tokens_masks(mllm):
    sample = tiny.sample(boxes=[(10, 0, 40, 30)])
    maps = Attention(relative_to=GENERIC_PROMPT)(mllm, [sample])
    mask = maps.tokens[0].mask(sample.boxes)
    assert maps.tokens[0].footprints.shape == (maps[0].sizes["token"], 4)
    by_hand = [row[mask].mean() / row.mean() for row in maps[0].values]
    np.testing.assert_allclose(attention_ratio(maps[0], mask), by_hand, rtol=1e-6)


def test_zeros_are_guarded_and_counted():
    asked = np.array([[0.0, 0.5, 0.2, 0.0], [0.0, 1.0, 0.0, 0.0]], np.float32)
    generic = np.array([[0.0, 0.0, 0.1, 0.4], [0.3, 1e-44, 0.0, 0.0]], np.float32)
    quotient, n_nothing, n_floored = relative(asked, generic)
    assert quotient.dtype == np.float32
    assert np.isfinite(quotient).all()
    tiny_float = 1.1754943508222875e-38
    expected = [[0.0, 0.5 / tiny_float, 2.0, 0.0], [0.0, 1.0 / tiny_float, 0.0, 0.0]]
    np.testing.assert_allclose(quotient, expected, rtol=1e-6)
    assert (n_nothing, n_floored) == (3, 2)
    rows = xr.DataArray(asked, dims=("layer", "token"), name="attention", attrs={"map": "composed"})
    found = _relative(rows, generic)
    np.testing.assert_array_equal(found, quotient)
    assert found.name == "relative attention"
    assert found.attrs == {"map": "composed", "n_zero_over_zero": 3, "n_floored": 2}
    assert rows.attrs == {"map": "composed"}
    with pytest.raises(MapError, match="same image tokens; got 4 and 3"):
        _relative(rows, generic[:, :3])


def test_the_indicator_is_a_value():
    made = Attention(relative_to=GENERIC_PROMPT, layers=[2, 0])
    assert made == Attention(GENERIC_PROMPT, False, (2, 0))
    assert hash(made) == hash(Attention(GENERIC_PROMPT, False, (2, 0)))
    assert json.loads(json.dumps(made.to_dict())) == {
        "indicator": "attention",
        "relative_to": {
            "template": "Write a general description of the image. "
            "Answer the question using a single word or phrase.",
            "options": "letters",
            "image_first": True,
            "system": None,
        },
        "per_head": False,
        "layers": [2, 0],
    }
    assert Attention().to_dict() == {
        "indicator": "attention",
        "relative_to": None,
        "per_head": False,
        "layers": "all",
    }
    assert Attention(PAPER_PROMPT).to_dict() != made.to_dict()


def test_settings_that_make_no_sense_are_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as outside of tests
    with pytest.raises(PromptError, match=r"interp.Prompt or None; got 'generic'.*GENERIC_PROMPT"):
        Attention(relative_to="generic")
    with pytest.raises(MapError, match="per_head is True or False; got 3"):
        Attention(per_head=3)
    with pytest.raises(SiteError, match='layers= is "all" or a list of indices; got 14'):
        Attention(layers=14)


def test_prefix_and_batch_serve_as_samples_do(mllm):
    samples = tiny.samples()
    indicator = Attention(relative_to=GENERIC_PROMPT)
    plain = indicator(mllm, samples)
    prefix = mllm.prefix(samples)
    for given in (prefix, mllm.encode(samples)):
        for found, expected in zip(indicator(mllm, given), plain, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert indicator(mllm, prefix).cost.forwards == 2
