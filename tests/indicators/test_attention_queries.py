from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import tests.tiny as tiny
from interp.errors import SiteError
from interp.indicators import Attention
from interp.inputs.prompt import GENERIC_PROMPT, PAPER_PROMPT, Prompt
from interp.inputs.sample import Sample
from interp.inputs.tokens import word
from interp.tracing import Mllm, wrap
from tests.tracing.scripted import ids, picture, scripted

SHORT = " Answer the question using a single word or phrase."
GENERIC = "Write a general description of the image." + SHORT
LABELS = ("red", "left lung", "lung")
ROWS = {  # in the tiny vocabulary every word and every mark is a token of its own
    "question": ("is it red ?", "where is the nodule in the left lung ?", "what is there , in the lung ?"),
    "label": LABELS,
}


@pytest.fixture(scope="module")
def mllm() -> Mllm:
    return wrap(tiny.llava(), tiny.processor())


@pytest.fixture(scope="module")
def eager() -> torch.nn.Module:
    return tiny.llava("eager")


def labelled() -> list[Sample]:
    return [s.replace(meta={"label": name}) for s, name in zip(tiny.samples(), LABELS, strict=True)]


def inputs_of(sample: Sample, text: str) -> dict:
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    processor = tiny.processor()
    prompt = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    return dict(processor(images=Image.fromarray(sample.image), text=prompt, return_tensors="pt"))


def attention(eager: torch.nn.Module, inputs: dict) -> tuple[np.ndarray, torch.Tensor]:
    """(layer, head, query, image token) and the logits, by transformers alone: one sample, eager attention."""
    with torch.no_grad():
        out = eager(**inputs, output_attentions=True)
    image = inputs["input_ids"][0] == tiny.IMAGE_TOKEN
    return np.stack([layer[0][:, :, image].numpy() for layer in out.attentions]), out.logits[0, -1]


def places(inputs: dict, words: str) -> list[int]:
    """Where a run of words stands in the prompt, found among its token ids."""
    ids = inputs["input_ids"][0].tolist()
    wanted = tiny.tokenizer().encode(words, add_special_tokens=False)
    starts = [i for i in range(len(ids)) if ids[i : i + len(wanted)] == wanted]
    assert len(starts) == 1
    return [starts[0] + i for i in range(len(wanted))]


def expected(eager: torch.nn.Module, sample: Sample, words: str) -> np.ndarray:
    """(layer, head, token): the mean over the rows of these words."""
    inputs = inputs_of(sample, sample.question + SHORT)
    return attention(eager, inputs)[0][:, :, places(inputs, words)].mean(axis=2)


def generic_last(eager: torch.nn.Module, sample: Sample) -> np.ndarray:
    return attention(eager, inputs_of(sample, GENERIC))[0][:, :, -1]


