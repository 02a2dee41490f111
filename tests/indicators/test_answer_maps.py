"""Maps of an answer's tokens against eager attention that is computed anew at every step, without a cache."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import interp
from interp.conformance.tiny import tiny
from interp.errors import ModelError, PromptError, SiteError
from interp.indicators import AnswerMaps, answer_maps
from tests.tracing.scripted import ids, picture, scripted

FAMILIES = ("qwen2_5_vl", *(pytest.param(one, marks=pytest.mark.slow) for one in ("llava", "internvl")))
N = 5


def sample() -> interp.Sample:
    pixels = np.random.default_rng(3).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    return interp.Sample(pixels, "where is the nodule ?")


def by_eager(family: str, n: int) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and (step, layer, head, image token) of the row that predicts each, from transformers alone."""
    model, _ = tiny(family, "eager")
    mllm = interp.wrap(*tiny(family))
    batch = mllm.encode([sample()])
    image = batch.tokens[0].image
    inputs = {k: v for k, v in batch.inputs.items() if k != "position_ids"}
    ids, rows = [], []
    with torch.no_grad():
        for _ in range(n):
            out = model(**inputs, use_cache=False, output_attentions=True)
            rows.append(np.stack([layer[0, :, -1].numpy()[:, image] for layer in out.attentions]))
            ids.append(int(out.logits[0, -1].argmax()))
            for name, fill in (("input_ids", ids[-1]), ("attention_mask", 1), ("mm_token_type_ids", 0)):
                if name in inputs:
                    inputs[name] = torch.cat([inputs[name], inputs[name].new_full((1, 1), fill)], dim=1)
    return ids, np.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_map_is_the_mean_row_that_predicts_its_token(family: str) -> None:
    ids, rows = by_eager(family, N)
    found = answer_maps(interp.wrap(*tiny(family)), sample(), generate=N)
    assert list(found.ids) == ids
    np.testing.assert_allclose(found.attention, rows.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(
        found.differences, rows.mean(axis=(1, 2)) - rows.mean(axis=(0, 1, 2)), atol=1e-6
    )
    one = answer_maps(interp.wrap(*tiny(family)), sample(), generate=N, layers=[1])
    np.testing.assert_allclose(one.attention, rows[:, 1].mean(axis=1), atol=1e-6)


def test_spans_take_the_tokens_that_share_a_character() -> None:
    attention = np.array([[3.0, 0.0], [0.0, 6.0], [0.0, 0.0]])
    found = AnswerMaps("the nodule", (7, 8, 9), (3, 7, 10), attention, _tokens(), interp.tracing.Cost())
    assert found.mean.tolist() == [1.0, 2.0]
    assert found.of_span(0, 3)[0] == (0,)
    assert found.of_span(4, 10) == ((1, 2), pytest.approx(np.array([-1.0, 1.0])))
    assert found.of_span(2, 4)[0] == (0, 1)
    assert found.of_span(10, 12)[0] == ()


def _tokens() -> interp.TokenMap:
    boxes = np.array([[0, 0, 4, 8], [4, 0, 8, 8]], float)
    return interp.TokenMap(np.arange(2), boxes, (1, 2), np.full(2, ""), np.zeros(2, int), ((8, 8),), 3)


def test_the_text_grows_by_token_and_ends_where_the_answer_does() -> None:
    mllm = interp.load("organism")
    one = interp.data.bundled("natural", n=1)[0]
    found = answer_maps(mllm, one)
    assert found.text == one.answer == "green"
    assert found.ends == (5, 5)  # the second token ended the answer; it counts in the mean and has no text
    assert len(found.ids) == 2
    np.testing.assert_allclose(found.differences.sum(axis=0), 0, atol=1e-12)


def test_tokens_of_a_thought_are_left_out() -> None:
    """Ids, text and rows are the answer's alone: what remains of the trace's rows after the thought's 5 tokens."""
    mllm, script = scripted()
    said, thinking = ids(mllm, "there is a circle </think> yes . </s>"), interp.Prompt(thinking=True)
    script.say(said)
    found = answer_maps(mllm, picture(), prompt=thinking, generate=8)
    script.say(said)
    read = interp.Rows(interp.Site(queries="last"), reduce="head")
    rows = mllm.trace([picture()], thinking, [read], generate=8)[0].rows
    assert (found.text, found.ids) == ("yes .", tuple(said[5:]))
    assert len(found.ends) == len(found.attention) == 3
    np.testing.assert_allclose(found.attention, rows.mean("layer").values[5:, 0], atol=1e-6)


def test_an_answer_of_one_token_differs_from_nothing() -> None:
    found = answer_maps(interp.wrap(*tiny("llava")), sample(), generate=1)
    assert found.attention.shape[0] == 1
    assert not found.differences.any()


@pytest.mark.usefixtures("unchecked")
def test_models_without_places_and_wrong_numbers_are_refused() -> None:
    with pytest.raises(ModelError, match=r"maps of an answer's tokens need image tokens that are positions"):
        answer_maps(interp.wrap(*tiny("mllama")), sample())
    mllm = interp.wrap(*tiny("llava"))
    with pytest.raises(
        PromptError, match=r"generate, the number of tokens, is a whole number of at least 1; got 0"
    ):
        answer_maps(mllm, sample(), generate=0)
    with pytest.raises(SiteError):
        answer_maps(mllm, sample(), layers=[99])