@pytest.mark.parametrize("queries", ["question", "label"])
def test_maps_are_the_mean_of_eagers_rows(mllm, eager, queries):
    samples = labelled()
    plain = Attention(queries=queries)(mllm, samples)
    relative = Attention(GENERIC_PROMPT, queries=queries)(mllm, samples)
    heads = Attention(GENERIC_PROMPT, per_head=True, queries=queries)(mllm, samples)
    for i, (sample, words) in enumerate(zip(samples, ROWS[queries], strict=True)):
        rows, generic = expected(eager, sample, words), generic_last(eager, sample)
        assert plain[i].dims == ("layer", "token")
        assert plain[i].dtype == np.float32
        np.testing.assert_allclose(plain[i], rows.mean(1), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(relative[i], rows.mean(1) / generic.mean(1), rtol=1e-5)
        np.testing.assert_allclose(heads[i], rows / generic, rtol=1e-5)
        np.testing.assert_array_equal(relative[i].position, relative.tokens[i].image)


def test_after_image_is_a_mean_over_rows_of_both_prompts(mllm, eager):
    """The official code's Q=True: question and generic alike, the template's rows included."""
    samples = tiny.samples()
    plain = Attention(queries="after_image")(mllm, samples)
    relative = Attention(GENERIC_PROMPT, queries="after_image")(mllm, samples)
    heads = Attention(GENERIC_PROMPT, per_head=True, queries="after_image")(mllm, samples)
    for i, sample in enumerate(samples):
        rows, generic = (
            attention(eager, inputs)[0][:, :, after_image(inputs)].mean(axis=2)
            for inputs in (inputs_of(sample, sample.question + SHORT), inputs_of(sample, GENERIC))
        )
        np.testing.assert_allclose(plain[i], rows.mean(1), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(relative[i], rows.mean(1) / generic.mean(1), rtol=1e-5)
        np.testing.assert_allclose(heads[i], rows / generic, rtol=1e-5)


def after_image(inputs: dict) -> np.ndarray:
    ids = inputs["input_ids"][0].numpy()
    return np.arange(np.flatnonzero(ids == tiny.IMAGE_TOKEN)[-1] + 1, len(ids))


def test_a_word_is_its_own_rows_in_every_sample(mllm, eager):
    samples = tiny.samples()[1:]
    maps = Attention(queries=word("LUNG"))(mllm, samples)
    for sample, found in zip(samples, maps, strict=True):
        np.testing.assert_allclose(found, expected(eager, sample, "lung").mean(1), rtol=1e-5, atol=1e-8)


def test_the_answers_row_is_the_first_generated_tokens(mllm, eager):
    samples = tiny.samples()
    maps = Attention(queries="answer")(mllm, samples)
    relative = Attention(GENERIC_PROMPT, queries="answer")(mllm, samples)
    last = Attention()(mllm, samples)
    for i, sample in enumerate(samples):
        inputs = inputs_of(sample, sample.question + SHORT)
        token = attention(eager, inputs)[1].argmax().reshape(1, 1)
        for name, value in (("input_ids", token), ("attention_mask", torch.ones(1, 1, dtype=torch.long))):
            inputs[name] = torch.cat([inputs[name], value], dim=1)
        rows = attention(eager, inputs)[0][:, :, -1].mean(1)
        np.testing.assert_allclose(maps[i], rows, rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(relative[i], rows / generic_last(eager, sample).mean(1), rtol=1e-4)
        assert not np.allclose(maps[i], last[i], rtol=1e-2)
        np.testing.assert_allclose(maps.logits[i], last.logits[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("queries", ["question", "label", "answer", "after_image"])
def test_a_map_depends_neither_on_its_batch_nor_on_a_prefix(mllm, queries):
    samples = labelled()
    indicator = Attention(GENERIC_PROMPT, queries=queries)
    together = indicator(mllm, samples)
    for found, whole in zip(indicator(mllm, mllm.prefix(samples)), together, strict=True):
        np.testing.assert_allclose(found, whole, rtol=1e-5)
    for i in (2, 0):
        np.testing.assert_allclose(indicator(mllm, samples[i])[0], together[i], rtol=1e-5)
    assert together.cost.forwards == (4 if queries == "answer" else 3)


def test_the_default_keeps_its_json_and_so_its_hash():
    assert "queries" not in Attention(GENERIC_PROMPT).to_dict()
    assert Attention(queries="last") == Attention()
    named = {
        Attention(queries=q).to_dict().get("queries") for q in ("last", "label", "answer", "after_image")
    }
    assert named == {None, "label", "answer", "after_image"}
    lung = Attention(queries=word("left lung"))
    assert json.loads(json.dumps(lung.to_dict()))["queries"] == {"word": "left lung"}
    assert hash(lung) == hash(Attention(queries=word("left lung")))


@pytest.mark.usefixtures("unchecked")
def test_queries_that_make_no_sense_are_refused(mllm):
    with pytest.raises(
        SiteError,
        match=r"one of 'last', 'question', 'label', 'answer', 'after_image', or interp.word\(…\); got 'all'",
    ):
        Attention(queries="all")
    with pytest.raises(SiteError, match=r"got \['last', 'question'\]"):
        Attention(queries=["last", "question"])
    with pytest.raises(SiteError, match=r"meta\['label'\].*has the label None.*queries='question'"):
        Attention(queries="label")(mllm, tiny.samples())
    with pytest.raises(SiteError, match=r"has the label '  '\. Give the sample a label"):
        Attention(queries="label")(mllm, tiny.samples()[0].replace(meta={"label": "  "}))
    with pytest.raises(SiteError, match="does not hold the word 'spleen'; its words are: is it red"):
        Attention(queries="label")(mllm, tiny.samples()[0].replace(meta={"label": "spleen"}))
    with pytest.raises(SiteError, match="A generic prompt has no question"):
        Attention(queries="question")(mllm, tiny.samples(), prompt=GENERIC_PROMPT)


def test_a_question_before_the_image_is_refused(mllm):
    before = Prompt(PAPER_PROMPT.template, image_first=False)
    with pytest.raises(SiteError, match=r"no attention at any layer.*image_first=True"):
        Attention(GENERIC_PROMPT, queries="question")(mllm, tiny.samples(), prompt=before)
    assert Attention(GENERIC_PROMPT)(mllm, tiny.samples(), prompt=before)[0].values.any()


def test_a_token_of_a_thought_is_no_answer():
    thinking, script = scripted()
    script.say(ids(thinking, "is </think> yes </s>"))
    with pytest.raises(SiteError, match=r"begins a thought before its answer to sample .*thinking=False"):
        Attention(queries="answer")(thinking, picture(), prompt=Prompt(thinking=True))


def test_an_empty_answer_has_no_row(eager):
    sample = tiny.samples()[0]
    first = int(attention(eager, inputs_of(sample, sample.question + SHORT))[1].argmax())
    ending = wrap(tiny.llava(), tiny.processor())
    ending.hf.generation_config.eos_token_id = first
    with pytest.raises(SiteError, match=r"answer to sample .* is empty: .*queries='answer' needs an answer"):
        Attention(queries="answer")(ending, [sample])
